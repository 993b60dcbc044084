"""An extension of griffe: the doctests of a docstring become code blocks, which they are not in Markdown."""

import re

import griffe

# A prompt and everything down to the next empty line, at the margin or indented.
_SESSION = re.compile(r"^( *)>>> .*(?:\n(?! *$).*)*", flags=re.MULTILINE)


class Examples(griffe.Extension):
    """Fences every interactive session."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:  # noqa: ARG002
        """Called by griffe with each object that it has found."""
        if obj.docstring:
            obj.docstring.value = _SESSION.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)

"""A hook of mkdocs: refuses a page that would load anything from elsewhere. Links that a reader may follow are fine."""

import re

from mkdocs.exceptions import PluginError

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+|"""
    r"""<link\b[^>]*\bhref=["']?(?:https?:)?//[^"'\s>]+|@import\s+["']?https?:"""
)


def on_post_page(output, page, config):  # noqa: ARG001
    """Called by mkdocs with each finished page."""
    found = next((m for m in _LOADED.finditer(output) if 'rel="canonical"' not in m[0]), None)
    if found:
        raise PluginError(f"{page.file.src_uri} loads something from elsewhere: {found[0]}")
    return output

"""What is wrong with a config, said so that its author can repair it."""

import dataclasses
import difflib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

# Stands for the value of a key that is not there.
ABSENT: Any = object()


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong with a config.

    Args:
        key: dotted, for instance `training.epochs`; empty where the whole file is meant.
        value: what the config says, or `ABSENT`.
        fault: what is wrong with it.
        remedy: what to write instead.

    >>> print(Problem("training.epochs", "sixty", "must be a number", "write epochs = 60"))
    training.epochs = "sixty": must be a number; write epochs = 60
    """

    key: str
    value: Any
    fault: str
    remedy: str

    def __str__(self) -> str:
        said = "" if self.value is ABSENT else f"{' = ' if self.key else ''}{as_toml(self.value)}"
        place = f"{self.key}{said}: " if self.key or said else ""
        return f"{place}{self.fault}; {self.remedy}"


class ConfigError(ValueError):
    """A config that cannot be used. The message lists everything that is wrong with it at once.

    Args:
        problems: at least one.
        source: where the config came from, for the message.
    """

    def __init__(self, problems: Iterable[Problem], source: str = "the config"):
        self.problems = tuple(problems)
        self.source = source
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        super().__init__("\n".join([f"{count} in {source}:", *(f"  {problem}" for problem in self.problems)]))


def as_toml(value: Any) -> str:
    """`value` roughly as its author wrote it, cut to a readable length."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = '"' + value.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    elif isinstance(value, dict):
        text = "{...}" if value else "{}"
    elif isinstance(value, int) and value.bit_length() > 200:
        text = f"an integer of {value.bit_length()} bits"  # str() of a huge integer is slow, or refused
    elif isinstance(value, Decimal) and value.is_finite():
        text = str(float(value)) if Decimal(str(float(value))) == value else str(value).lower()
    else:
        text = str(value).lower().replace("infinity", "inf")
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that `name` was probably meant to be: one that it begins, or one that is spelled much like it."""
    valid = list(valid)
    begun = [full for full in valid if name and full.startswith(name.lower())]
    close = begun if len(begun) == 1 else difflib.get_close_matches(name.lower(), valid, n=1, cutoff=0.6)
    return close[0] if close else None

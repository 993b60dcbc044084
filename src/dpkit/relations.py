"""When two data sets count as neighbours."""

import enum


class NeighboringRelation(enum.StrEnum):
    """What one unit's presence changes.

    `ADD_OR_REMOVE_ONE`: one unit is added or removed. `REPLACE_ONE`: one unit's record becomes any other record, so a
    clipped sum moves by up to twice the clip norm. `REPLACE_SPECIAL`: one unit's record becomes a special record that
    contributes nothing (zero-out), so a clipped sum moves by up to the clip norm.

    >>> NeighboringRelation("replace_one")
    <NeighboringRelation.REPLACE_ONE: 'replace_one'>
    """

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    REPLACE_ONE = "replace_one"
    REPLACE_SPECIAL = "replace_special"

    @classmethod
    def _missing_(cls, value: object):
        raise ValueError(f"relation must be one of {', '.join(cls)}; got {value!r}")

    @property
    def sensitivity(self) -> float:
        """How far one unit moves a sum of contributions of norm at most 1."""
        return 2.0 if self is NeighboringRelation.REPLACE_ONE else 1.0

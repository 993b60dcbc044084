"""What every accountant promises."""

import abc
import dataclasses
import math

from dpkit import validation
from dpkit.mechanisms.base import Mechanism
from dpkit.relations import NeighboringRelation


@dataclasses.dataclass(frozen=True)
class Bounds:
    """A certified interval: `lower <= truth <= upper`. `upper` is the guarantee; `lower` says how tight it is.

    Args:
        lower: never above truth.
        upper: never below truth.
        order: the Renyi order that gave `upper`, where one did.
        note: what a reader must know about these bounds, for instance that another accountant supplied them.
    """

    lower: float
    upper: float
    order: float | None = None
    note: str | None = None

    def __post_init__(self):
        if math.isnan(self.lower) or math.isnan(self.upper) or not 0 <= self.lower <= self.upper:
            raise ArithmeticError(f"not an interval of non-negative numbers: [{self.lower}, {self.upper}]")


@dataclasses.dataclass(frozen=True)
class PrivacyAccountant(abc.ABC):
    """Turns a mechanism into epsilon or delta. Stateless: every call accounts for the whole mechanism it is given.

    Args:
        relation: when two data sets are neighbours; a `NeighboringRelation` or its name.

    Guarantees: `Bounds` that hold in exact arithmetic for the mechanism as described, in spite of rounding here. Never
    NaN, never negative.
    """

    relation: NeighboringRelation | str = NeighboringRelation.ADD_OR_REMOVE_ONE

    def __post_init__(self):
        object.__setattr__(self, "relation", NeighboringRelation(self.relation))

    def epsilon(self, mechanism: Mechanism, *, delta: float) -> Bounds:
        """Bounds on the least epsilon for which `mechanism` is (epsilon, delta)-DP; `inf` where there is none.

        Raises:
            ValueError: `delta` is not in [0, 1], or `mechanism` is not a mechanism.
            UnsupportedViewError: a part of `mechanism` lacks the view this accountant needs.
        """
        _check_mechanism(mechanism)
        return self._epsilon(mechanism, validation.probability("delta", delta))

    def delta(self, mechanism: Mechanism, *, epsilon: float) -> Bounds:
        """Bounds on the least delta for which `mechanism` is (epsilon, delta)-DP.

        Raises:
            ValueError: `epsilon` is negative or not finite, or `mechanism` is not a mechanism.
            UnsupportedViewError: a part of `mechanism` lacks the view this accountant needs.
        """
        _check_mechanism(mechanism)
        return self._delta(mechanism, validation.non_negative("epsilon", epsilon))

    @abc.abstractmethod
    def _epsilon(self, mechanism: Mechanism, delta: float) -> Bounds: ...

    @abc.abstractmethod
    def _delta(self, mechanism: Mechanism, epsilon: float) -> Bounds: ...


def _check_mechanism(mechanism: Mechanism) -> None:
    if not isinstance(mechanism, Mechanism):
        raise ValueError(f"mechanism must be a dpkit Mechanism, got {mechanism!r}")

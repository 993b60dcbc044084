"""What releases reveal about one record of one data set: types of their own, because none of it is a DP guarantee."""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dpkit import validation
from dpkit.mechanisms.pair import Array

KIND = "per-instance: not a DP guarantee for the mechanism"


@dataclasses.dataclass(frozen=True)
class PerInstance:
    """A number that depends on the data. Composition and accountants refuse it by name."""

    kind: ClassVar[str] = KIND


@dataclasses.dataclass(frozen=True)
class PerInstanceRenyi(PerInstance):
    """Renyi divergences between the releases of one data set and of its neighbours by one record, per order.

    Guarantees: nothing about any other record or data set. The numbers are functions of the data, and so are sensitive
    themselves. Several releases may be added up only through a `PerInstanceFilter`, because later data-dependent
    divergences are random.

    Args:
        orders: Renyi orders > 1, or inf.
        divergences: the larger of the two directions at each order.
    """

    orders: tuple[float, ...]
    divergences: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "orders", _orders(self.orders))
        object.__setattr__(self, "divergences", _curve("divergences", self.divergences, len(self.orders)))


class BudgetExceededError(RuntimeError):
    """The next release would exceed a per-instance budget: stop, or leave the record out."""


@dataclasses.dataclass(frozen=True)
class PerInstanceFilter(PerInstance):
    """Releases stop, or a record is left out, before its divergences add up to more than a budget fixed beforehand.

    Args:
        orders: Renyi orders > 1, or inf.
        budget: the largest sum allowed at each order, chosen before anything was released.
        spent: what has been charged so far; 0 at the start.

    Guarantees: for the one record and data set whose divergences are charged, an adaptive run that makes no release
    after `charge` has refused has a Renyi divergence of at most `budget` at every order: report that, not `spent`,
    which depends on the outputs. Every order must fit, so that the bounds hold together.

    References: Feldman and Zrnic (2021), Theorem 4.3.

    >>> account = PerInstanceFilter(orders=(2.0,), budget=(1.0,))
    >>> account = account.charge(PerInstanceRenyi((2.0,), (0.75,)))
    >>> account.allows(PerInstanceRenyi((2.0,), (0.5,)))
    False
    """

    orders: tuple[float, ...]
    budget: tuple[float, ...]
    spent: tuple[float, ...] | None = None

    def __post_init__(self):
        object.__setattr__(self, "orders", _orders(self.orders))
        object.__setattr__(self, "budget", _curve("budget", self.budget, len(self.orders)))
        spent = (0.0,) * len(self.orders) if self.spent is None else self.spent
        object.__setattr__(self, "spent", _curve("spent", spent, len(self.orders)))

    def allows(self, release: PerInstanceRenyi) -> bool:
        """Whether the release fits into what is left at every order.

        Raises:
            ValueError: `release` is not a `PerInstanceRenyi` at the same orders.
        """
        return all(total <= budget for total, budget in zip(self._after(release), self.budget, strict=True))

    def charge(self, release: PerInstanceRenyi) -> "PerInstanceFilter":
        """The filter after the release, which may then be made.

        Raises:
            BudgetExceededError: it does not fit, so it must not be made with this record.
            ValueError: `release` is not a `PerInstanceRenyi` at the same orders.
        """
        if not self.allows(release):
            raise BudgetExceededError(
                f"the release needs {release.divergences} at orders {self.orders}, and {self.spent} of {self.budget} "
                "are spent; stop here, or leave the record out from now on"
            )
        return dataclasses.replace(self, spent=self._after(release))

    def _after(self, release: PerInstanceRenyi) -> tuple[float, ...]:
        if not isinstance(release, PerInstanceRenyi) or release.orders != self.orders:
            raise ValueError(f"release must be a PerInstanceRenyi at orders {self.orders}, got {release!r}")
        assert self.spent is not None
        # Rounded up, so that a long run of small charges cannot slip below its true sum.
        return tuple(
            math.nextafter(a + b, math.inf) if b else a for a, b in zip(self.spent, release.divergences, strict=True)
        )


def checked_orders(orders: ArrayLike) -> Array:
    """`orders` as float64, or `ValueError` unless each is above 1 (inf included)."""
    orders = np.asarray(orders, dtype=np.float64)
    if not orders.size or not np.all(orders > 1):
        raise ValueError(f"orders must be numbers > 1, at least one, got {orders}")
    return orders


def _orders(orders: Sequence[float]) -> tuple[float, ...]:
    return tuple(checked_orders(tuple(orders)).tolist())


def _curve(name: str, values: Sequence[float], count: int) -> tuple[float, ...]:
    numbers = tuple(math.inf if value == math.inf else validation.non_negative(name, value) for value in values)
    if len(numbers) != count:
        raise ValueError(f"{name} must have one number for each of the {count} orders, got {len(numbers)}")
    return numbers

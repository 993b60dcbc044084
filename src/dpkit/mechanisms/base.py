"""The Mechanism value and the error raised for a view it does not have."""

import abc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.mechanisms.pair import DominatingPair
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    import jax

Array = NDArray[np.float64]


class UnsupportedViewError(NotImplementedError):
    """A mechanism was asked for a privacy view that nobody has proved for it."""

    def __init__(self, mechanism: "Mechanism", view: str, reason: str, works_with: tuple[str, ...] = ()):
        works = f"; accountants that work: {', '.join(works_with)}" if works_with else ""
        super().__init__(f"{mechanism} has no {view} view: {reason}{works}")
        self.mechanism = mechanism
        self.view = view


class Mechanism(abc.ABC):
    """A frozen value that says how private one release is, and can make that release.

    Every view takes the neighbouring relation. A view that is not proved raises `UnsupportedViewError`; none of them
    ever returns a number below truth.

    Attributes:
        floating_point_safe: whether it has an exact sampler, `release_exactly`, to which the guarantee applies to the
            last bit. `privatize` never is one: it computes with floating-point numbers (Mironov 2012).
    """

    floating_point_safe: ClassVar[bool] = False

    def dominating_pairs(self, relation: NeighboringRelation) -> tuple[DominatingPair, DominatingPair]:
        """Dominating pairs (unit present against absent, absent against present).

        Under `REPLACE_ONE` the two are a replacement and its reverse. Runs are composed in each direction separately;
        the guarantee is the worse of the two totals.

        Raises:
            UnsupportedViewError: no dominating pair is known under `relation`.
        """
        raise UnsupportedViewError(self, "dominating-pair", f"none is known under {relation}", ("rdp", "zcdp"))

    def rdp(self, orders: ArrayLike, relation: NeighboringRelation) -> Array:
        """Renyi divergence of each order (> 1), the larger of the two directions, shaped like `orders` (k,).

        Raises:
            UnsupportedViewError: no Renyi bound is known under `relation`.
        """
        raise UnsupportedViewError(self, "RDP", f"no Renyi bound is known under {relation}", ("pld",))

    def zcdp(self, relation: NeighboringRelation) -> float:
        """The least known rho with D_order <= rho * order for every order > 1.

        Raises:
            UnsupportedViewError: no such rho is known under `relation`.
        """
        raise UnsupportedViewError(self, "zCDP", f"no rho is known under {relation}", ("pld", "rdp"))

    def parts(self) -> Iterator[tuple["Mechanism", int]]:
        """The elementary mechanisms this one is composed of, each with its number of repetitions."""
        yield self, 1

    def grouped(self, size: int) -> "Mechanism":
        """The same release judged against changes of `size` units at once; see `dpkit.mechanisms.group`."""
        raise UnsupportedViewError(self, "group", f"no exact group of {size} is known")

    def privatize(self, value: "jax.typing.ArrayLike", key: "jax.Array") -> Any:
        """Makes the release: `value` has sensitivity 1 in this mechanism's norm. Pure and jittable.

        Args:
            value: array of any shape.
            key: JAX PRNG key, used once. Required: a default key would be a published secret.

        Returns:
            An array shaped like `value`.
        """
        raise UnsupportedViewError(self, "release", "this value only describes a guarantee")

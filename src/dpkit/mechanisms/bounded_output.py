"""What Gaussian releases into a fixed box have in common: the divergences of given pairs of values."""

import abc
from typing import NoReturn

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dpkit import validation
from dpkit.mechanisms.pair import Array
from dpkit.mechanisms.per_instance import PerInstanceRenyi, checked_orders


class BoundedOutput(abc.ABC):
    """A Gaussian release of a number, or of each coordinate by itself, into the box [lower, upper].

    All values here are in units of the sensitivity, as the box is; they may lie outside of it.
    """

    noise_multiplier: float
    lower: float
    upper: float

    @abc.abstractmethod
    def _renyi(self, orders: Array, position: float, shift: float, width: float) -> Array: ...

    @abc.abstractmethod
    def _hockey_stick(self, epsilon: float, position: float, shift: float, width: float) -> float: ...

    @abc.abstractmethod
    def _fisher(self, low: Array, width: float) -> Array: ...

    def renyi_divergence(self, orders: ArrayLike, first: float, second: float) -> Array:
        """Exact Renyi divergence of the release of the number `first` from that of `second`, shaped like `orders`.

        Within 1e-10 relative for orders > 1 and inf; 0 only if the two are equal. It differs between the directions.

        Raises:
            ValueError: an order is not above 1, or a value is not finite.
        """
        position, shift = self._place(first, second)
        return self._renyi(checked_orders(orders), position, shift, self._width)

    def hockey_stick(self, epsilon: float, first: float, second: float) -> float:
        """Exact `H_{e^epsilon}` of the release of the number `first` against that of `second`, for any real epsilon.

        Raises:
            ValueError: `epsilon` or a value is not finite.
        """
        return self._hockey_stick(validation.real("epsilon", epsilon), *self._place(first, second), self._width)

    def per_instance_rdp(self, theta: ArrayLike, kappa: ArrayLike, orders: ArrayLike) -> PerInstanceRenyi:
        """Renyi divergences, in either direction, if one record changes each coordinate by up to kappa either way.

        Args:
            theta: the query's value on this data set, a number or coordinates.
            kappa: largest changes, >= 0, one number or one per coordinate.
            orders: Renyi orders > 1, or inf (k,).

        Returns:
            The sum over coordinates of the largest of four numbers: up or down, either direction. The divergence grows
            with the change at a fixed end (monotone likelihood ratios), so no smaller change exceeds it.

        Raises:
            ValueError: `theta` is not finite, a `kappa` is negative or not finite, or an order is not above 1.

        Guarantees: those of `PerInstanceRenyi`, which are no DP. The coordinates' noise is independent, so theirs add
        up; that fails under sampling with a secret batch, where only the worst-case views hold.
        """
        theta, kappa = np.broadcast_arrays(np.asarray(theta, np.float64), np.asarray(kappa, np.float64))
        if not np.all(np.isfinite(theta)):
            raise ValueError(f"theta must be finite, got {theta}")
        if not np.all(np.isfinite(kappa) & (kappa >= 0)):
            raise ValueError(f"kappa must be finite and >= 0, got {kappa}")
        orders = np.atleast_1d(checked_orders(orders))
        total = np.zeros(orders.shape)
        places, counts = np.unique(np.column_stack([theta.ravel(), kappa.ravel()]), axis=0, return_counts=True)
        for (value, change), count in zip(places.tolist(), counts.tolist(), strict=True):
            position, shift = (value - self.lower) / self.noise_multiplier, change / self.noise_multiplier
            ways = [(position, shift), (position, -shift), (position + shift, -shift), (position - shift, shift)]
            total += count * np.max([self._renyi(orders, *way, self._width) for way in ways], axis=0)
        return PerInstanceRenyi(tuple(orders.ravel().tolist()), tuple(total.ravel().tolist()))

    def fisher_information(self, theta: ArrayLike) -> Array:
        """Fisher information that the release of each of `theta` holds about it; in (0, 1/noise_multiplier^2].

        It bounds how well an unbiased estimator can reconstruct the value (Cramer and Rao). It is not DP.

        Raises:
            ValueError: `theta` is not finite.
        """
        theta = np.asarray(theta, dtype=np.float64)
        if not np.all(np.isfinite(theta)):
            raise ValueError(f"theta must be finite, got {theta}")
        return self._fisher((self.lower - theta) / self.noise_multiplier, self._width) / self.noise_multiplier**2

    @property
    def _width(self) -> float:
        return (self.upper - self.lower) / self.noise_multiplier

    def _place(self, first: float, second: float) -> tuple[float, float]:
        first, second = validation.real("first", first), validation.real("second", second)
        return (second - self.lower) / self.noise_multiplier, (first - second) / self.noise_multiplier

    def _check_box(self, bounded: str) -> None:
        for name in ("lower", "upper"):
            object.__setattr__(self, name, validation.real(name, getattr(self, name)))
        object.__setattr__(self, "noise_multiplier", validation.positive("noise_multiplier", self.noise_multiplier))
        if self.lower >= self.upper:
            raise ValueError(f"lower must be below upper, got lower={self.lower} and upper={self.upper}")
        if bounded == "noise":
            self._refuse_bounded_noise()
        if bounded != "output":
            raise ValueError(f"bounded must be 'output', got {bounded!r}; the box is that of the output")

    def _refuse_bounded_noise(self) -> NoReturn:
        raise ValueError(
            "bounded must be 'output', got 'noise': bounded noise moves its support with the value, so some outputs "
            f"are possible with a record and impossible without it. Here delta >= {self._bounded_noise_delta():.3g} "
            "at every epsilon, and every Renyi divergence is infinite. Bound the output by a box that is fixed "
            "whatever the data"
        )

    @abc.abstractmethod
    def _bounded_noise_delta(self) -> float:
        """What noise (not output) within the box leaves to a record of sensitivity 1, at every epsilon."""

    def _tails(self) -> tuple[float, float]:
        """Masses of the noise beyond the box's two ends."""
        ends = special.ndtr(np.array([self.lower, -self.upper]) / self.noise_multiplier)
        return float(ends[0]), float(ends[1])

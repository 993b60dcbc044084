"""The kinds of mechanism a config may name: the keys each has, the value it makes, and what calibration chooses."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from dpkit import mechanisms
from dpkit.mechanisms import Mechanism


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of mechanism.

    Args:
        make: the mechanism of one step from the keys below, by name.
        needed: keys of `[mechanism]` that have to be there.
        optional: keys that may be there, besides those in `described`.
        described: keys that no number depends on, but what is said about it does.
        noise: the key that calibration chooses; None where there is none.
        of_noise: maps an amount of noise, from 0 to infinity, to the value of that key.
        costs: what a message costs and an estimate errs, label by label, from the keys and the number of clients.
    """

    make: Callable[..., Mechanism]
    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()
    described: tuple[str, ...] = ()
    noise: str | None = "noise_multiplier"
    of_noise: Callable[[float], float] = float
    costs: Callable[..., dict[str, str]] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that it may have."""
        return (*self.needed, *self.optional, *self.described)

    def mechanism(self, table: Mapping[str, Any]) -> Mechanism:
        """One step as a unit that takes part in it sees it, from the valid keys of `[mechanism]`.

        Raises:
            ValueError: the keys do not fit together; the message names one of them.
        """
        with warnings.catch_warnings():
            # `cautions` says the same to those who asked for numbers.
            warnings.simplefilter("ignore", UserWarning)
            return self.make(**self._arguments(table))

    def cautions(self, table: Mapping[str, Any]) -> tuple[str, ...]:
        """What the mechanism warns of."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            self.make(**self._arguments(table))
        return tuple(str(warning.message) for warning in caught)

    def costs_of(self, table: Mapping[str, Any], clients: int) -> dict[str, str]:
        """`costs` in a step of so many clients; empty where nothing is sent but what training needs anyway."""
        return {} if self.costs is None else self.costs(clients, **self._arguments(table))

    def _arguments(self, table: Mapping[str, Any]) -> dict[str, Any]:
        return {key: table[key] for key in (*self.needed, *self.optional) if table.get(key) is not None}


def _each_coordinate(kind: type[Mechanism]) -> Callable[..., Mechanism]:
    def make(dimension: int = 1, **arguments: Any) -> Mechanism:
        return mechanisms.repeat(kind(**arguments), dimension)

    return make


def _bits_of(kind: type[mechanisms.RandomizedQuantization] | type[mechanisms.PoissonBinomial]) -> Callable[..., Any]:
    def costs(_: int, /, dimension: int = 1, **arguments: Any) -> dict[str, str]:
        return {"Bits per message": f"{dimension * kind(**arguments).bits:,}"}

    return costs


def _sparsified_costs(clients: int, /, **arguments: Any) -> dict[str, str]:
    mechanism = mechanisms.SparsifiedGaussian(**arguments)
    error = mechanism.mean_squared_error(clients)
    return {
        "Bits per message": f"{mechanism.bits_per_client():,.0f} (float32 values and which they are)",
        "Squared error of the mean": f"at most {error:.4g} times the squared clip norm, without what clipping takes",
    }


_CLIPPED = ("l2_clip_norm",)
_INTEGERS = ("l2_sensitivity", "dimension")
KINDS = {
    "gaussian": Kind(mechanisms.Gaussian, ("noise_multiplier",), described=_CLIPPED),
    "laplace": Kind(mechanisms.Laplace, ("noise_multiplier",), described=_CLIPPED),
    "zcdp": Kind(mechanisms.ZeroConcentrated, ("rho",), described=_CLIPPED, noise=None),
    "rectified_gaussian": Kind(
        mechanisms.RectifiedGaussian, ("noise_multiplier", "lower", "upper"), described=_CLIPPED
    ),
    "truncated_gaussian": Kind(
        mechanisms.TruncatedGaussian,
        ("noise_multiplier", "lower", "upper"),
        ("coordinates", "value_range"),
        described=_CLIPPED,
    ),
    "sparsified_gaussian": Kind(
        mechanisms.SparsifiedGaussian,
        ("noise_multiplier", "keep_probability", "dimension"),
        ("linf_clip",),
        described=_CLIPPED,
        costs=_sparsified_costs,
    ),
    "discrete_gaussian": Kind(mechanisms.DiscreteGaussian, ("sigma",), _INTEGERS, noise="sigma"),
    "distributed_discrete_gaussian": Kind(
        mechanisms.DistributedDiscreteGaussian, ("local_sigma", "num_shares"), _INTEGERS, noise="local_sigma"
    ),
    "skellam": Kind(mechanisms.Skellam, ("variance",), _INTEGERS, noise="variance"),
    "randomized_quantization": Kind(
        _each_coordinate(mechanisms.RandomizedQuantization),
        ("levels", "keep_probability", "margin", "clip"),
        ("clients", "dimension"),
        noise="margin",
        costs=_bits_of(mechanisms.RandomizedQuantization),
    ),
    "poisson_binomial": Kind(
        _each_coordinate(mechanisms.PoissonBinomial),
        ("trials", "theta", "clip"),
        ("clients", "dimension"),
        noise="theta",
        of_noise=lambda noise: 0.5 / (1 + noise),
        costs=_bits_of(mechanisms.PoissonBinomial),
    ),
    "randomized_response": Kind(
        _each_coordinate(mechanisms.RandomizedResponse),
        ("noise_parameter",),
        ("num_buckets", "dimension"),
        noise="noise_parameter",
        of_noise=lambda noise: noise / (1 + noise),
    ),
}

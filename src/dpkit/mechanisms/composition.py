"""Composition as data: only accountants multiply."""

import dataclasses
from collections.abc import Iterator

from dpkit import validation
from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.per_instance import PerInstance


@dataclasses.dataclass(frozen=True)
class Composed(Mechanism):
    """Several mechanisms run on the same data, each seeing the outputs of those before it.

    Guarantees: an accountant's bound for the composition holds for adaptive runs, as long as each part's own bound
    holds for every history and the parts and their counts are fixed beforehand.
    """

    members: tuple[tuple[Mechanism, int], ...]

    def parts(self) -> Iterator[tuple[Mechanism, int]]:
        for member, count in self.members:
            for part, inner in member.parts():
                if count * inner:
                    yield part, count * inner

    def grouped(self, size: int) -> Mechanism:
        return Composed(tuple((member.grouped(size), count) for member, count in self.members))


def compose(*mechanisms: Mechanism) -> Mechanism:
    """All of `mechanisms`, run on the same data; `compose()` releases nothing.

    >>> from dpkit import mechanisms
    >>> run = compose(mechanisms.Gaussian(2.0), mechanisms.Laplace(20.0))
    >>> [(type(m).__name__, n) for m, n in run.parts()]
    [('Gaussian', 1), ('Laplace', 1)]
    """
    for mechanism in mechanisms:
        check_mechanism(mechanism)
    return Composed(tuple((mechanism, 1) for mechanism in mechanisms))


def repeat(mechanism: Mechanism, count: int) -> Mechanism:
    """`mechanism` run `count` times on the same data.

    Raises:
        ValueError: `count` is negative or not an integer.

    >>> from dpkit import mechanisms
    >>> list(repeat(repeat(mechanisms.Gaussian(1.0), 3), 4).parts())
    [(Gaussian(noise_multiplier=1.0), 12)]
    """
    check_mechanism(mechanism)
    return Composed(((mechanism, validation.count("count", count)),))


def group(mechanism: Mechanism, size: int) -> Mechanism:
    """`mechanism` judged against any `size` units changing at once (group privacy).

    Exact for Gaussian, Laplace, their Poisson-sampled Gaussian and compositions of these; `size**2 * rho` for a
    declared zCDP guarantee.

    Raises:
        ValueError: `size` is below 1 or not an integer.
        UnsupportedViewError: no exact or proved group bound is known for a part.

    References: Dong, Roth and Su (2022), Theorem 2.14; Ganesh (2024) for Poisson sampling.

    >>> from dpkit import mechanisms
    >>> group(mechanisms.Gaussian(3.0), 3)
    Gaussian(noise_multiplier=1.0)
    """
    check_mechanism(mechanism)
    size = validation.count("size", size, minimum=1)
    return mechanism if size == 1 else mechanism.grouped(size)


def check_mechanism(mechanism: Mechanism) -> None:
    if isinstance(mechanism, PerInstance):
        raise ValueError(
            f"mechanism must be a dpkit Mechanism, got {mechanism!r}, which is {mechanism.kind}: it bounds one record "
            "of one data set, so it neither composes with worst-case guarantees nor is one; account for the mechanism "
            "itself, or add up such numbers in a PerInstanceFilter"
        )
    if not isinstance(mechanism, Mechanism):
        raise ValueError(f"mechanism must be a dpkit Mechanism, got {mechanism!r}")

"""Audits that run a mechanism's own `privatize` on its worst case."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpkit import validation
from dpkit.audit.rates import Method, audit_scores
from dpkit.audit.result import AuditResult
from dpkit.mechanisms import (
    DiscreteGaussian,
    DistributedDiscreteGaussian,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    Mechanism,
    PoissonBinomial,
    PoissonSampled,
    RandomizedQuantization,
    RandomizedResponse,
    RectifiedGaussian,
    Skellam,
    SparsifiedGaussian,
    TruncatedGaussian,
    UnsupportedViewError,
)
from dpkit.relations import NeighboringRelation

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What is handed to `privatize`: with the unit, without it (or with the other record), and if it is not drawn.

    None stands for a uniformly random bucket, which is what the special record reports.
    """

    present: float
    absent: float | None
    undrawn: float | None
    integers: bool = False


def audit_release(
    mechanism: Mechanism,
    relation: NeighboringRelation | str = NeighboringRelation.ADD_OR_REMOVE_ONE,
    *,
    delta: float,
    trials: int = 100_000,
    confidence: float = 0.95,
    method: Method = "threshold",
    seed: int = 0,
) -> AuditResult:
    """A lower bound on the epsilon of one release, from running `privatize` on two neighbouring inputs.

    The inputs are one number (of a vector, one coordinate; of masked vectors, the sum of all) that the unit moves as
    far as it may, the attack is a threshold on what comes out. For noise whose likelihood ratio is monotone that is
    the best attack on the worst pair of inputs, elsewhere it is a valid one. Where the mechanism is sampled, a fair
    simulation of the sampler decides whether the unit is drawn.

    Args:
        mechanism: one release that has a `privatize`.
        relation: when two data sets are neighbours.
        delta: in [0, 1]; above 0 for "gdp".
        trials: releases with the unit, and as many without; the first half of them choose the threshold.
        confidence: of the bound, in (0, 1).
        method: "threshold" or "gdp", as in `audit_counts`.
        seed: of the noise. It need not be secret: no data are involved. Do not quote the largest of several.

    Raises:
        ValueError: an argument is out of range.
        UnsupportedViewError: `mechanism` makes no release, is a composition, or has no guarantee under `relation`.

    Guarantees: those of `audit_counts`, if JAX's generator is as good as random numbers.

    >>> from dpkit import mechanisms
    >>> found = audit_release(mechanisms.Laplace(1.0), delta=0.0)
    >>> 0.9 < found.epsilon_lower < 1.0
    True
    """
    relation = NeighboringRelation(relation)
    trials = validation.count("trials", trials, minimum=4)
    present, absent = released_scores(mechanism, relation, trials, seed)
    found = audit_scores(present, absent, delta=delta, confidence=confidence, method=method)
    return dataclasses.replace(found, method=f"released values, {found.method}")


def released_scores(mechanism: Mechanism, relation: NeighboringRelation, trials: int, seed: int) -> tuple[Array, Array]:
    """What independent releases show (trials,), with the unit and without it."""
    base, probability = _unsampled(mechanism)
    inputs = _inputs(base, relation)
    # Refuses relations that nothing is promised under.
    mechanism.zcdp(relation)
    if isinstance(mechanism, FixedSizeSampled):
        # The rest of the sample holds what the other record holds, so that nobody sees whether it was drawn.
        inputs = dataclasses.replace(inputs, undrawn=inputs.absent)
    rng = np.random.default_rng(seed)
    values = np.concatenate(
        [_drawn(base, value, inputs.undrawn, probability, trials, rng) for value in (inputs.present, inputs.absent)]
    )
    released = _release(base, values.astype(np.int32 if inputs.integers else np.float32), rng)
    return released[:trials], released[trials:]


def _unsampled(mechanism: Mechanism) -> tuple[Mechanism, float]:
    if isinstance(mechanism, PoissonSampled):
        return mechanism.mechanism, mechanism.sampling_probability
    if isinstance(mechanism, FixedSizeSampled):
        return mechanism.mechanism, mechanism.batch_size / mechanism.population
    return mechanism, 1.0


def _drawn(
    base: Mechanism,
    value: float | None,
    undrawn: float | None,
    probability: float,
    trials: int,
    rng: np.random.Generator,
) -> NDArray[Any]:
    """The unit's value where a coin of that probability draws it."""
    drawn = rng.random(trials) < probability
    return np.where(drawn, _filled(base, value, trials, rng), _filled(base, undrawn, trials, rng))


def _release(base: Mechanism, values: NDArray[Any], rng: np.random.Generator) -> Array:
    import jax

    key = jax.random.key(int(rng.integers(2**31)))
    if isinstance(base, SparsifiedGaussian):
        return _masked(base, values, key)
    return np.asarray(base.privatize(values, key), dtype=np.float64)


def _masked(base: SparsifiedGaussian, values: NDArray[Any], key: Any) -> Array:
    """The sum over the coordinates that a client may fill, each in units of what it may put there."""
    import jax
    import jax.numpy as jnp

    filled = min(base.dimension, int(1 / base.linf_clip**2 + 1e-9))
    shape = jnp.where(jnp.arange(base.dimension) < filled, base.linf_clip, 0.0)

    @jax.jit
    @jax.vmap
    def one(value: jax.Array, key: jax.Array) -> jax.Array:
        mask, noise = jax.random.split(key)
        return base.privatize(base.encode(value * shape, mask), noise)[:filled].sum()

    return np.asarray(one(values, jax.random.split(key, len(values))), dtype=np.float64)


def _filled(base: Mechanism, value: float | None, trials: int, rng: np.random.Generator) -> NDArray[Any]:
    if value is None:
        assert isinstance(base, RandomizedResponse)
        return rng.integers(base.num_buckets, size=trials)
    return np.full(trials, value)


def _inputs(mechanism: Mechanism, relation: NeighboringRelation) -> _Inputs:
    replaced = relation is NeighboringRelation.REPLACE_ONE
    match mechanism:
        case RectifiedGaussian() | TruncatedGaussian():
            # Between the middle's two sides, where least is cut off.
            middle, coordinates = (mechanism.lower + mechanism.upper) / 2, getattr(mechanism, "coordinates", None) or 1
            reach = relation.sensitivity / 2 / coordinates**0.5
            return _Inputs(middle + reach, middle - reach, middle if replaced else middle - reach)
        case Gaussian() | Laplace() | SparsifiedGaussian():
            return _Inputs(1.0, -1.0 if replaced else 0.0, 0.0)
        case DiscreteGaussian() | DistributedDiscreteGaussian() | Skellam():
            reach = int(mechanism.l2_sensitivity)
            return _Inputs(reach, -reach if replaced else 0, 0, integers=True)
        case RandomizedResponse():
            absent = 0 if replaced else None
            return _Inputs(mechanism.num_buckets - 1, absent, absent, integers=True)
        case RandomizedQuantization() | PoissonBinomial():
            return _Inputs(mechanism.clip, -mechanism.clip, -mechanism.clip)
    raise UnsupportedViewError(
        mechanism, "audited release", "its worst inputs are not known here; audit_losses needs dominating pairs only"
    )

"""Every mechanism, one row each: the contract tests run on all of them."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from scipy import stats

from dpkit import mechanisms
from dpkit.mechanisms import DominatingPair, Mechanism
from dpkit.relations import NeighboringRelation

ADD, REPLACE, SPECIAL = NeighboringRelation
EVERY = (ADD, REPLACE, SPECIAL)
ONE_SIDED = (ADD, SPECIAL)
"""Relations for which one unit is present in one world and contributes nothing in the other."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A mechanism and what it promises.

    Args:
        relations: those under which it has an RDP and a zCDP view.
        has_pairs: whether it has dominating pairs under the same relations.
        rdp_slack: relative distance by which its RDP view may exceed the divergence of its pairs.
        noisier: the same mechanism with more noise.
        pairs_slack: relative distance by which the divergence of its pairs may exceed its RDP view.
        adds_noise: whether it releases the value plus noise that does not depend on it.
        release: what `privatize` returns for zeros, as a distribution (integers if it is discrete) or as bucket
            probabilities.
    """

    name: str
    mechanism: Mechanism
    relations: tuple[NeighboringRelation, ...]
    noisier: Mechanism | None = None
    has_pairs: bool = True
    rdp_slack: float = 1e-9
    pairs_slack: float = 0.0
    adds_noise: bool = True
    release: Callable[[Mechanism], "stats.rv_continuous | np.ndarray"] | None = None


def _normal(mechanism: mechanisms.Gaussian | mechanisms.SparsifiedGaussian):
    return stats.norm(scale=mechanism.noise_multiplier)


def _laplace(mechanism: mechanisms.Laplace):
    return stats.laplace(scale=mechanism.noise_multiplier)


def _buckets(mechanism: mechanisms.RandomizedResponse) -> np.ndarray:
    p, k = mechanism.noise_parameter, mechanism.num_buckets
    return np.array([1 - p + p / k] + [p / k] * (k - 1))


def _discrete_gaussian_masses(sigma: float) -> np.ndarray:
    """Probabilities of -K, ..., K."""
    reach = int(12 * sigma) + 10
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def _integers(masses: np.ndarray):
    reach = len(masses) // 2
    return stats.rv_discrete(values=(np.arange(-reach, reach + 1), masses))


def _discrete_gaussian(mechanism: mechanisms.DiscreteGaussian):
    return _integers(_discrete_gaussian_masses(mechanism.sigma))


def _several_discrete_gaussians(mechanism: mechanisms.DistributedDiscreteGaussian):
    one = _discrete_gaussian_masses(mechanism.local_sigma)
    return _integers(functools.reduce(np.convolve, [one] * mechanism.num_shares))


def _skellam(mechanism: mechanisms.Skellam):
    return stats.skellam(mechanism.variance / 2, mechanism.variance / 2)


def _truncated(mechanism: mechanisms.TruncatedGaussian):
    ends = mechanism.lower / mechanism.noise_multiplier, mechanism.upper / mechanism.noise_multiplier
    return stats.truncnorm(*ends, scale=mechanism.noise_multiplier)


def _sampled(base: Mechanism, q: float) -> Mechanism:
    return mechanisms.PoissonSampled(base, sampling_probability=q)


def _fixed(base: Mechanism, batch_size: int, population: int) -> Mechanism:
    return mechanisms.FixedSizeSampled(base, batch_size, population)


G, L, RR = mechanisms.Gaussian, mechanisms.Laplace, mechanisms.RandomizedResponse
DG, DDG = mechanisms.DiscreteGaussian, mechanisms.DistributedDiscreteGaussian
SK, SG = mechanisms.Skellam, mechanisms.SparsifiedGaussian
RG, TG = mechanisms.RectifiedGaussian, mechanisms.TruncatedGaussian
RQ, PB = mechanisms.RandomizedQuantization, mechanisms.PoissonBinomial
MIXTURE = (0.0, 0.5, 1.0, 2.0), (0.5, 0.2, 0.2, 0.1)

ROWS = [
    Row("gaussian", G(1.0), EVERY, G(1.2), release=_normal),
    Row("gaussian-little-noise", G(0.3), EVERY, G(0.31), release=_normal),
    Row("gaussian-much-noise", G(50.0), EVERY, G(60.0), release=_normal),
    Row("laplace", L(1.0), EVERY, L(1.2), release=_laplace),
    Row("laplace-little-noise", L(0.2), EVERY, L(0.22), release=_laplace),
    Row("randomized-response", RR(0.5, 2), (REPLACE, SPECIAL), RR(0.6, 2), release=_buckets),
    Row("randomized-response-wide", RR(0.2, 10), (REPLACE, SPECIAL), RR(0.3, 10), release=_buckets),
    Row("sampled-gaussian", _sampled(G(1.1), 0.01), EVERY, _sampled(G(1.3), 0.01)),
    Row("sampled-gaussian-often", _sampled(G(0.6), 0.5), EVERY, _sampled(G(0.7), 0.5)),
    Row("sampled-gaussian-rarely", _sampled(G(5.0), 1e-5), EVERY, _sampled(G(6.0), 1e-5)),
    Row("sampled-laplace", _sampled(L(1.0), 0.1), ONE_SIDED, _sampled(L(1.2), 0.1), rdp_slack=1e-5),
    Row("sampled-response", _sampled(RR(0.3, 4), 0.2), (SPECIAL,), _sampled(RR(0.4, 4), 0.2), rdp_slack=1e-5),
    Row(
        "mixture", mechanisms.MixtureOfGaussians(1.5, *MIXTURE), ONE_SIDED, mechanisms.MixtureOfGaussians(1.8, *MIXTURE)
    ),
    Row(
        "mixture-always-there",
        mechanisms.MixtureOfGaussians(1.0, (0.25, 1.0), (0.9, 0.1)),
        ONE_SIDED,
        mechanisms.MixtureOfGaussians(1.2, (0.25, 1.0), (0.9, 0.1)),
    ),
    Row("sampled-group", mechanisms.group(_sampled(G(2.0), 0.05), 3), ONE_SIDED),
    Row(
        "zero-concentrated", mechanisms.ZeroConcentrated(0.2), EVERY, mechanisms.ZeroConcentrated(0.1), has_pairs=False
    ),
    Row("discrete-gaussian", DG(1.5), EVERY, DG(1.8), release=_discrete_gaussian),
    Row("discrete-gaussian-coarse", DG(0.6, 2.0), EVERY, DG(0.7, 2.0), rdp_slack=0.02, release=_discrete_gaussian),
    Row(
        "discrete-gaussian-vector",
        DG(20.0, 10.0, 100),
        EVERY,
        DG(21.0, 10.0, 100),
        has_pairs=False,
        release=_discrete_gaussian,
    ),
    Row("skellam", SK(4.0), EVERY, SK(5.0), release=_skellam),
    Row("skellam-little-noise", SK(0.3, 2.0), EVERY, SK(0.4, 2.0), release=_skellam),
    Row("skellam-vector", SK(300.0, 10.0, 100), EVERY, SK(350.0, 10.0, 100), has_pairs=False, release=_skellam),
    Row(
        "distributed-discrete-gaussian",
        DDG(1.5, 5, 3.0, 10),
        EVERY,
        DDG(1.6, 5, 3.0, 10),
        has_pairs=False,
        release=_several_discrete_gaussians,
    ),
    Row("sampled-discrete-gaussian", _sampled(DG(1.5), 0.1), ONE_SIDED, _sampled(DG(1.8), 0.1)),
    Row("sampled-skellam", _sampled(SK(4.0, 2.0), 0.01), ONE_SIDED, _sampled(SK(5.0, 2.0), 0.01)),
    Row(
        "sampled-skellam-vector",
        _sampled(SK(300.0, 10.0, 100), 0.2),
        ONE_SIDED,
        _sampled(SK(350.0, 10.0, 100), 0.2),
        has_pairs=False,
    ),
    Row("rectified", RG(1.0, -9.0, 9.0), EVERY, RG(1.2, -9.0, 9.0), release=_normal),
    Row(
        "truncated",
        TG(1.0, -5.0, 5.0),
        EVERY,
        TG(1.2, -5.0, 5.0),
        pairs_slack=1e-3,
        adds_noise=False,
        release=_truncated,
    ),
    Row(
        "truncated-number",
        TG(1.0, -2.0, 2.0, 1),
        EVERY,
        TG(1.2, -2.0, 2.0, 1),
        pairs_slack=0.05,
        adds_noise=False,
        release=_truncated,
    ),
    Row(
        "sampled-truncated-number",
        _sampled(TG(1.0, -2.0, 2.0, 1), 0.1),
        ONE_SIDED,
        _sampled(TG(1.2, -2.0, 2.0, 1), 0.1),
        rdp_slack=1e-5,
    ),
    Row("quantization", RQ(4, 0.5, 4.0, 1.0), (REPLACE,), RQ(4, 0.5, 5.0, 1.0)),
    Row("poisson-binomial", PB(7, 0.2, 1.0), (REPLACE,), PB(7, 0.19, 1.0)),
    Row("fixed-size-gaussian", _fixed(G(1.1), 5, 100), (REPLACE,), _fixed(G(1.3), 5, 100)),
    Row("fixed-size-laplace", _fixed(L(1.0), 30, 100), (REPLACE,), _fixed(L(1.2), 30, 100), rdp_slack=1e-5),
    Row("fixed-size-quantization", _fixed(RQ(4, 0.5, 4.0, 1.0), 1, 10), (REPLACE,), rdp_slack=1e-5),
    Row("sparsified", SG(0.5, 0.1, 100, 0.2), ONE_SIDED, SG(0.6, 0.1, 100, 0.2), has_pairs=False, release=_normal),
    Row(
        "sampled-sparsified",
        _sampled(SG(0.5, 0.1, 100, 0.2), 0.05),
        ONE_SIDED,
        _sampled(SG(0.6, 0.1, 100, 0.2), 0.05),
        has_pairs=False,
    ),
]


def by_name(rows: list[Row]) -> dict:
    """Keyword arguments of `pytest.mark.parametrize` for a row."""
    return {"argvalues": rows, "ids": [row.name for row in rows]}


WITH_PAIRS = [row for row in ROWS if row.has_pairs]
DIRECTIONS = ("present", "absent")


def each_related(rows: list[Row], *, distinct: bool = False) -> dict:
    """Keyword arguments of `pytest.mark.parametrize` for a row under each relation it supports.

    Args:
        distinct: leave out relations whose views equal those of an earlier one.
    """
    cases = []
    for row in rows:
        seen = []
        for relation in row.relations:
            view = row.mechanism.dominating_pairs(relation) if row.has_pairs else row.mechanism.zcdp(relation)
            if not distinct or view not in seen:
                cases.append((row, relation))
            seen.append(view)
    return {"argvalues": cases, "ids": [f"{row.name}-{relation}" for row, relation in cases]}


def distinct_pairs() -> dict[str, DominatingPair]:
    """Every different dominating pair of every row, named."""
    found: dict[DominatingPair, str] = {}
    for row in WITH_PAIRS:
        for relation in row.relations:
            for direction, pair in zip(DIRECTIONS, row.mechanism.dominating_pairs(relation), strict=True):
                found.setdefault(pair, f"{row.name}-{relation}-{direction}")
    return {name: pair for pair, name in found.items()}

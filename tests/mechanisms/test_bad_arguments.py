"""Every bad argument raises `ValueError` naming the argument and the value."""

import math
from fractions import Fraction

import numpy as np
import pytest

from dpkit import NeighboringRelation, mechanisms
from dpkit.mechanisms import (
    DiscreteGaussian,
    DistributedDiscreteGaussian,
    FixedSizeSampled,
    Gaussian,
    Laplace,
    MixtureOfGaussians,
    PoissonBinomial,
    PoissonSampled,
    RandomizedQuantization,
    RandomizedResponse,
    Skellam,
    SparsifiedGaussian,
    ZeroConcentrated,
)

NOT_FINITE = [math.nan, math.inf, -math.inf]
NOT_A_NUMBER = ["1.0", None, True, 1j, [1.0]]

SCALARS = {
    "gaussian": (Gaussian, "noise_multiplier", [-1.0, -1e-300]),
    "laplace": (Laplace, "noise_multiplier", [-1.0]),
    "response": (lambda p: RandomizedResponse(p, 2), "noise_parameter", [-0.1, 1.1]),
    "sampling": (lambda q: PoissonSampled(Gaussian(1.0), q), "sampling_probability", [-1e-9, 1 + 1e-9]),
    "mixture": (lambda s: MixtureOfGaussians(s, (1.0,), (1.0,)), "noise_multiplier", [0.0, -1.0]),
    "mixture-sensitivity": (lambda c: MixtureOfGaussians(1.0, (c,), (1.0,)), "sensitivities", [-1.0]),
    "mixture-probability": (lambda p: MixtureOfGaussians(1.0, (1.0, 2.0), (p, 1.0)), "probabilities", [-0.5, 1.5]),
    "quantization-keep": (lambda q: RandomizedQuantization(8, q, 1.0, 1.0), "keep_probability", [-0.1, 1.0, 1.1]),
    "quantization-margin": (lambda x: RandomizedQuantization(8, 0.5, x, 1.0), "margin", [0.0, -1.0]),
    "quantization-clip": (lambda x: RandomizedQuantization(8, 0.5, 1.0, x), "clip", [0.0, -1.0]),
    "coins-theta": (lambda x: PoissonBinomial(8, x, 1.0), "theta", [0.0, -0.1, 0.5, 0.6]),
    "coins-clip": (lambda x: PoissonBinomial(8, 0.2, x), "clip", [0.0, -1.0]),
    "zero-concentrated": (ZeroConcentrated, "rho", [-1.0]),
    "discrete-gaussian": (DiscreteGaussian, "sigma", [0.0, -1.0]),
    "discrete-gaussian-sensitivity": (lambda c: DiscreteGaussian(1.0, c), "l2_sensitivity", [0.0, -1.0, 1.5]),
    "skellam": (Skellam, "variance", [0.0, -1.0, 1e-10]),
    "skellam-sensitivity": (lambda c: Skellam(1.0, c), "l2_sensitivity", [0.0, 0.5]),
    "shares": (lambda s: DistributedDiscreteGaussian(s, 2), "local_sigma", [0.0, -1.0]),
    "shares-sensitivity": (lambda c: DistributedDiscreteGaussian(2.0, 2, c), "l2_sensitivity", [0.0]),
    "sparsified": (lambda s: SparsifiedGaussian(s, 0.5, 2), "noise_multiplier", [0.0, -1.0]),
    "sparsified-keep": (lambda q: SparsifiedGaussian(1.0, q, 2), "keep_probability", [0.0, 1.1]),
    "sparsified-clip": (lambda c: SparsifiedGaussian(1.0, 0.5, 2, c), "linf_clip", [0.0, 1.1]),
}
INTEGERS = {
    "repeat": (lambda n: mechanisms.repeat(Gaussian(1.0), n), "count", [-1]),
    "group": (lambda n: mechanisms.group(Gaussian(1.0), n), "size", [0, -1]),
    "levels": (lambda n: RandomizedQuantization(n, 0.5, 1.0, 1.0), "levels", [1, 0, -2]),
    "quantization-clients": (lambda n: RandomizedQuantization(8, 0.5, 1.0, 1.0, n), "clients", [0, -2]),
    "trials": (lambda n: PoissonBinomial(n, 0.2, 1.0), "trials", [0, -2]),
    "coins-clients": (lambda n: PoissonBinomial(8, 0.2, 1.0, n), "clients", [0, -2]),
    "batch": (lambda n: FixedSizeSampled(Gaussian(1.0), n, 10), "batch_size", [0, 11, -1]),
    "population": (lambda n: FixedSizeSampled(Gaussian(1.0), 1, n), "population", [0, -1]),
    "buckets": (lambda n: RandomizedResponse(0.5, n), "num_buckets", [1, 0, -2]),
    "dimension": (lambda n: DiscreteGaussian(1.0, 1.0, n), "dimension", [0, -1]),
    "shares": (lambda n: DistributedDiscreteGaussian(1.0, n), "num_shares", [0, -1]),
    "clients": (lambda n: SparsifiedGaussian(1.0, 0.5, 2).mean_squared_error(n), "num_clients", [0, -1]),
}


@pytest.mark.parametrize(
    ("make", "name", "bad"),
    [
        pytest.param(make, name, bad, id=f"{case}-{bad}")
        for case, (make, name, out_of_range) in SCALARS.items()
        for bad in [*NOT_FINITE, *NOT_A_NUMBER, *out_of_range]
    ],
)
def test_bad_number(make, name, bad):
    with pytest.raises(ValueError, match=name) as error:
        make(bad)
    assert str(bad) in str(error.value)


@pytest.mark.parametrize(
    ("make", "name", "bad"),
    [
        pytest.param(make, name, bad, id=f"{case}-{bad}")
        for case, (make, name, out_of_range) in INTEGERS.items()
        for bad in [2.5, 2.0, "2", None, True, math.nan, *out_of_range]
    ],
)
def test_bad_integer(make, name, bad):
    with pytest.raises(ValueError, match=name) as error:
        make(bad)
    assert str(bad) in str(error.value)


@pytest.mark.parametrize(
    ("sensitivities", "probabilities", "message"),
    [
        ((1.0, 2.0), (1.0,), "2 and 1"),
        ((), (), "non-empty"),
        ((1.0, 2.0), (0.5, 0.4), "sum to 1, got 0.9"),
        ((1.0, 2.0), (0.5, 0.5001), "sum to 1"),
        ("ab", (0.5, 0.5), "sensitivities must be a number, got 'a'"),
    ],
)
def test_bad_mixture(sensitivities, probabilities, message):
    with pytest.raises(ValueError, match=message):
        MixtureOfGaussians(1.0, sensitivities, probabilities)


@pytest.mark.parametrize("bad", ["gaussian", None, Gaussian, 1.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda m: PoissonSampled(m, 0.5),
        lambda m: mechanisms.repeat(m, 2),
        lambda m: mechanisms.group(m, 2),
        lambda m: mechanisms.compose(Gaussian(1.0), m),
    ],
    ids=["sampled", "repeat", "group", "compose"],
)
def test_not_a_mechanism(make, bad):
    with pytest.raises(ValueError, match="mechanism must be a dpkit Mechanism") as error:
        make(bad)
    assert repr(bad) in str(error.value)


def test_compositions_cannot_be_sampled_whole():
    with pytest.raises(ValueError, match="sample each part"):
        PoissonSampled(mechanisms.repeat(Gaussian(1.0), 2), 0.5)


@pytest.mark.parametrize("view", ["dominating_pairs", "zcdp"])
def test_unknown_relation(view):
    with pytest.raises(ValueError, match="relation must be one of add_or_remove_one, replace_one, replace_special"):
        getattr(Gaussian(1.0), view)("add_remove")


@pytest.mark.parametrize("value", [np.float32(2.0), np.float64(2.0), np.int64(2), 2, Fraction(2), np.array(2.0)])
def test_any_kind_of_number_is_the_same_mechanism(value):
    assert Gaussian(value) == Gaussian(2.0)
    assert type(Gaussian(value).noise_multiplier) is float


@pytest.mark.parametrize("count", [3, np.int32(3), np.uint8(3)])
def test_any_kind_of_integer_is_the_same_count(count):
    assert mechanisms.repeat(Gaussian(1.0), count) == mechanisms.repeat(Gaussian(1.0), 3)


def test_relations_may_be_given_by_name():
    assert Gaussian(1.0).zcdp("replace_one") == Gaussian(1.0).zcdp(NeighboringRelation.REPLACE_ONE) == 2.0  # type: ignore

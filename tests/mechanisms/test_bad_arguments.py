"""Every bad argument raises `ValueError` naming the argument and the value."""

import math
from fractions import Fraction

import numpy as np
import pytest

from dpkit import NeighboringRelation, mechanisms
from dpkit.mechanisms import Gaussian, Laplace, MixtureOfGaussians, PoissonSampled, RandomizedResponse, ZeroConcentrated

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
    "zero-concentrated": (ZeroConcentrated, "rho", [-1.0]),
}
INTEGERS = {
    "repeat": (lambda n: mechanisms.repeat(Gaussian(1.0), n), "count", [-1]),
    "group": (lambda n: mechanisms.group(Gaussian(1.0), n), "size", [0, -1]),
    "buckets": (lambda n: RandomizedResponse(0.5, n), "num_buckets", [1, 0, -2]),
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

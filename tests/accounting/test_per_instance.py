"""Epsilons of one record."""

import math

import pytest

from dpkit.accounting import PerInstanceEpsilon, RdpAccountant, per_instance_epsilon
from dpkit.mechanisms import Gaussian, PerInstanceRenyi, RectifiedGaussian

ORDERS = tuple(1 + 10 ** (k / 20) for k in range(-20, 41))


def test_a_wide_box_gives_the_gaussians_epsilon():
    bound = RectifiedGaussian(1.0, -50.0, 50.0).per_instance_rdp(0.0, 1.0, ORDERS)
    found = per_instance_epsilon(bound, delta=1e-5)
    exact = RdpAccountant().epsilon(Gaussian(1.0), delta=1e-5).upper
    assert exact <= found.epsilon * (1 + 1e-9) <= exact * 1.001
    assert found.order in ORDERS
    assert found.kind == "per-instance: not a DP guarantee for the mechanism"


def test_corners():
    bound = PerInstanceRenyi((2.0, math.inf), (0.5, 3.0))
    assert per_instance_epsilon(bound, delta=0.0) == PerInstanceEpsilon(3.0, 0.0, math.inf)
    assert per_instance_epsilon(bound, delta=1.0).epsilon == 0
    assert per_instance_epsilon(PerInstanceRenyi((2.0,), (0.5,)), delta=0.0).epsilon == math.inf
    assert per_instance_epsilon(PerInstanceRenyi((2.0,), (math.inf,)), delta=0.1).epsilon == math.inf


@pytest.mark.parametrize("delta", [-0.1, 1.1, math.nan])
def test_bad_delta(delta):
    with pytest.raises(ValueError, match="delta"):
        per_instance_epsilon(PerInstanceRenyi((2.0,), (0.5,)), delta=delta)


def test_only_per_instance_divergences():
    with pytest.raises(ValueError, match="divergences must be a PerInstanceRenyi"):
        per_instance_epsilon([0.5], delta=0.1)  # type: ignore[arg-type]

"""Where a dominating pair is more than the mechanism, nothing is claimed from below."""

import pytest

from dpkit import accounting, mechanisms

REPORT = mechanisms.RandomizedQuantization(levels=16, keep_probability=0.42, margin=1.0, clip=1.0)
SAMPLED = mechanisms.FixedSizeSampled(mechanisms.Gaussian(1.0), batch_size=10, population=1_000)
BOX = {"lower": -1.0, "upper": 1.0}
RECTIFIED = mechanisms.RectifiedGaussian(2.0, **BOX)
TRUNCATED = mechanisms.TruncatedGaussian(2.0, **BOX)
GAUSSIAN = mechanisms.Gaussian(2.0)


@pytest.mark.parametrize(
    "run",
    [
        REPORT,
        mechanisms.repeat(REPORT, 10),
        mechanisms.compose(REPORT, GAUSSIAN),
        SAMPLED,
        mechanisms.repeat(SAMPLED, 100),
        RECTIFIED,
        mechanisms.compose(RECTIFIED, GAUSSIAN),
        mechanisms.repeat(mechanisms.PoissonSampled(RECTIFIED, 0.1), 20),
        mechanisms.repeat(TRUNCATED, 5),
    ],
    ids=str,
)
def test_the_lower_bound_is_zero(run):
    accountant = accounting.PldAccountant(relation="replace_one")
    bounds, renyi = (a.epsilon(run, delta=1e-5) for a in (accountant, accounting.RdpAccountant(relation="replace_one")))
    assert bounds.lower == 0
    assert 0 < bounds.upper <= renyi.upper
    assert (bounds.note is None) == (bounds.upper < renyi.upper)
    assert accountant.delta(run, epsilon=bounds.upper / 2).lower == 0


def test_a_pair_that_is_attained_keeps_its_lower_bound():
    accountant = accounting.PldAccountant(relation="replace_one")
    assert accountant.epsilon(mechanisms.repeat(GAUSSIAN, 3), delta=1e-5).lower > 0

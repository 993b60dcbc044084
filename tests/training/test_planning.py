"""Which mechanism gives a run the least error: every candidate against a hand-made one."""

import math

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import pld_privacy_accountant
from scipy import optimize, special

from dpkit import factorization as fz
from dpkit import training
from dpkit.training import planning
from training.configs import changed

TARGET = 2.0
FTRL = {
    "training__sampling": "min_sep",
    "training__min_sep": 8,
    "training__epochs": None,
    "training__batch_size": None,
    "training__iterations": 64,
    "training__max_participations": 4,
    "privacy__relation": "replace_special",
    "optimizer__momentum": 0.5,
}


def config(**changes):
    return training.TrainingConfig.parse(changed(**{**FTRL, **changes}))


def gaussian_noise(epsilon, delta):
    """The least noise multiplier of one Gaussian release, by its closed form (Balle and Wang 2018)."""

    def excess(noise):
        low, high = 1 / (2 * noise) - epsilon * noise, -1 / (2 * noise) - epsilon * noise
        return special.ndtr(low) - math.exp(epsilon) * special.ndtr(high) - delta

    return optimize.brentq(excess, 0.1, 100, xtol=1e-12)


@pytest.fixture(scope="module")
def candidates():
    run = config()
    return {c.name: c for c in (planning.evaluate(run, table, TARGET) for table in planning.strategies(run))}


def test_every_family_is_tried(candidates):
    bands = [f" {count}" for count in planning.BANDS if count <= 64]
    few = [f" {count}" for count in planning.BANDS if count <= 8]
    assert set(candidates) == {
        "independent", "tree",
        *(f"blt {count}" for count in planning.BUFFERS),
        *(f"{kind}{count}" for kind in ("banded", "banded_toeplitz") for count in few),
        *(f"banded{kind}_square_root{count}" for kind in ("", "_inverse") for count in bands),
    }  # fmt: skip


def test_every_candidate_has_the_least_noise_and_its_errors(candidates):
    work, schema, delta = fz.momentum_sgd(0.5), fz.MinSep(64, 8, 4), 1e-5
    least = gaussian_noise(TARGET, delta)
    for name, found in candidates.items():
        # Fresh noise in every step hides four steps as one release of half the noise.
        noise = 2 * least if name == "independent" else least
        assert noise <= found.plan.noise_multiplier <= noise * 1.002 + 1e-3
        strategy = found.plan.strategy
        sensitivity = 1.0 if name == "independent" else strategy.sensitivity(schema)
        scale = sensitivity * found.plan.noise_multiplier
        errors = scale * strategy.per_query_error(work, 64)
        assert found.rmse == pytest.approx(math.sqrt(np.mean(errors**2)), rel=1e-3)
        assert found.max_error == pytest.approx(np.max(errors), rel=1e-2)
        assert found.epsilon.upper <= TARGET
        assert found.operations >= found.copies == strategy.form(64).copies


def test_the_written_config_accounts_to_the_same_number(candidates, tmp_path):
    for name in ("independent", "blt 2", "banded 4"):
        path = tmp_path / "best.toml"
        path.write_text(candidates[name].plan.config.toml(), encoding="utf-8")
        again = training.load_config(path)
        assert again == candidates[name].plan.config
        assert training.plan(again).epsilon() == candidates[name].epsilon


def test_poisson_sampling_has_dp_sgd_and_another_accountant_agrees():
    run = training.TrainingConfig.parse(changed(training__epochs=1))
    assert list(planning.strategies(run)) == [{}]
    found = planning.evaluate(run, {}, TARGET)
    step = dp_event.PoissonSampledDpEvent(256 / 60_000, dp_event.GaussianDpEvent(found.plan.noise_multiplier))
    other = pld_privacy_accountant.PLDAccountant().compose(step, 235).get_epsilon(1e-5)
    assert other == pytest.approx(TARGET, rel=2e-3)
    prefix_sums = math.sqrt(sum(range(1, 236)) / 235)
    assert found.rmse == pytest.approx(found.plan.noise_multiplier * prefix_sums, rel=1e-9)


def test_the_configs_own_strategy_comes_first_and_memory_limits_the_rest():
    run = config(strategy__kind="banded", strategy__num_bands=3)
    tables = list(planning.strategies(run, memory=3))
    assert tables[0] == {"kind": "banded", "num_bands": 3}
    assert {table.get("num_bands", 0) for table in tables} <= {0, 3, 4}
    assert {table.get("num_buffers", 0) for table in tables} == {0, 1, 2, 3}


def test_the_least_error_is_first(candidates):
    order = planning.ranked(list(candidates.values()))
    assert [c.rmse for c in order] == sorted(c.rmse for c in candidates.values())


def test_only_gaussian_noise_is_planned_for():
    with pytest.raises(training.ConfigError, match='"laplace": cannot be planned for'):
        list(planning.strategies(config(mechanism__kind="laplace")))

"""Cyclic Poisson and balls-in-bins sampling in configs: noise scale, refusals, and that nothing is solved twice."""

import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit import training
from dpkit.training import correlation
from training.configs import changed

CYCLIC = {
    "training__sampling": "cyclic_poisson",
    "training__num_groups": 8,
    "training__epochs": None,
    "training__iterations": 50,
    "strategy__kind": "banded_toeplitz",
    "strategy__num_bands": 4,
}
BINS = {
    "training__sampling": "balls_in_bins",
    "training__num_bins": 10,
    "training__epochs": None,
    "training__batch_size": None,
    "training__iterations": 50,
    "strategy__kind": "banded_square_root",
    "strategy__num_bands": 4,
    "privacy__accountant": "monte_carlo",
    "privacy__samples": 2_000,
    "privacy__failure_probability": 1e-6,
}


def config(settings, **changes):
    return training.TrainingConfig.parse(changed(**{**settings, **changes}))


@pytest.mark.parametrize("settings", [CYCLIC, BINS], ids=["cyclic", "bins"])
def test_the_noise_is_over_the_largest_norm_of_a_column(settings):
    plan = training.plan(config(settings, mechanism__l2_clip_norm=0.5))
    C = plan.strategy.matrix(50)
    assert plan.stddev == pytest.approx(1.1 * 0.5 * np.max(np.linalg.norm(C, axis=0)), rel=1e-9)


def test_a_cyclic_run_is_sampled_gaussians_whatever_the_bands():
    for changes in ({}, {"strategy__num_bands": 8}, {"strategy__kind": None, "strategy__num_bands": None}):
        plan = training.plan(config(CYCLIC, **changes))
        ((step, count),) = plan.mechanism.parts()
        assert (step.mechanism.noise_multiplier, count) == (1.1, 7)
        assert step.sampling_probability == plan.sampling_probability == 256 * 8 / 60_000
        assert plan.participations is None


def test_a_strategy_from_a_file_is_looked_at(tmp_path):
    for bands, words in ((4, None), (9, "num_groups must be >= num_bands=9")):
        path = tmp_path / f"{bands}.npz"
        fz.save(path, fz.BandedSquareRoot(bands), fz.SingleParticipation(50))
        kept = config(CYCLIC, strategy__kind=None, strategy__num_bands=None, strategy__file=str(path))
        if words is None:
            assert next(training.plan(kept).mechanism.parts())[1] == 7
        else:
            with pytest.raises(ValueError, match=words):
                training.plan(kept)


def test_bins_say_how_sure_they_are():
    plan = training.plan(config(BINS))
    assert plan.participations == 5
    assert set(plan.epsilons()) == {"monte_carlo"}
    bounds = plan.epsilon()
    assert 0 < bounds.lower < bounds.upper
    assert "probability at most 1e-06" in bounds.note
    assert any("2,000 random draws" in sentence for sentence in plan.assumptions)


def test_calibration_solves_a_strategy_once(monkeypatch):
    solve, solved = correlation.solve, []
    monkeypatch.setattr(correlation, "solve", lambda *arguments: solved.append(arguments) or solve(*arguments))
    correlation._solved_before.cache_clear()
    plan = training.plan(config(BINS, strategy__kind="banded_toeplitz")).calibrate(8.0)
    assert len(solved) == 1
    assert plan.epsilon().upper <= 8


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        (CYCLIC, {"training__num_groups": None}, "training.num_groups: missing"),
        (CYCLIC, {"strategy__num_bands": 9}, "strategy.num_bands = 9: more than num_groups = 8"),
        (CYCLIC, {"strategy__kind": "blt", "strategy__num_bands": None, "strategy__num_buffers": 2}, "is not banded"),
        (CYCLIC, {"training__num_groups": 300}, "training.num_groups = 300: more than 60000 / batch_size = 234 groups"),
        (CYCLIC, {"training__num_bins": 3}, 'training.num_bins = 3: does not go with sampling = "cyclic_poisson"'),
        (CYCLIC, {"privacy__accountant": "monte_carlo"}, 'not needed for sampling = "cyclic_poisson"'),
        (BINS, {"privacy__accountant": "rdp"}, 'write accountant = "monte_carlo"'),
        (BINS, {"privacy__accountant": None}, 'write accountant = "monte_carlo"'),
        (BINS, {"training__num_bins": 51}, "training.num_bins = 51: more than iterations = 50"),
        (BINS, {"privacy__relation": "replace_one"}, "nothing is proved for balls in bins"),
        (BINS, {"mechanism__noise_multiplier": 0}, "no noise, and nothing to draw"),
        (BINS, {"privacy__seed": -1}, "privacy.seed = -1: must be >= 0"),
    ],
)
def test_what_is_not_proved_is_refused(settings, changes, words):
    with pytest.raises(training.ConfigError) as error:
        config(settings, **changes)
    assert words in str(error.value)

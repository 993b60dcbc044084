"""Correlated noise in a config: what it means for the accounting and for the noise."""

import math

import pytest

from dpkit import factorization as fz
from dpkit import training
from dpkit.training import correlation, fields
from dpkit.training.sections import OptimizerSection, StrategySection
from training.configs import changed
from training.truth import gaussian_epsilon

NUMBERS = {"num_bands": 4, "num_buffers": 2}


def config(**changes):
    """A run of 64 steps with steps of one unit 16 apart; noise multiplier 2, clip norm 0.5."""
    base = {
        "training__epochs": None,
        "training__iterations": 64,
        "training__sampling": "min_sep",
        "training__min_sep": 16,
        "mechanism__noise_multiplier": 2.0,
        "mechanism__l2_clip_norm": 0.5,
        "privacy__relation": "replace_special",
        "strategy__kind": "banded",
        "strategy__num_bands": 4,
    }
    return training.TrainingConfig.parse(changed(**{**base, **changes}))


@pytest.mark.parametrize("kind", fields.STRATEGIES)
def test_every_kind_is_one_gaussian_release_with_noise_to_its_sensitivity(kind):
    keys = {"banded": "num_bands", "blt": "num_buffers"}
    key = "num_bands" if kind.startswith("banded") else keys.get(kind)
    changes = {"strategy__num_bands": None} | ({f"strategy__{key}": NUMBERS[key]} if key else {})
    # The dense optimum is found for one participation and for fixed epochs.
    steps = {"training__min_sep": 64} if kind == "dense" else {}
    plan = training.plan(config(strategy__kind=kind, **changes, **steps))
    bounds = plan.epsilon()
    assert bounds.lower <= gaussian_epsilon(1 / 2.0, 1e-5) <= bounds.upper
    schema = fz.MinSep(64, 64 if kind == "dense" else 16)
    assert plan.stddev == pytest.approx(2.0 * 0.5 * plan.strategy.sensitivity(schema), rel=1e-12)
    assert plan.strategy.matrix(64).shape[1] == 64
    assert plan.epsilon_if_poisson() is None


def test_without_a_strategy_noise_is_independent():
    plan = training.plan(config(strategy__kind=None, strategy__num_bands=None))
    assert plan.strategy == fz.Identity()
    assert plan.stddev == 1.0
    bounds = plan.epsilon()  # four participations of noise multiplier 2
    assert bounds.lower <= gaussian_epsilon(2 / 2.0, 1e-5) <= bounds.upper


def test_identity_says_the_same_in_units_of_its_sensitivity():
    plain = training.plan(config(strategy__kind=None, strategy__num_bands=None))
    told = training.plan(
        config(strategy__kind="identity", strategy__num_bands=None, mechanism__noise_multiplier=2.0 / math.sqrt(4))
    )
    assert told.stddev == pytest.approx(plain.stddev, rel=1e-11)  # sensitivities are rounded up
    assert told.epsilon().upper == pytest.approx(plain.epsilon().upper, rel=1e-3)


def test_replacing_a_unit_costs_twice():
    plan = training.plan(config(privacy__relation="replace_one"))
    assert plan.epsilon().upper >= gaussian_epsilon(2 / 2.0, 1e-5)


@pytest.mark.parametrize(
    ("sampling", "schema"),
    [
        ({"training__sampling": "min_sep"}, fz.MinSep(64, 16, 4)),
        ({"training__sampling": "min_sep", "training__max_participations": 3}, fz.MinSep(64, 16, 3)),
        ({"training__sampling": "full_batch", "training__min_sep": None}, fz.MinSep(64, 1, 64)),
        (
            {"training__sampling": "shuffle", "training__min_sep": None, "training__batch_size": 6_000},
            fz.MinSep(64, 1, 7),
        ),
    ],
)
def test_schemas(sampling, schema):
    assert correlation.schema(config(**sampling, strategy__kind="tree", strategy__num_bands=None)) == schema


def test_workloads():
    made = correlation.workload(OptimizerSection(momentum=0.5, weight_decay=0.1, learning_rate=2.0, cooldown=0.5), 8)
    assert made == fz.momentum_sgd(0.5, 2.0 * fz.cooldown_schedule(8, 0.5), 0.1)
    assert correlation.workload(OptimizerSection(), 8) == fz.momentum_sgd(0.0, 1.0)


def test_the_root_of_a_workload_has_its_poles():
    optimizer = OptimizerSection(momentum=0.5, weight_decay=0.1, learning_rate=2.0)
    solution = correlation.solve(StrategySection(kind="square_root"), optimizer, fz.SingleParticipation(16))
    assert solution.strategy == fz.SquareRoot(momentum=0.5, weight_decay=0.2)


@pytest.mark.parametrize("kind", ["identity", "banded_toeplitz", "blt", "square_root", "banded_inverse_square_root"])
def test_window_scales_lower_the_error(kind):
    schema = fz.MinSep(64, 16)
    numbers = {} if kind in ("identity", "square_root") else {"num_buffers": 2} if kind == "blt" else {"num_bands": 4}
    plain, scaled = (
        correlation.solve(StrategySection(kind=kind, window_scales=on, **numbers), OptimizerSection(), schema)
        for on in (False, True)
    )
    assert isinstance(scaled.strategy, fz.WindowScaled)
    assert scaled.rmse < plain.rmse


def test_a_file_is_read_relative_to_the_config_and_accounted_for_this_run(tmp_path):
    strategy = fz.BufferedLinearToeplitz(theta=[0.9], omega=[0.2])
    fz.save(tmp_path / "best.npz", strategy, fz.SingleParticipation(64))
    text = """
        [data]
        unit = "user"
        users = 1000
        [training]
        sampling = "min_sep"
        iterations = 64
        min_sep = 16
        [mechanism]
        kind = "gaussian"
        noise_multiplier = 1.5
        l2_clip_norm = 1.0
        [strategy]
        file = "best.npz"
        [privacy]
        delta = 1e-5
        relation = "replace_special"
    """
    (tmp_path / "train.toml").write_text(text)
    plan = training.plan(training.load_config(tmp_path / "train.toml"))
    assert plan.strategy == strategy
    # Not the sensitivity of the schema in the file.
    assert plan.stddev == pytest.approx(1.5 * strategy.sensitivity(fz.MinSep(64, 16)))
    (tmp_path / "best.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"best\.npz is not a complete strategy file"):
        _ = training.plan(training.load_config(tmp_path / "train.toml")).strategy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy__num_bands": None}, "strategy.num_bands: missing"),
        ({"strategy__num_buffers": 3}, "strategy.num_buffers = 3: does not go"),
        ({"strategy__kind": "tree"}, 'strategy.num_bands = 4: does not go with kind = "tree"'),
        ({"strategy__kind": None}, "strategy.kind: missing"),
        ({"strategy__kind": "band"}, "did you mean banded?"),
        ({"strategy__file": "best.npz"}, "does not go with a file"),
        ({"strategy__column_norms": "best"}, "must be one of optimal, equal"),
        ({"strategy__window_scales": True}, 'window_scales = true: does not go with kind = "banded"'),
        ({"strategy__window_scales": 1}, "must be true or false"),
        ({"strategy__objective": "mean"}, "must be one of rmse, max_error"),
        ({"training__sampling": "poisson", "training__min_sep": None}, "not accounted for under random sampling"),
        ({"mechanism__kind": "laplace"}, "only Gaussian noise can be correlated"),
        ({"optimizer__momentum": 1.0}, "optimizer.momentum = 1.0: must be < 1"),
        ({"optimizer__cooldown": 1.5}, "optimizer.cooldown = 1.5: must lie between 0 and 1"),
        ({"optimizer__learning_rate": 0.0}, "optimizer.learning_rate = 0.0: must be > 0"),
    ],
)
def test_contradictions_are_named(changes, words):
    with pytest.raises(training.ConfigError) as error:
        config(**changes)
    assert words in str(error.value)


def test_what_a_correlated_run_rests_on_is_said():
    plan = training.plan(config())
    text = " ".join(plan.assumptions)
    assert "strategy banded (num_bands = 4)" in text
    assert "2.0 times the clip norm 0.5 times the sensitivity" in text
    assert "repeats its noise" in text
    statement = training.PrivacyReport.of(plan).text()
    assert "Noise correlated by: banded (num_bands = 4)" in statement
    assert "before the noise is" in statement

"""Every kind of mechanism from its config to its numbers, against the same run built by hand."""

import functools
import json
import math
import pathlib

import numpy as np
import pytest

from dpkit import accounting, mechanisms, training
from dpkit import factorization as fz
from dpkit.mechanisms import FixedSizeSampled, PoissonSampled, repeat
from dpkit.training.kinds import KINDS
from test_cli import run
from training.configs import changed

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "mechanisms"


def _gram_of_bins() -> np.ndarray:
    """Inner products of the sums of every twentieth column, over the largest norm of a column."""
    C = fz.BandedSquareRoot(8).matrix(200)
    modes = np.stack([C[:, start::20].sum(axis=1) for start in range(20)], axis=1)
    return modes.T @ modes / np.max(np.sum(C**2, axis=0))


# What each example describes, in so many words: the mechanism and how often it is used, not what a config makes of it.
BY_HAND = {
    "rectified_gaussian": repeat(PoissonSampled(mechanisms.RectifiedGaussian(1.1, -20, 20), 256 / 60_000), 14_063),
    "truncated_gaussian": repeat(mechanisms.TruncatedGaussian(30.0, 0, 40, 1, (0, 40)), 10),
    "sparsified_gaussian": repeat(PoissonSampled(mechanisms.SparsifiedGaussian(1.0, 0.1, 10_000, 0.05), 0.1), 100),
    "discrete_gaussian": repeat(mechanisms.DiscreteGaussian(12.0), 12),
    "distributed_discrete_gaussian": repeat(
        FixedSizeSampled(mechanisms.DistributedDiscreteGaussian(40.0, 90, 143.78, 65_536), 100, 3_400), 100
    ),
    "skellam": repeat(FixedSizeSampled(mechanisms.Skellam(144_000.0, 143.78, 65_536), 100, 3_400), 100),
    "randomized_quantization": mechanisms.RandomizedQuantization(16, 0.42, 1.0, 1.0, clients=40),
    "poisson_binomial": mechanisms.PoissonBinomial(16, 0.25, 1.0, clients=40),
    "randomized_response": mechanisms.RandomizedResponse(0.5, 2),
    "fixed_size_sampling": repeat(FixedSizeSampled(mechanisms.Gaussian(2.0), 256, 60_000), 3_516),
    "cyclic_poisson_sampling": repeat(PoissonSampled(mechanisms.Gaussian(3.0), 0.32), 63),
    "balls_in_bins_sampling": mechanisms.BallsInBins(_gram_of_bins(), 2.0),
}
# A config of each kind in which calibration has something to find.
MEAGRE = {
    "randomized_quantization": {"levels": 4, "keep_probability": 0.3, "margin": 1.0, "clip": 1.0},
    "poisson_binomial": {"trials": 2, "theta": 0.25, "clip": 1.0, "dimension": 2},
    "distributed_discrete_gaussian": {"local_sigma": 4.0, "num_shares": 4, "l2_sensitivity": 1.5, "dimension": 2},
}


def numbers(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_kind_has_an_example():
    others = {"gaussian", "laplace", "zcdp"}
    assert {path.stem for path in EXAMPLES.glob("*.toml")} == set(BY_HAND)
    assert {name for name in BY_HAND if not name.endswith("_sampling")} == set(KINDS) - others


@pytest.mark.parametrize("name", BY_HAND)
def test_an_example_accounts_for_what_it_says(name):
    path = EXAMPLES / f"{name}.toml"
    config = training.load_config(path)
    accountants = {
        "pld": accounting.PldAccountant,
        "rdp": accounting.RdpAccountant,
        "monte_carlo": functools.partial(
            accounting.MonteCarloAccountant, samples=50_000, failure_probability=1e-9, seed=1
        ),
    }
    accountant = accountants[config.privacy.accountant](relation=config.privacy.relation)
    by_hand = accountant.epsilon(BY_HAND[name], delta=config.privacy.delta)
    assert numbers("epsilon", path)["epsilon"]["upper"] == pytest.approx(by_hand.upper, rel=1e-10)
    assert 0 < by_hand.upper < 10


@pytest.mark.parametrize("name", BY_HAND)
def test_an_example_is_reported(name):
    path = EXAMPLES / f"{name}.toml"
    config = training.load_config(path)
    text = run("report", path, "--format", "markdown").stdout.replace("\\", "")
    assert f"**Mechanism**: {config.mechanism.kind}" in text
    for key, value in config.mechanism.numbers.items():
        assert f"**{key.replace('_', ' ').capitalize()}**: {value}" in text
    assert "None" not in text


def test_what_messages_cost_is_reported():
    def parameters(name):
        statement = json.loads(run("report", EXAMPLES / f"{name}.toml", "--format", "json").stdout)
        return {key: field["value"] for key, field in statement["sections"]["Parameters"].items()}

    # 40 reports of at most 15 add up to 600, and 40 times 16 coins to 640: ten bits.
    assert parameters("randomized_quantization")["bits_per_message"] == "10"
    assert parameters("poisson_binomial")["bits_per_message"] == "10"
    sparsified = parameters("sparsified_gaussian")
    entropy = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert sparsified["bits_per_message"].startswith(f"{10_000 * (3.2 + entropy):,.0f} ")
    error = 9 / 1_000 + 10_000 * (1 / 100) ** 2
    assert sparsified["squared_error_of_the_mean"].startswith(f"at most {error:.4g} times")


@pytest.mark.parametrize("name", ["fixed_size_sampling", "skellam", "truncated_gaussian", *MEAGRE])
def test_calibration_finds_the_least_noise_of_any_kind(name):
    config = training.load_config(EXAMPLES / f"{name}.toml")
    if name in MEAGRE:
        table = {"kind": name, **MEAGRE[name]}
        config = training.TrainingConfig.parse({**config.tables(), "mechanism": table})
    plan = training.plan(config).calibrate(0.5)
    assert plan.epsilon().upper <= 0.5
    key = KINDS[config.mechanism.kind].noise
    found = getattr(plan.config.mechanism, key)
    # Less noise is a smaller number, except for the bias of coins.
    less = found * (1.02 if key == "theta" else 0.98)
    mechanism = {**plan.config.tables()["mechanism"], key: less}
    again = training.TrainingConfig.parse({**plan.config.tables(), "mechanism": mechanism})
    assert training.plan(again).epsilon().upper > 0.5


def test_calibrate_names_the_key():
    path = EXAMPLES / "discrete_gaussian.toml"
    found = numbers("calibrate", path, "--epsilon", "1")
    assert found["noise_multiplier"] is None
    assert found["mechanism"]["sigma"] > 12
    assert found["epsilon"]["upper"] <= 1


def test_a_vector_costs_its_coordinates():
    table = {"kind": "randomized_quantization", "levels": 4, "keep_probability": 0.3, "margin": 1.0, "clip": 1.0}
    tables = changed(
        mechanism__noise_multiplier=None, mechanism__l2_clip_norm=None, privacy__relation="replace_one",
        training__sampling="full_batch", training__batch_size=None, training__epochs=None, training__iterations=2,
    )  # fmt: skip
    tables["mechanism"] = table | {"dimension": 3}
    by_hand = repeat(mechanisms.RandomizedQuantization(4, 0.3, 1.0, 1.0), 6)
    truth = accounting.PldAccountant(relation="replace_one").epsilon(by_hand, delta=1e-5)
    assert training.plan(training.TrainingConfig.parse(tables)).epsilon().upper == pytest.approx(truth.upper, rel=1e-9)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "skellam"}, "mechanism.variance: missing, and kind = \"skellam\" needs it; write variance = 2500.0"),
        ({"kind": "skellam", "variance": 4.0, "sigma": 1.0}, "mechanism.sigma = 1.0: does not go with"),
        ({"kind": "skellam", "variance": 4.0, "l2_sensitivity": 1.5}, "l2_sensitivity must be an integer in one"),
        ({"kind": "poisson_binomial", "trials": 2, "theta": 0.5, "clip": 1.0}, "theta must be below 1/2, got 0.5"),
        ({"kind": "poisson_binomal"}, "did you mean poisson_binomial?"),
        ({"kind": "truncated_gaussian", "noise_multiplier": 1.0, "lower": 2.0, "upper": 1.0}, "lower must be below"),
        (
            {"kind": "truncated_gaussian", "noise_multiplier": 1.0, "lower": 0, "upper": 1, "value_range": 3},
            "mechanism.value_range = 3: must be a list of two numbers",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named(table, message):
    with pytest.raises(training.ConfigError) as error:
        training.TrainingConfig.parse({**changed(), "mechanism": table})
    assert message in str(error.value)


def test_samples_of_a_fixed_size_need_replacement():
    tables = changed(training__sampling="fixed_size")
    with pytest.raises(training.ConfigError, match='write relation = "replace_one"'):
        training.TrainingConfig.parse(tables)
    tables["privacy"]["relation"] = "replace_one"
    plan = training.plan(training.TrainingConfig.parse(tables))
    assert plan.sampling_probability == 256 / 60_000
    assert "draws 256 of the 60,000 examples afresh, each set of so many" in plan.assumptions[0]


def test_coarse_shares_are_warned_of(recwarn):
    table = {"kind": "distributed_discrete_gaussian", "local_sigma": 0.3, "num_shares": 4, "dimension": 9}
    tables = changed(privacy__accountant="rdp")
    plan = training.plan(training.TrainingConfig.parse({**tables, "mechanism": table}))
    assert any("do not add up to a discrete Gaussian" in warning for warning in plan.warnings)
    assert not recwarn

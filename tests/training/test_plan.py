import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit import NeighboringRelation, mechanisms, training
from dpkit.training import ConfigError, TrainingConfig
from training.configs import changed
from training.truth import gaussian_epsilon


def planned(**changes):
    return training.plan(TrainingConfig.parse(changed(**changes)))


def unsampled(**changes):
    """A run without amplification: shuffle, full_batch or min_sep."""
    return planned(**{"training__sampling": "full_batch", "training__batch_size": None, **changes})


def test_poisson_derives_everything_together():
    plan = planned()
    assert plan.iterations == 14_063
    assert plan.iterations_rule == "ceil(60 epochs x 60,000 / 256)"
    assert plan.sampling_probability == 256 / 60_000
    assert plan.participations is None
    assert (plan.noise_multiplier, plan.delta, plan.unit) == (1.1, 1e-5, "example")
    assert plan.relation is NeighboringRelation.ADD_OR_REMOVE_ONE
    step = mechanisms.PoissonSampled(mechanisms.Gaussian(1.1), 256 / 60_000)
    assert list(plan.mechanism.parts()) == [(step, 14_063)]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"training__epochs": 0.1}, "ceil(0.1 epochs x 60,000 / 256)"),
        ({"training__epochs": 1}, "ceil(1 epoch x 60,000 / 256)"),
        ({"training__epochs": None, "training__iterations": 7}, "given"),
        ({"training__sampling": "full_batch", "training__batch_size": None}, "ceil(60 epochs), one step each"),
    ],
)
def test_the_rule_of_the_iterations_is_visible(changes, rule):
    assert planned(**changes).iterations_rule == rule


@pytest.mark.parametrize("relation", list(NeighboringRelation))
@pytest.mark.parametrize(("noise", "iterations"), [(4.0, 4), (1.5, 1), (30.0, 1_000)])
def test_full_batch_epsilon_is_the_closed_form(relation, noise, iterations):
    plan = unsampled(
        training__epochs=None, training__iterations=iterations, mechanism__noise_multiplier=noise,
        privacy__relation=relation,
    )  # fmt: skip
    sensitivity = 2 if relation == "replace_one" else 1
    truth = gaussian_epsilon(sensitivity * math.sqrt(iterations) / noise, 1e-5)
    bounds = plan.epsilons()
    assert bounds["pld"].lower <= truth <= bounds["pld"].upper <= truth * 1.01
    assert truth <= bounds["rdp"].upper
    assert truth <= bounds["zcdp"].upper
    assert plan.participations == iterations
    assert plan.sampling_probability is None


def test_epsilon_takes_another_accountant_and_delta():
    plan = unsampled(training__epochs=4, mechanism__noise_multiplier=4.0)
    bounds = plan.epsilon("zcdp", delta=1e-9)
    assert bounds.upper >= gaussian_epsilon(0.5, 1e-9)
    assert bounds.order is not None
    with pytest.raises(ValueError, match="accountant must be one of pld, rdp, zcdp"):
        plan.epsilon("prv")
    with pytest.raises(ValueError, match="delta"):
        plan.epsilon(delta=1.5)


@pytest.mark.parametrize(
    ("steps", "participations"),
    [
        ({"epochs": 3}, 3),
        ({"epochs": 2.5}, 3),
        ({"epochs": 0.25}, 1),
        ({"iterations": 234}, 1),
        ({"iterations": 235}, 2),
    ],
)
def test_shuffle_counts_passes_and_claims_no_amplification(steps, participations):
    # 60000 // 256 = 234: a pass that drops its last batch ends after 234 steps.
    steps = {"training__epochs": None} | {f"training__{key}": value for key, value in steps.items()}
    plan = planned(training__sampling="shuffle", mechanism__noise_multiplier=4.0, **steps)
    assert plan.participations == participations
    assert plan.sampling_probability is None
    assert list(plan.mechanism.parts()) == [(mechanisms.Gaussian(4.0), participations)]
    truth = gaussian_epsilon(math.sqrt(participations) / 4, 1e-5)
    assert plan.epsilon().lower <= truth <= plan.epsilon().upper
    assert any("no amplification by sampling is claimed" in warning for warning in plan.warnings)


def most_uses(population: int, batch: int, steps: int, drop_last: bool) -> int:
    """Uses of the unit that a fresh shuffle always puts first, in the given number of steps."""
    uses = step = 0
    while step < steps:
        uses += 1
        step += population // batch if drop_last else math.ceil(population / batch)
    return uses


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60))
def test_shuffle_covers_every_loader_that_counts_steps(population, batch, steps):
    batch = min(batch, population)
    plan = planned(
        data__examples=population, training__batch_size=batch, training__epochs=None, training__iterations=steps,
        training__sampling="shuffle",
    )  # fmt: skip
    assert plan.participations == most_uses(population, batch, steps, drop_last=True)
    assert plan.participations >= most_uses(population, batch, steps, drop_last=False)


def test_shuffle_warns_when_a_loop_over_steps_would_use_a_unit_more_often():
    assert any("61 times" in warning for warning in planned(training__sampling="shuffle").warnings)
    even = planned(training__sampling="shuffle", training__batch_size=250)
    assert not any("times" in warning for warning in even.warnings)


def test_what_poisson_would_have_given_is_apart_from_the_guarantee():
    shuffled, sampled = planned(training__sampling="shuffle"), planned()
    would = shuffled.epsilon_if_poisson()
    assert would == sampled.epsilon()
    assert shuffled.epsilon().lower > would.upper
    assert sampled.epsilon_if_poisson() is None
    assert unsampled().epsilon_if_poisson() is None
    laplace = {"mechanism__kind": "laplace", "mechanism__noise_multiplier": 20.0, "privacy__relation": "replace_one"}
    assert planned(training__sampling="shuffle", **laplace).epsilon_if_poisson() is None
    assert planned(training__sampling="min_sep", training__min_sep=234).epsilon_if_poisson() == would


@pytest.mark.parametrize("iterations", range(1, 8))
@pytest.mark.parametrize("min_sep", range(1, 5))
@pytest.mark.parametrize("limit", [None, 1, 2, 9])
def test_min_sep_counts_as_many_steps_as_any_pattern_has(iterations, min_sep, limit):
    plan = unsampled(
        training__sampling="min_sep",
        training__epochs=None,
        training__iterations=iterations,
        training__min_sep=min_sep,
        **({} if limit is None else {"training__max_participations": limit}),
    )
    patterns = (
        steps
        for count in range(iterations + 1)
        for steps in itertools.combinations(range(iterations), count)
        if all(b - a >= min_sep for a, b in itertools.pairwise(steps)) and (limit is None or count <= limit)
    )
    assert plan.participations == max(map(len, patterns))
    assert Counter(dict(plan.mechanism.parts())) == {mechanisms.Gaussian(1.1): plan.participations}


def test_units_other_than_examples_count_users():
    plan = planned(data__unit="provider", data__examples=None, data__users=400, training__batch_size=10)
    assert plan.sampling_probability == 10 / 400
    assert any("All data of a provider" in line for line in plan.assumptions)
    with pytest.raises(ConfigError, match=r"data\.users"):
        planned(data__unit="device")


def test_laplace_and_declared_rho():
    laplace = unsampled(mechanism__kind="laplace", training__epochs=3, mechanism__noise_multiplier=6.0)
    assert laplace.epsilon().upper <= 0.5 * (1 + 1e-9)  # pure epsilon 3/6
    assert any("single number" in line for line in laplace.assumptions)
    rho = unsampled(
        mechanism__kind="zcdp", mechanism__noise_multiplier=None, mechanism__rho=0.27, training__epochs=3,
        privacy__accountant="zcdp", privacy__delta=1e-10,
    )  # fmt: skip
    # The published anchor: rho = 0.81 at delta = 1e-10 gives 8.9222 (8.9 for the Gboard Spanish model).
    assert rho.epsilon().upper == pytest.approx(8.9222, abs=1e-4)
    assert rho.noise_multiplier is None
    assert "no dominating-pair view" in rho.epsilons()["pld"]


def test_replace_one_under_poisson_sampling_costs_less_than_twice_the_sensitivity():
    here = planned().epsilon()
    there = planned(privacy__relation="replace_one").epsilon()
    doubled = planned(mechanism__noise_multiplier=0.55).epsilon()
    assert here.upper < there.lower
    assert there.upper < doubled.lower


def test_stddev_is_in_the_units_of_the_gradient():
    assert planned(mechanism__l2_clip_norm=0.5).stddev == 0.55
    assert planned(mechanism__l2_clip_norm=None).stddev is None
    assert unsampled(mechanism__kind="laplace", mechanism__noise_multiplier=3.0).stddev == pytest.approx(math.sqrt(18))


def test_with_noise_keeps_the_rest():
    plan = planned().with_noise(2.0)
    assert plan == planned(mechanism__noise_multiplier=2.0)
    with pytest.raises(ConfigError, match=r"mechanism\.noise_multiplier = nan"):
        plan.with_noise(math.nan)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"privacy__delta": 1e-4}, "not below 1/60,000"),
        ({"privacy__delta": 1 / 60_000}, "not below 1/60,000"),
        ({"mechanism__noise_multiplier": 0.01}, "tiny"),
        ({"mechanism__noise_multiplier": 0}, "protects nobody"),
        ({"training__sampling": "full_batch"}, "contradicts full_batch"),
    ],
)
def test_warnings(changes, words):
    assert any(words in warning for warning in planned(**changes).warnings)
    assert not planned().warnings


def test_assumptions_say_what_dpkit_cannot_see():
    said = " ".join(planned(mechanism__l2_clip_norm=0.7).assumptions)
    for words in (
        "fresh Poisson sample", "256/60,000", "expected batch size 256", "clip norm 0.7", "every checkpoint",
        "floating-point", "hyperparameter tuning", "which examples a batch held",
    ):  # fmt: skip
        assert words in said
    for sampling in ("shuffle", "min_sep"):
        extra = {"training__min_sep": 5} if sampling == "min_sep" else {}
        added = " ".join(planned(training__sampling=sampling, **extra).assumptions)
        assert "leaves every other example in the batches where it was" in added
        assert "Poisson sample" not in added
        blanked = planned(training__sampling=sampling, privacy__relation="replace_special", **extra)
        assert "leaves every other example" not in " ".join(blanked.assumptions)


@pytest.mark.parametrize(("target", "steps"), [(1.0, 4), (8.0, 100), (0.1, 1)])
def test_calibrate_finds_the_least_noise(target, steps):
    plan = unsampled(training__epochs=None, training__iterations=steps).calibrate(target)
    assert plan.epsilon().upper <= target
    assert plan.with_noise(plan.noise_multiplier - 1e-3).epsilon().upper > target
    # The closed form: this much noise is enough, and 1 % less is too little.
    assert gaussian_epsilon(math.sqrt(steps) / plan.noise_multiplier, 1e-5) <= target
    assert gaussian_epsilon(math.sqrt(steps) / (plan.noise_multiplier * 0.99), 1e-5) > target * 0.999


def test_calibrate_needs_noise_to_choose():
    declared = unsampled(
        mechanism__kind="zcdp", mechanism__noise_multiplier=None, mechanism__rho=1, privacy__accountant="rdp"
    )
    with pytest.raises(ConfigError, match="no noise to choose"):
        declared.calibrate(1.0)


def test_calibrate_finds_the_least_noise_of_a_sampled_run():
    plan = planned(training__epochs=1, training__batch_size=600).calibrate(2.0)
    assert plan.epsilon().upper <= 2
    assert plan.with_noise(plan.noise_multiplier - 1e-3).epsilon().upper > 2
    assert plan.iterations == 100


def test_calibrate_refuses_what_is_no_target():
    for target in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="epsilon"):
            planned().calibrate(target)

"""What an attack can achieve, in reports and as a target."""

import json
import math

import pytest
from scipy import stats

from dpkit import accounting, training
from dpkit.training import PrivacyReport, TrainingConfig
from dpkit.training.problems import ConfigError
from training.configs import changed

ONE_STEP = {"training__sampling": "full_batch", "training__batch_size": None, "training__epochs": 1}


def planned(**changes) -> training.TrainingPlan:
    return training.plan(TrainingConfig.parse(changed(**changes)))


def readings(plan) -> dict:
    fields = PrivacyReport.of(plan).as_dict()["sections"]["What an attack can achieve"]
    return {key: field["value"] for key, field in fields.items()}


def number(text: str, after: str) -> float:
    return float(text.partition(after)[2].split()[0])


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0])
def test_the_readings_are_the_closed_forms(noise):
    found, mu = readings(planned(**ONE_STEP, mechanism__noise_multiplier=noise)), 1 / noise
    assert len(found["true_positive_rate"]) == 3
    for line, rate in zip(found["true_positive_rate"], (0.001, 0.01, 0.1), strict=True):
        truth = stats.norm.cdf(mu + stats.norm.ppf(rate))
        assert line.endswith(f"at a false positive rate of {rate}")
        assert truth <= number(line, "at most ") <= 1.02 * truth
    advantage = 2 * stats.norm.cdf(mu / 2) - 1
    assert advantage <= number(found["advantage"], "at most ") <= 1.002 * advantage
    # At even odds the best guess is wrong with probability Phi(-mu / 2).
    risk = stats.norm.cdf(-mu / 2)
    assert 0.998 * risk <= number(found["bayes_risk"], ">= ") <= risk


def test_no_noise_hides_nothing_and_other_accountants_say_it_too():
    found = readings(planned(**ONE_STEP, mechanism__noise_multiplier=0.0))
    assert [number(line, "at most ") for line in found["true_positive_rate"]] == [1, 1, 1]
    assert (number(found["advantage"], "at most "), number(found["bayes_risk"], ">= ")) == (1, 0)
    truth = 2 * stats.norm.cdf(0.5) - 1
    for accountant in ("rdp", "zcdp"):
        run = planned(**ONE_STEP, mechanism__noise_multiplier=1.0, privacy__accountant=accountant)
        assert truth <= number(readings(run)["advantage"], "at most ") <= 1


def test_the_readings_are_in_every_format():
    report = PrivacyReport.of(planned(**ONE_STEP))
    for text in (report.text(), report.markdown()):
        assert "What an attack can achieve" in text
        assert "False positive rate".lower() in text
    assert max(map(len, report.text().splitlines())) <= 80
    assert "What an attack can achieve" in json.loads(report.json())["sections"]


@pytest.mark.parametrize("accountant", ["pld", "rdp", "zcdp"])
@pytest.mark.parametrize("target", [0.01, 0.1, 0.9])
def test_calibrated_runs_stay_within_the_advantage(accountant, target):
    run = planned(**ONE_STEP, privacy__accountant=accountant).calibrate_advantage(target)
    assert accounting.advantage(run.mechanism, run.accountant()).upper <= target
    noise = run.noise_multiplier
    less = run.with_noise(noise - 1e-3 * min(1.0, noise))
    assert accounting.advantage(less.mechanism, less.accountant()).upper > target
    # 2 Phi(mu / 2) - 1 = target.
    least = 1 / (2 * stats.norm.ppf((1 + target) / 2))
    assert noise >= least * (1 - 1e-12)
    if accountant == "pld":
        assert noise <= 1.003 * least


def test_a_sampled_run_is_calibrated_too():
    run = planned(training__epochs=1).calibrate_advantage(0.05)
    assert 0.0498 < accounting.advantage(run.mechanism, run.accountant()).upper <= 0.05


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_impossible_advantages_are_refused(target):
    with pytest.raises(ValueError, match="target_advantage"):
        planned(**ONE_STEP).calibrate_advantage(target)


def test_a_declared_rho_cannot_be_calibrated():
    declared = {"mechanism__kind": "zcdp", "mechanism__noise_multiplier": None, "mechanism__l2_clip_norm": None}
    run = planned(**ONE_STEP, **declared, mechanism__rho=0.1, privacy__accountant="zcdp")
    with pytest.raises(ConfigError, match="no noise to choose"):
        run.calibrate_advantage(0.1)

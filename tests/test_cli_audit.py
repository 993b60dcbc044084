"""`dpkit audit`, and calibration to an advantage."""

import json

import pytest
from scipy import stats

from dpkit import audit
from test_cli import fails, python, run
from training.configs import FULL_BATCH, VALID, write
from training.truth import gaussian_epsilon


@pytest.fixture
def full_batch(tmp_path):
    """A run whose truth is the closed form at mu = 1/2."""
    return write(tmp_path, FULL_BATCH)


def test_audit_as_json(full_batch):
    result = run("audit", full_batch, "--json", "--delta", "0.01", "--trials", "40_000", "--confidence", "0.9999")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert set(found) == {
        "epsilon_lower", "delta", "confidence", "method", "samples", "assumption", "false_positive_rate",
        "false_negative_rate", "certified", "contradicted", "relation", "trials", "seed",
    }  # fmt: skip
    truth = gaussian_epsilon(0.5, 0.01)
    assert 0.5 * truth < found["epsilon_lower"] <= truth
    assert found["certified"]["lower"] <= truth <= found["certified"]["upper"]
    assert (found["contradicted"], found["trials"], found["seed"]) == (False, 40_000, 0)
    assert (found["confidence"], found["delta"], found["relation"]) == (0.9999, 0.01, "add_or_remove_one")
    again = json.loads(run("audit", full_batch, "--json", "--delta", "0.01", "--seed", "1").stdout)
    assert (again["seed"], again["confidence"], again["trials"]) == (1, 0.95, 10_000)


def test_audit_is_readable_at_80_columns(full_batch):
    result = run("audit", full_batch)
    assert result.exit_code == 0
    for words in (">= ", "with confidence 0.95", "epsilon, certified (PLD)", "10,000 with the example", "no proof"):
        assert words in result.stdout
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    gdp = " ".join(run("audit", full_batch, "--method", "gdp").stdout.split())
    assert "(Gaussian DP)" in gdp.replace(" │ │ │", "")


def test_a_contradiction_is_said_and_has_status_1(full_batch, monkeypatch):
    found = audit.AuditResult(9.0, 1e-5, 0.95, "a way", 100, "something")
    monkeypatch.setattr(audit, "audit_losses", lambda *_, **__: found)
    result = run("audit", full_batch)
    assert result.exit_code == 1
    assert "CONTRADICTION: epsilon >= 9 was found" in result.stdout
    assert "with probability at most 0.05" in " ".join(result.stdout.split())
    as_json = run("audit", full_batch, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["contradicted"] is True


def test_a_sampled_run_is_audited_step_by_step(tmp_path):
    path = write(tmp_path, VALID.replace("epochs = 60", "iterations = 50").replace("= 1.1", "= 0.5"))
    found = json.loads(run("audit", path, "--json", "--delta", "0.02", "--trials", "20000").stdout)
    assert 0 < found["epsilon_lower"] <= found["certified"]["upper"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--trials", "3"), ("--trials", "3", ">= 4", "--trials 10000")),
        (("--trials", "many"), ("--trials", "many", "--trials 10000")),
        (("--trials", "-5"), ("--trials", "-5", "--trials 10000")),
        (("--confidence", "1"), ("--confidence", "strictly between 0 and 1", "--confidence 0.95")),
        (("--confidence", "95%"), ("--confidence", "95%", "--confidence 0.95")),
        (("--seed", "1.5"), ("--seed", "1.5", "--seed 1")),
        (("--method", "prv"), ("--method", "prv", "gdp")),
        (("--delta", "2"), ("--delta", "2", "1e-5")),
    ],
)
def test_bad_flags_of_audit_are_named_with_a_remedy(full_batch, flags, words):
    message = fails(run("audit", full_batch, *flags))
    for word in words:
        assert word in message


def test_audit_explains_bad_configs_and_runs_without_pairs(tmp_path):
    assert "no such file" in fails(run("audit", tmp_path / "absent.toml"))
    declared = FULL_BATCH.replace('"gaussian"', '"zcdp"').replace("noise_multiplier = 4.0", "rho = 0.1")
    path = write(tmp_path, declared.replace("l2_clip_norm = 1.0\n", "").replace('"pld"', '"zcdp"'))
    assert "has no dominating-pair view" in fails(run("audit", path))


def test_help_of_audit_has_an_example():
    shown = run("audit", "--help").stdout
    assert "Example:" in shown
    assert "dpkit audit examples/mnist_dpsgd.toml" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_audit_does_without_jax(full_batch):
    code = (
        "import sys; from typer.testing import CliRunner; from dpkit.cli import app\n"
        "assert CliRunner().invoke(app, ['audit', sys.argv[1]]).exit_code == 0\n"
        "assert not {'jax', 'dp_accounting'} & set(sys.modules)\n"
    )
    result = python("-c", code, full_batch)
    assert result.returncode == 0, result.stderr


def test_calibrate_to_an_advantage(full_batch):
    numbers = json.loads(run("calibrate", full_batch, "--advantage", "0.1", "--json").stdout)
    assert numbers["target_advantage"] == 0.1
    assert "target_epsilon" not in numbers
    noise = numbers["noise_multiplier"]
    # Four steps: mu = 2 / noise, and the advantage is 2 Phi(mu / 2) - 1.
    assert 0.0998 < 2 * stats.norm.cdf(1 / noise) - 1 <= 0.1
    truth = gaussian_epsilon(2 / noise, 1e-5)
    assert numbers["epsilon"]["lower"] <= truth <= numbers["epsilon"]["upper"]
    table = run("calibrate", full_batch, "--advantage", "0.1").stdout
    assert "calibrated to advantage <= 0.1" in table
    assert repr(noise) in table


def test_calibrate_takes_exactly_one_target(full_batch):
    for flags in ((), ("--epsilon", "1", "--advantage", "0.1")):
        message = fails(run("calibrate", full_batch, *flags))
        assert "--epsilon 8 or --advantage 0.1" in message
    for bad in ("0", "1", "-0.1", "nan", "half"):
        message = fails(run("calibrate", full_batch, "--advantage", bad))
        assert bad in message
        assert "--advantage 0.1" in message

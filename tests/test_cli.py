import json
import math
import os
import pathlib
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import dpkit
from dpkit import training
from dpkit.cli import app
from training.configs import FULL_BATCH, VALID, write
from training.truth import gaussian_epsilon

KEYS = {
    "epsilon", "delta", "accountant", "relation", "unit", "sampling", "iterations", "sampling_probability",
    "noise_multiplier", "mechanism", "by_accountant", "assumptions", "warnings", "version",
}  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(result) -> str:
    """The message of a run that must end with status 2 and nothing on stdout."""
    assert result.exit_code == 2, result.output
    assert not result.stdout
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    return result.stderr


@pytest.fixture
def full_batch(tmp_path):
    """A run whose truth is the closed form at mu = 1/2."""
    return write(tmp_path, FULL_BATCH)


def test_epsilon_as_json(full_batch):
    result = run("epsilon", full_batch, "--json")
    assert result.exit_code == 0
    numbers = json.loads(result.stdout)
    assert set(numbers) == KEYS
    truth = gaussian_epsilon(0.5, 1e-5)
    assert numbers["epsilon"]["lower"] <= truth <= numbers["epsilon"]["upper"]
    assert numbers["by_accountant"]["pld"] == numbers["epsilon"]
    assert set(numbers["by_accountant"]["rdp"]) == set(numbers["by_accountant"]["zcdp"]) == {"upper", "order"}
    assert numbers["by_accountant"]["rdp"]["upper"] >= truth
    assert (numbers["delta"], numbers["accountant"], numbers["relation"]) == (1e-5, "pld", "add_or_remove_one")
    assert (numbers["unit"], numbers["sampling"], numbers["iterations"]) == ("example", "full_batch", 4)
    assert (numbers["sampling_probability"], numbers["noise_multiplier"]) == (None, 4.0)
    assert numbers["version"] == dpkit.__version__
    assert numbers["assumptions"]
    assert numbers["warnings"] == []


def test_overrides(full_batch):
    flags = ("--delta", "1e-7", "--accountant", "zcdp", "--relation", "replace_one")
    numbers = json.loads(run("epsilon", full_batch, "--json", *flags).stdout)
    assert (numbers["delta"], numbers["accountant"], numbers["relation"]) == (1e-7, "zcdp", "replace_one")
    pld = numbers["by_accountant"]["pld"]
    assert pld["lower"] <= gaussian_epsilon(1.0, 1e-7) <= pld["upper"] <= numbers["epsilon"]["upper"]
    assert numbers["epsilon"]["upper"] == numbers["by_accountant"]["zcdp"]["upper"]


def test_the_table_is_readable_at_80_columns(tmp_path):
    result = run("epsilon", write(tmp_path, VALID))
    assert result.exit_code == 0
    for words in (
        "epsilon (PLD)", "epsilon (RDP)", "best order", "epsilon (zCDP)", "add_or_remove_one", "example (60,000",
        "poisson", "14,063 (ceil(60 epochs x 60,000 / 256))", "0.00426667", "This holds if:", "any one example",
    ):  # fmt: skip
        assert words in result.stdout
    assert "\x1b" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_shuffle_prints_the_non_guarantee_as_one(tmp_path):
    result = run("epsilon", write(tmp_path, VALID.replace("poisson", "shuffle")))
    assert "NOT A GUARANTEE" in result.stdout
    assert "no amplification claimed" in result.stdout


def test_calibrate_prints_the_least_noise_and_its_epsilon(full_batch):
    numbers = json.loads(run("calibrate", full_batch, "--epsilon", "1", "--json").stdout)
    assert set(numbers) == KEYS | {"target_epsilon"}
    noise = numbers["noise_multiplier"]
    assert numbers["epsilon"]["upper"] <= 1
    assert gaussian_epsilon(2 / noise, 1e-5) <= 1  # 4 steps
    below = FULL_BATCH.replace("noise_multiplier = 4.0", f"noise_multiplier = {noise - 1e-3!r}")
    full_batch.write_text(below)
    assert json.loads(run("epsilon", full_batch, "--json").stdout)["epsilon"]["upper"] > 1
    table = run("calibrate", full_batch, "--epsilon", "1").stdout
    assert repr(noise) in table
    assert "calibrated to epsilon <= 1" in table


def test_calibrate_takes_another_delta(full_batch):
    numbers = json.loads(run("calibrate", full_batch, "--epsilon", "1", "--delta", "1e-9", "--json").stdout)
    assert numbers["delta"] == 1e-9
    assert gaussian_epsilon(2 / numbers["noise_multiplier"], 1e-9) <= 1


def test_report_in_three_formats(full_batch):
    assert "unknown (write report.tuning" in run("report", full_batch).stdout
    assert run("report", full_batch, "--format", "markdown").stdout.startswith("# Differential privacy statement\n")
    statement = json.loads(run("report", full_batch, "--format", "json").stdout)
    assert set(statement) == {"title", "sections", "numbers"}
    assert set(statement["numbers"]) == KEYS


@pytest.mark.parametrize("command", [("epsilon",), ("calibrate", "--epsilon", "8"), ("report",)])
def test_every_command_explains_a_bad_config(tmp_path, command):
    path = write(tmp_path, VALID.replace("60_000", "-1").replace("1.1", "nan").replace("l2_clip_norm", "l2_clip"))
    message = fails(run(*command, path))
    for words in ("3 problems", "data.examples = -1", "mechanism.noise_multiplier = nan", "did you mean l2_clip_norm"):
        assert words in message
    assert "no such file" in fails(run(*command, tmp_path / "absent.toml"))
    assert "directory" in fails(run(*command, tmp_path))
    assert "missing" in fails(run(*command[:1])).lower()
    laplace = VALID.replace("gaussian", "laplace").replace("1.1", "20.0").replace("l2_clip_norm = 1.0\n", "")
    replace_one = write(tmp_path, laplace.replace("add_or_remove_one", "replace_one"))
    assert "use add_or_remove_one or replace_special" in fails(run(*command, replace_one))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--delta", "nan"), ("--delta", "nan", "strictly between 0 and 1")),
        (("--delta", "0"), ("--delta", "0", "1e-5")),
        (("--delta", "1"), ("--delta", "1", "1e-5")),
        (("--delta", "1.5"), ("--delta", "1.5", "1e-5")),
        (("--delta", "-1"), ("--delta", "-1", "1e-5")),
        (("--delta", "inf"), ("--delta", "inf", "1e-5")),
        (("--delta", "small"), ("--delta", "small", "1e-5")),
        (("--accountant", "prv"), ("--accountant", "prv", "pld")),
        (("--relation", "add-remove"), ("--relation", "add-remove", "replace_special")),
        (("--detla", "1e-5"), ("--detla", "--delta")),
    ],
)
@pytest.mark.parametrize("command", ["epsilon", "calibrate"])
def test_bad_flags_are_named_with_a_remedy(full_batch, command, flags, words):
    target = ("--epsilon", "8") if command == "calibrate" else ()
    message = fails(run(command, full_batch, *target, *flags))
    for word in words:
        assert word in message


@pytest.mark.parametrize("target", ["0", "-1", "nan", "inf", "much"])
def test_bad_targets_are_named(full_batch, target):
    message = fails(run("calibrate", full_batch, "--epsilon", target))
    assert "--epsilon" in message
    assert target in message


def test_calibrate_needs_a_target(full_batch):
    assert "--epsilon" in fails(run("calibrate", full_batch))
    assert "--format" in fails(run("report", full_batch, "--format", "pdf"))


def test_noise_that_no_target_needs_is_refused_or_right(full_batch):
    # Every finite epsilon is reached by some noise; a huge one by very little.
    result = run("calibrate", full_batch, "--epsilon", "500", "--json")
    noise = json.loads(result.stdout)["noise_multiplier"]
    assert gaussian_epsilon(2 / noise, 1e-5) <= 500


def test_help_and_version():
    assert run("--version").stdout == f"dpkit {dpkit.__version__}\n"
    for command in ("epsilon", "calibrate", "report"):
        shown = run(command, "--help").stdout
        assert "Example:" in shown
        assert f"dpkit {command} examples/mnist_dpsgd.toml" in shown
        assert max(map(len, shown.splitlines())) <= 80


def python(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_as_a_module(full_batch, tmp_path):
    good = python("-m", "dpkit", "epsilon", full_batch)
    assert good.returncode == 0, good.stderr
    assert "epsilon (PLD)" in good.stdout
    assert "\x1b" not in good.stdout
    bad = python("-m", "dpkit", "epsilon", tmp_path / "absent.toml")
    assert bad.returncode == 2
    assert not bad.stdout
    assert bad.stderr.startswith("Error: 1 problem in ")
    assert "Traceback" not in bad.stderr


def test_nothing_heavy_is_imported(tmp_path):
    code = (
        "import sys; from typer.testing import CliRunner; from dpkit.cli import app\n"
        "heavy = {'jax', 'dp_accounting', 'numpy', 'pydantic', 'rich'}\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert CliRunner().invoke(app, ['epsilon', sys.argv[1]]).exit_code == 0\n"
        "assert not {'jax', 'dp_accounting'} & set(sys.modules)\n"
    )
    result = python("-c", code, write(tmp_path, VALID))
    assert result.returncode == 0, result.stderr


def test_infinite_epsilon_has_status_0_and_says_so(full_batch):
    full_batch.write_text(FULL_BATCH.replace("noise_multiplier = 4.0", "noise_multiplier = 0"))
    numbers = json.loads(run("epsilon", full_batch, "--json").stdout)
    assert numbers["epsilon"]["upper"] == "inf"
    assert float(numbers["epsilon"]["upper"]) == math.inf
    assert any("protects nobody" in warning for warning in numbers["warnings"])
    assert "Nothing is guaranteed" in run("epsilon", full_batch).stdout


def test_a_number_that_cannot_be_certified_is_not_printed(full_batch, monkeypatch):
    def fail(_):
        raise ArithmeticError("not an interval of non-negative numbers: [0.0, nan]")

    monkeypatch.setattr(training.Summary, "of", fail)
    assert "no certified number" in fails(run("epsilon", full_batch))
    assert "no certified number" in fails(run("report", full_batch))


def test_shells_complete_commands():
    asked = {"_DPKIT_COMPLETE": "complete_bash", "COMP_WORDS": "dpkit ca", "COMP_CWORD": "1"}
    script = pathlib.Path(sys.executable).with_name("dpkit")
    found = subprocess.run([script], check=True, env=os.environ | asked, capture_output=True, text=True)
    assert found.stdout.split() == ["calibrate"]

"""`dpkit plan`: the table, its JSON, the config it writes, and what it refuses."""

import json

import pytest

from dpkit import training
from dpkit.training import planning
from test_cli import fails, run
from test_cli_optimize import FTRL
from training.configs import VALID, write


@pytest.fixture(autouse=True)
def _few_candidates(monkeypatch):
    monkeypatch.setattr(planning, "BANDS", (2,))
    monkeypatch.setattr(planning, "BUFFERS", (1,))


@pytest.fixture
def ftrl(tmp_path):
    return write(tmp_path, FTRL)


def test_the_best_comes_first_and_is_written(ftrl, tmp_path):
    best = tmp_path / "best.toml"
    result = run("plan", ftrl, "--epsilon", 4, "--json", "--write", best)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    errors = [candidate["rmse"] for candidate in found["candidates"]]
    assert errors == sorted(errors)
    assert {"banded 4", "banded 2", "blt 1", "tree", "independent"} <= {c["name"] for c in found["candidates"]}
    assert all(3.9 < candidate["epsilon"]["upper"] <= 4 for candidate in found["candidates"])
    again = json.loads(run("epsilon", best, "--json").stdout)
    assert again["epsilon"] == found["candidates"][0]["epsilon"]
    assert training.load_config(best).strategy.kind == found["candidates"][0]["strategy"]["kind"]


def test_the_table_fits_80_columns(ftrl):
    text = run("plan", ftrl, "--epsilon", 4).stdout
    assert "Best: " in text
    assert "banded_inverse_square_root 2" in text
    assert "This holds if:" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_memory_limits_what_is_kept(ftrl):
    found = json.loads(run("plan", ftrl, "--epsilon", 4, "--memory", 2, "--json").stdout)
    assert max(candidate["state_copies"] for candidate in found["candidates"]) <= 2
    assert any("banded 4: keeps 3 copies" in reason for reason in found["left_out"])


def test_what_cannot_be_had_is_left_out_with_its_reason(tmp_path):
    shuffled = VALID.replace("poisson", "shuffle").replace("epochs = 60", "epochs = 1")
    found = json.loads(run("plan", write(tmp_path, shuffled), "--epsilon", 4, "--delta", 1e-6, "--json").stdout)
    assert {candidate["delta"] for candidate in found["candidates"]} == {1e-6}
    assert "banded 2" not in {candidate["name"] for candidate in found["candidates"]}


def test_an_interrupted_search_leaves_what_is_done(ftrl, monkeypatch):
    evaluate, calls = planning.evaluate, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr(planning, "evaluate", interrupted)
    found = json.loads(run("plan", ftrl, "--epsilon", 4, "--json").stdout)
    assert len(found["candidates"]) == 2
    assert any("interrupted" in reason for reason in found["left_out"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--epsilon", "-1"), "not a positive finite number"),
        (("--epsilon", "1", "--write", "no/such/folder/best.toml"), "there is no such folder"),
        (("--epsilon", "1", "--memory", "-1"), "--memory"),
        ((), "--epsilon"),
    ],
)
def test_mistakes_are_explained(ftrl, flags, words):
    assert words in fails(run("plan", ftrl, *flags))


def test_other_noise_is_refused(tmp_path):
    path = write(tmp_path, VALID.replace('"gaussian"', '"laplace"'))
    assert "cannot be planned for" in fails(run("plan", path, "--epsilon", "1"))

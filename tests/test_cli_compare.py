"""`dpkit compare`: the table, its JSON, its CSV, its figure, and what it refuses."""

import csv
import json
import sys

import pytest

from dpkit import training
from dpkit.training import planning, sweep
from test_cli import fails, run
from test_cli_optimize import FTRL
from training.configs import VALID, write

NAMES = {
    "independent", "tree", "blt 1", "banded 2", "banded_toeplitz 2", "banded_square_root 2",
    "banded_inverse_square_root 2", "banded 4 (own)",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _few_candidates(monkeypatch, tmp_path):
    monkeypatch.setattr(planning, "BANDS", (2,))
    monkeypatch.setattr(planning, "BUFFERS", (1,))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def ftrl(tmp_path):
    return write(tmp_path, FTRL)


@pytest.fixture
def compared(ftrl):
    """A run of `compare` in this process."""
    return lambda *flags: run("compare", ftrl, "--epsilons", "4,1", "--jobs", 1, *flags)


def test_json_holds_every_number(compared, ftrl):
    found = json.loads(compared("--json", "--delta", "1e-6").stdout)
    assert found["target_epsilons"] == [1.0, 4.0]
    assert found["left_out"] == []
    assert len(found["results"]) == 2 * len(NAMES)
    config = training.load_config(ftrl).override(delta=1e-6)
    for result in found["results"]:
        outcome = sweep.Outcome.parse(result)
        alone = planning.evaluate(config, outcome.strategy, outcome.target_epsilon)
        assert outcome.rmse == pytest.approx(alone.rmse, rel=1e-3)
        assert (outcome.epsilon, outcome.config) == (alone.epsilon, alone.plan.config)


def test_the_table_fits_80_columns_and_marks_the_best(compared):
    result = compared()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout
    (header,) = (line.split() for line in lines if "mechanism" in line and "delta" not in line and "  " in line)
    assert header == ["mechanism", "1", "4"]
    rows = [line.rsplit(maxsplit=2) for line in lines if line.strip().startswith(tuple(NAMES))]
    assert {name.strip() for name, *_ in rows} == NAMES
    for column in (1, 2):
        errors = [float(row[column].rstrip("*")) for row in rows]
        assert errors == sorted(errors)
        assert [row[column].endswith("*") for row in rows] == [error == min(errors) for error in errors]


def test_many_epsilons_go_on_below(ftrl):
    targets = [str(number / 4) for number in range(2, 14)]
    text = run("compare", ftrl, "--epsilons", ",".join(targets), "--jobs", 1).stdout
    assert max(map(len, text.splitlines())) <= 80
    headers = [line.split()[1:] for line in text.splitlines() if line.strip().startswith("mechanism ")]
    assert len(headers) > 1
    assert [float(target) for header in headers for target in header] == [float(target) for target in targets]
    assert "…" not in text


def test_csv_has_a_row_per_mechanism_and_epsilon(compared, tmp_path):
    path = tmp_path / "out.csv"
    found = json.loads(compared("--json", "--csv", path).stdout)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["mechanism"], float(row["target_epsilon"])) for row in rows} == {
        (name, target) for name in NAMES for target in (1.0, 4.0)
    }
    assert len(rows) == len(found["results"])
    for row, result in zip(rows, found["results"], strict=True):
        assert float(row["epsilon_lower"]) == result["epsilon"]["lower"]
        assert float(row["epsilon_upper"]) == result["epsilon"]["upper"] <= float(row["target_epsilon"])
        assert row["gap"] == ("" if result["gap"] is None else str(result["gap"]))
        assert row["accountant"] == result["accountant"]
        for name in ("delta", "noise_multiplier", "rmse", "max_error", "state_copies", "operations", "seconds"):
            assert float(row[name]) == result[name]


def test_the_figure_is_written(compared, tmp_path):
    path = tmp_path / "out.svg"
    result = compared("--plot", path)
    assert result.exit_code == 0, result.output
    assert path.read_bytes().startswith(b"<?xml")


def test_memory_limits_what_is_kept(compared):
    found = json.loads(compared("--memory", 2, "--json").stdout)
    assert max(result["state_copies"] for result in found["results"]) <= 2
    assert set(found["left_out"]) == {"banded 4: keeps 3 copies", "tree: keeps 6 copies"}


def test_an_interrupted_comparison_shows_what_is_done_and_goes_on(compared, monkeypatch, tmp_path):
    solve, calls = planning.solve, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return solve(*arguments)

    monkeypatch.setattr(planning, "solve", interrupted)
    where = ("--json", "--cache", tmp_path / "kept")
    found = json.loads(compared(*where).stdout)
    assert len(found["results"]) == 4
    assert found["left_out"] == ["interrupted: 12 of 16 results were not computed"]
    again = json.loads(compared(*where).stdout)
    assert len(again["results"]) == 16
    assert len(calls) == 3 + len(NAMES) - 2


def test_dead_workers_leave_what_is_done(compared, monkeypatch):
    solve, calls = planning.solve, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise sweep.WorkersLostError("a worker process died")
        return solve(*arguments)

    monkeypatch.setattr(planning, "solve", dying)
    found = json.loads(compared("--json").stdout)
    assert found["left_out"] == ["a worker process died; 14 of 16 results were not computed"]


@pytest.mark.parametrize("epsilons", ["", "1,,2", "1;2", "0", "-1,2", "nan", "inf", "1,x"])
def test_a_bad_list_is_explained(ftrl, epsilons):
    message = fails(run("compare", ftrl, "--epsilons", epsilons))
    assert f"cannot read {epsilons!r}" in message
    assert "--epsilons 0.5,1,2,4,8" in message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--csv", "no/such/folder/out.csv"), "--csv no/such/folder/out.csv: there is no such folder"),
        (("--plot", "no/such/folder/out.png"), "--plot no/such/folder/out.png: there is no such folder"),
        (("--plot", "out.gif"), ".png, .svg or .pdf file, got out.gif"),
        (("--jobs", 0), "--jobs"),
        (("--memory", -1), "--memory"),
        (("--backend", "ray"), "--backend"),
        (("--backend", "dask"), "--backend dask needs --scheduler"),
        (("--scheduler", "tcp://127.0.0.1:1"), "add --backend dask"),
        (("--backend", "dask", "--scheduler", "tcp://127.0.0.1:1", "--jobs", 2), "is for local processes"),
    ],
    ids=str,
)
def test_mistakes_are_explained_before_the_work(ftrl, monkeypatch, flags, words):
    monkeypatch.setattr(planning, "solve", None)
    assert words in fails(run("compare", ftrl, "--epsilons", "1", *flags))


def test_a_cache_that_cannot_be_made_is_named(ftrl, tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in fails(run("compare", ftrl, "--epsilons", "1", "--cache", tmp_path / "file"))


def test_what_is_not_installed_or_not_there_is_named(ftrl, monkeypatch):
    flags = ("--epsilons", "1", "--backend", "dask", "--scheduler", "tcp://127.0.0.1:1")
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "distributed", None)
        assert 'pip install "dpkit[dask]"' in fails(run("compare", ftrl, *flags))
    pytest.importorskip("distributed")
    monkeypatch.setattr(sweep, "_PATIENCE", "500ms")
    assert "tcp://127.0.0.1:1 cannot be reached" in fails(run("compare", ftrl, *flags))


def test_other_noise_is_refused(tmp_path):
    path = write(tmp_path, VALID.replace('"gaussian"', '"laplace"'))
    assert "cannot be planned for" in fails(run("compare", path, "--epsilons", "1"))

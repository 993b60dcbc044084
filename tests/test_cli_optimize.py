"""`dpkit optimize`: from a config, from flags, from both."""

import json

import numpy as np
import pytest

from dpkit import factorization as fz
from test_cli import fails, run
from training.configs import VALID, write

FTRL = (
    VALID.replace("epochs = 60", "iterations = 64\nmin_sep = 16")
    .replace("poisson", "min_sep")
    .replace("add_or_remove_one", "replace_special")
    + '[strategy]\nkind = "banded"\nnum_bands = 4\n[optimizer]\nmomentum = 0.5\n'
)
SCHEMA = fz.MinSep(64, 16)
FLAGS = ("--iterations", 64, "--min-sep", 16)


def numbers(*arguments):
    result = run("optimize", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def ftrl(tmp_path):
    return write(tmp_path, FTRL)


def test_the_config_says_it_all(ftrl):
    found = numbers(ftrl)
    best = fz.optimize(fz.Banded(4), fz.momentum_sgd(0.5), SCHEMA)
    assert found["rmse"] == pytest.approx(best.rmse, rel=1e-4)
    assert found["max_error"] == pytest.approx(best.max_error, rel=1e-2)
    assert found["sensitivity"] == pytest.approx(2)
    assert found["strategy"] == "Banded"
    assert found["state_copies"] == 3
    assert 0 <= found["gap"] <= 1e-3
    assert found["converged"] is True
    assert set(found) == {
        "strategy", "rmse", "max_error", "sensitivity", "gap", "iterations", "seconds", "converged", "message",
        "state_copies",
    }  # fmt: skip


def test_flags_say_it_all():
    flags = ("--strategy", "banded", "--num-bands", 4, "--workload", "momentum:0.5", "--column-norms", "equal")
    found = numbers(*FLAGS, "--max-participations", 3, *flags, "--objective", "max_error")
    family, schema = fz.Banded(4, column_norms="equal"), fz.MinSep(64, 16, 3)
    best = fz.optimize(family, fz.momentum_sgd(0.5), schema, objective="max_error")
    # Rounding differs from run to run and steers the search, which ends anywhere within its tolerance.
    assert found["max_error"] == pytest.approx(best.max_error, rel=1e-3)
    assert found["sensitivity"] == pytest.approx(np.sqrt(3))


def test_flags_win(ftrl):
    found = numbers(ftrl, "--strategy", "blt", "--num-buffers", 2, "--workload", "prefix_sum", "--iterations", 48)
    best = fz.optimize(fz.BufferedLinearToeplitz(2), fz.prefix_sum(), fz.MinSep(48, 16))
    assert found["rmse"] == pytest.approx(best.rmse, rel=1e-9)
    assert numbers(ftrl, "--num-bands", 6)["state_copies"] == 5
    assert numbers(ftrl, "--min-sep", 64)["sensitivity"] == pytest.approx(1)


def test_window_scales():
    found = numbers(*FLAGS, "--strategy", "blt", "--num-buffers", 2, "--window-scales")
    best = fz.optimize(fz.WindowScaled(fz.BufferedLinearToeplitz(2)), fz.prefix_sum(), SCHEMA)
    assert found["rmse"] == pytest.approx(best.rmse, rel=1e-9)


def test_without_separation_a_unit_takes_part_once():
    tree = fz.Tree(iterations=64)
    found = numbers("--iterations", 64, "--strategy", "tree")
    assert found["rmse"] == pytest.approx(tree.rmse(fz.prefix_sum(), 64), rel=1e-12)
    assert found["gap"] is None


def test_workloads_in_words():
    words = "momentum:0.5,weight_decay:0.1,learning_rate:0.5,cooldown:0.25"
    found = numbers(*FLAGS, "--strategy", "identity", "--workload", words)
    work = fz.momentum_sgd(0.5, 0.5 * fz.cooldown_schedule(64, 0.25), 0.1)
    assert found["rmse"] == pytest.approx(fz.Identity().rmse(work, SCHEMA), rel=1e-9)


def test_the_table(ftrl):
    result = run("optimize", ftrl)
    assert result.exit_code == 0
    for words in (
        "banded (num_bands = 4)", "iterates of SGD, momentum 0.5", "at most 4 of 64 steps, at least 16 apart",
        "rmse", "max error", "sensitivity", "gap to the best", "of the least squared error",
        "12 bytes (3 copies in float32)",
    ):  # fmt: skip
        assert words in result.stdout
    assert "\x1b" not in result.output
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_out_and_plot(ftrl, tmp_path):
    found = numbers(ftrl, "--out", tmp_path / "best.npz", "--plot", tmp_path / "best.svg")
    saved = fz.load(tmp_path / "best.npz")
    assert saved.schema == SCHEMA
    assert saved.sensitivity == found["sensitivity"]
    assert saved.strategy.rmse(fz.momentum_sgd(0.5), SCHEMA) == pytest.approx(found["rmse"], rel=1e-12)
    assert "<svg" in (tmp_path / "best.svg").read_text()
    # And back: the file in a config is that strategy, evaluated and not optimized again.
    again = write(tmp_path, FTRL.replace('kind = "banded"\nnum_bands = 4', 'file = "best.npz"'))
    assert numbers(again)["rmse"] == pytest.approx(found["rmse"], rel=1e-12)
    assert numbers(again)["iterations"] == 0
    onwards = numbers(*FLAGS, "--workload", "momentum:0.5", "--start", tmp_path / "best.npz")
    assert onwards["rmse"] <= found["rmse"]
    assert onwards["state_copies"] == found["state_copies"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("name a config", "--iterations 2052")),
        (FLAGS, ("no strategy is named", "--strategy banded --num-bands 32")),
        ((*FLAGS, "--strategy", "band"), ('"band"', "did you mean banded?")),
        ((*FLAGS, "--strategy", "banded"), ("num_bands: missing", "num_bands = 32")),
        ((*FLAGS, "--strategy", "tree", "--num-bands", 3), ("num_bands = 3", "does not go with", "tree")),
        ((*FLAGS, "--strategy", "banded", "--num-bands", 17), ("num_bands must be <= min_sep=16", "17")),
        ((*FLAGS, "--strategy", "blt", "--num-buffers", 0), ("num_buffers = 0", "must be >= 1")),
        ((*FLAGS, "--strategy", "tree", "--workload", "adam"), ("--workload", "'adam'", "prefix_sum")),
        ((*FLAGS, "--strategy", "tree", "--workload", "momentum:fast"), ("--workload", "'momentum:fast'")),
        ((*FLAGS, "--strategy", "tree", "--workload", "momentum:1.5"), ("momentum = 1.5", "must be < 1")),
        ((*FLAGS, "--strategy", "tree", "--out", "absent/x.npz"), ("--out absent/x.npz", "no such folder")),
        ((*FLAGS, "--strategy", "tree", "--plot", "absent/x.png"), ("--plot absent/x.png", "no such folder")),
        ((*FLAGS, "--strategy", "tree", "--plot", "x.gif"), (".png, .svg or .pdf", "x.gif")),
        (("--iterations", -5, "--strategy", "tree"), ("iterations = -5", "must be >= 1")),
        (("absent.toml",), ("no such file",)),
        ((*FLAGS, "--start", "absent.npz"), ("absent.npz", "No such file")),
    ],
)
def test_what_is_wrong_is_said(arguments, words):
    message = fails(run("optimize", *arguments))
    for word in words:
        assert word in message


def test_poisson_sampling_is_refused(tmp_path):
    message = fails(run("optimize", write(tmp_path, VALID), "--strategy", "tree"))
    assert "not accounted for under random sampling" in message
    assert 'sampling = "min_sep"' in message

"""The training example: its loop keeps to the schema that its noise was computed for, and it runs."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest

from dpkit import accounting, mechanisms

pytest.importorskip("sklearn", reason="the example needs scikit-learn")
pytest.importorskip("optax", reason="the example needs optax")

PATH = pathlib.Path(__file__).parents[1] / "examples" / "train_digits.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("train_digits", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("batch_size", [48, 50, 1_440])
def test_each_image_is_in_one_batch_of_an_epoch(example, batch_size):
    data = example.load(batch_size)
    assert data.images.shape[:2] == data.labels.shape == data.mask.shape == (-(-1_440 // batch_size), batch_size)
    assert data.mask.sum() == 1_440
    whole = example.load(1_797)
    np.testing.assert_array_equal(data.images[data.mask], whole.images[whole.mask])
    assert len(data.test_images) == 357


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)])
def test_other_images_keep_their_split(example, tmp_path, shape):
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 256, (30, *shape), dtype=np.uint8), np.arange(30)[:, None] % 10
    np.savez(tmp_path / "images.npz", x_train=x[:25], y_train=y[:25], x_test=x[25:], y_test=y[25:])
    data = example.load(10, tmp_path / "images.npz")
    assert data.images.shape == (3, 10, np.prod(shape))
    seen = np.sort(data.images[data.mask].sum(axis=1))
    np.testing.assert_allclose(seen, np.sort(x[:25].reshape(25, -1).sum(axis=1) / 255), rtol=1e-5)
    np.testing.assert_allclose(data.test_images, x[25:].reshape(5, -1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(data.test_labels, y[25:, 0])
    assert example.plan("tree", data, 2, 4.0, 1e-5).config.data.examples == 25


@pytest.mark.parametrize("mechanism", ["dp_sgd", "tree", "blt", "banded"])
def test_the_noise_is_that_of_the_loops_participation(example, mechanism):
    data, epochs = example.load(50), 3
    run = example.plan(mechanism, data, epochs, epsilon=4.0, delta=1e-5)
    # The loop runs through the batches in order: an image of batch r takes part in steps r, r + b, ...
    steps, n = len(data.mask), run.iterations
    assert n == steps * epochs
    C = run.strategy.matrix(n)
    worst = max(np.linalg.norm(C[:, r::steps].sum(axis=1)) for r in range(steps))
    assert (C >= -1e-12).all()
    # So contributions in one direction are the worst.
    mechanism = mechanisms.Gaussian(run.stddev / (worst * example.L2_CLIP_NORM))
    truth = accounting.PldAccountant(relation=run.relation).epsilon(mechanism, delta=1e-5)
    assert truth.lower <= run.epsilon().upper <= 4.0


def test_it_runs_and_prints_a_certified_epsilon(example, monkeypatch, capsys, tmp_path):
    picture = tmp_path / "digits.png"
    arguments = ["--mechanism", "banded", "--mechanism", "tree", "--seeds", "1", "--epochs", "2"]
    if importlib.util.find_spec("matplotlib"):
        arguments += ["--plot", str(picture)]
    monkeypatch.setattr(sys, "argv", [str(PATH), *arguments])
    example.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert {row.split("│")[1].strip() for row in rows} >= {"banded", "tree"}
    assert all(3.9 < float(row.split("│")[2]) <= 4 for row in rows)
    assert picture.exists() == ("--plot" in arguments)


def test_an_audit_sees_what_little_noise_cannot_hide(example):
    data, epochs = example.load(50), 1
    run = example.plan("blt", data, epochs, epsilon=60.0, delta=1e-5)
    found = example.audited(run, data, epochs, 0.01, seed=1)
    # With hardly any noise nearly all guesses are right.
    assert 2 < found.epsilon_lower <= run.epsilon().upper
    assert found.samples == 1_440


def test_audit_prints_both_epsilons(example, monkeypatch, capsys):
    arguments = ["--audit", "--mechanism", "tree", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", [str(PATH), *arguments])
    example.main()
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "tree" in line)
    _, _, audited, certified, *_ = (cell.strip() for cell in row.split("│"))
    assert 0 <= float(audited.removeprefix(">= ")) <= float(certified.removeprefix("<= ")) <= 4

"""The adapter example: what is frozen stays frozen, and it runs within its epsilon."""

import importlib.util
import pathlib
import sys

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the example needs scikit-learn")

PATH = pathlib.Path(__file__).parents[1] / "examples" / "ffa_lora.py"


@pytest.fixture
def example(monkeypatch):
    spec = importlib.util.spec_from_file_location("ffa_lora", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "EPOCHS", 2)
    monkeypatch.setattr(module, "LEARNING_RATES", (0.3,))
    return module


@pytest.mark.parametrize("freeze_a", [True, False])
def test_the_change_of_the_layer_has_the_rank_and_the_frozen_factor(example, freeze_a):
    pixels, labels = example.images()
    base, data = example.public_model(pixels[:50], labels[:50]), (pixels[:100], labels[:100])
    run = example.plan(1.0)
    assert run.epsilon().upper <= 1.0
    tuned = example.fine_tune(base, run, data, 0.3, 0, freeze_a=freeze_a)
    change = np.asarray(tuned["w1"] - base["w1"], np.float64)
    assert np.linalg.matrix_rank(change, tol=1e-4) == example.RANK
    a = np.asarray(jax.random.normal(jax.random.split(jax.random.key(0))[0], (64, example.RANK)), np.float64)
    outside = change - a @ np.linalg.lstsq(a, change)[0]
    assert (np.max(np.abs(outside)) < 1e-4) == freeze_a
    for name in ("b1", "w2", "b2"):
        np.testing.assert_array_equal(tuned[name], base[name])


def test_it_prints_both(example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(PATH), "--seeds", "1"])
    example.main()
    shown = capsys.readouterr().out
    assert "A frozen" in shown
    assert "epsilon <=" in shown

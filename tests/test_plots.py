"""Figures: what is drawn is what was computed, and it reaches the file."""

import numpy as np
import pytest

from dpkit import factorization as fz
from dpkit import plots

SCHEMA = fz.MinSep(32, 8)


@pytest.mark.parametrize("strategy", [fz.SquareRoot(), fz.Tree(iterations=32)], ids=str)
def test_strategy_draws_the_errors_and_the_columns(strategy):
    figure = plots.strategy(strategy, fz.prefix_sum(), SCHEMA)
    errors, columns = figure.axes
    independent, drawn = (line.get_ydata() for line in errors.lines)
    A = np.tri(32)
    np.testing.assert_allclose(independent, 2 * np.linalg.norm(A, axis=1), rtol=1e-9)
    truth = strategy.sensitivity(SCHEMA) * np.linalg.norm(A @ strategy.inverse_matrix(32), axis=1)
    np.testing.assert_allclose(drawn, truth, rtol=1e-9)
    first = strategy.matrix(32)[:, 0]
    np.testing.assert_array_equal(columns.lines[0].get_ydata(), np.trim_zeros(first))
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.get_legend() is not None


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_save(tmp_path, suffix, start):
    path = tmp_path / f"figure{suffix}"
    plots.save(plots.strategy(fz.Identity(), fz.prefix_sum(), SCHEMA), path)
    assert path.read_bytes().startswith(start)


def test_save_says_what_it_cannot_write(tmp_path):
    figure = plots.strategy(fz.Identity(), fz.prefix_sum(), SCHEMA)
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf file, got .*figure\.gif"):
        plots.save(figure, tmp_path / "figure.gif")
    with pytest.raises(FileNotFoundError):
        plots.save(figure, tmp_path / "absent" / "figure.png")

"""Figures: what is drawn is what was computed, and it reaches the file."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import norm

from dpkit import accounting, mechanisms, plots
from dpkit import factorization as fz
from dpkit.accounting import Bounds
from training.truth import gaussian_epsilon

SCHEMA = fz.MinSep(32, 8)
PLD, RDP, ZCDP = accounting.PldAccountant(), accounting.RdpAccountant(), accounting.ZcdpAccountant()


def explained(figure) -> None:
    """Every panel says what its axes are; titles and labels do not stand on one another."""
    for axes in figure.axes:
        assert axes.get_ylabel()
    assert figure.axes[-1].get_xlabel()
    assert any(axes.get_legend() is not None for axes in figure.axes)


def corners(band):
    """The heights of a filled band's lower and upper edge, at their places."""
    vertices = band.get_paths()[0].vertices
    places = np.unique(vertices[:, 0])
    heights = [vertices[vertices[:, 0] == place, 1] for place in places]
    return places, np.array([h.min() for h in heights]), np.array([h.max() for h in heights])


@dataclasses.dataclass(frozen=True)
class Fixed(accounting.PrivacyAccountant):
    """Says the same of every mechanism: nothing above delta = 1e-6, and nothing from below."""

    def _epsilon(self, mechanism, delta):  # noqa: ARG002
        return Bounds(0.0, 2.0 if delta > 1e-6 else math.inf)

    def _delta(self, mechanism, epsilon):
        raise NotImplementedError


def test_epsilon_delta_draws_bounds_and_how_tight_they_are():
    figure = plots.epsilon_delta(mechanisms.Gaussian(1.0), {"PLD": PLD, "RDP": RDP}, delta=3e-6)
    explained(figure)
    top, bottom = figure.axes
    pld, rdp, marked = top.lines
    deltas = pld.get_xdata()
    assert (deltas.min(), deltas.max()) == (1e-12, 1e-2)
    assert 3e-6 in deltas
    assert list(marked.get_xdata()) == [3e-6, 3e-6]
    truth = np.array([gaussian_epsilon(1.0, delta) for delta in deltas])
    places, low, high = corners(top.collections[0])
    np.testing.assert_allclose(places, np.sort(deltas))
    truth_there = truth[np.argsort(deltas)]
    assert np.all(low <= truth_there)
    assert np.all(truth_there <= high)
    np.testing.assert_allclose(pld.get_ydata(), truth, rtol=1e-3)
    assert np.all(pld.get_ydata() >= truth)
    np.testing.assert_allclose(rdp.get_ydata(), [RDP.epsilon(mechanisms.Gaussian(1.0), delta=d).upper for d in deltas])
    # The lower bound is within a thousandth of the truth.
    np.testing.assert_allclose(bottom.lines[1].get_ydata(), 100 * (rdp.get_ydata() / truth - 1), atol=0.15)
    assert [text.get_text() for text in top.get_legend().get_texts()][:2] == ["PLD, upper bound", "RDP, upper bound"]


def test_what_is_infinite_is_not_drawn_and_without_a_lower_bound_there_is_no_band():
    figure = plots.epsilon_delta(mechanisms.Gaussian(1.0), {"fixed": Fixed()})
    (axes,) = figure.axes
    (line,) = axes.lines
    deltas, epsilons = line.get_data()
    np.testing.assert_array_equal(epsilons[deltas > 1.1e-6], 2.0)
    assert np.all(np.isnan(epsilons[deltas < 0.9e-6]))
    assert not axes.collections


def test_accountants_with_nothing_to_say_are_left_out():
    run = accounting.amplified.balls_in_bins(fz.Identity(), iterations=8, num_bins=4, noise_multiplier=2.0)
    figure = plots.epsilon_delta(run, {"RDP": RDP, "fixed": Fixed()})
    assert len(figure.axes[0].lines) == 1
    with pytest.raises(mechanisms.UnsupportedViewError):
        plots.epsilon_delta(run, {"RDP": RDP, "zCDP": ZCDP})
    with pytest.raises(ValueError, match="accountants must name at least one"):
        plots.epsilon_delta(run, {})


def test_steps_compose():
    figure = plots.steps(mechanisms.Gaussian(8.0), 64, {"PLD": PLD, "zCDP": ZCDP}, delta=1e-5, label="rounds")
    explained(figure)
    top, bottom = figure.axes
    counts, epsilons = top.lines[0].get_data()
    assert (counts[0], counts[-1]) == (1, 64)
    truth = np.array([gaussian_epsilon(math.sqrt(count) / 8, 1e-5) for count in counts])
    np.testing.assert_allclose(epsilons, truth, rtol=1e-3)
    assert np.all(epsilons >= truth)
    _, low, high = corners(top.collections[0])
    assert np.all(low <= truth)
    assert np.all(truth <= high)
    assert bottom.get_xlabel() == "rounds"
    with pytest.raises(ValueError, match="count"):
        plots.steps(mechanisms.Gaussian(8.0), 0, {"PLD": PLD}, delta=1e-5)


def test_trade_off_draws_the_normal_curve():
    figure = plots.trade_off(mechanisms.Gaussian(1.0), PLD)
    explained(figure)
    for axes in figure.axes:
        rates, highest = axes.lines[0].get_data()
        truth = norm.cdf(norm.ppf(rates) + 1)
        assert np.all(highest >= truth - 1e-12)
        np.testing.assert_allclose(highest, truth, atol=0.01, rtol=0.05)
        np.testing.assert_array_equal(axes.lines[1].get_ydata(), axes.lines[1].get_xdata())
        _, low, _ = corners(axes.collections[0])
        np.testing.assert_allclose(np.sort(low), np.sort(highest))


def test_errors_are_those_of_the_dense_matrices():
    shown = {"own": fz.SquareRoot(), "tree": fz.Tree(iterations=32), "none": fz.Identity()}
    work = fz.momentum_sgd(momentum=0.5)
    (axes,) = plots.errors(shown, work, SCHEMA).axes
    A = np.array([[sum(0.5**j for j in range(t - s + 1)) if s <= t else 0.0 for s in range(32)] for t in range(32)])
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    for (name, strategy), line, text in zip(shown.items(), axes.lines, texts, strict=True):
        truth = strategy.sensitivity(SCHEMA) * np.linalg.norm(A @ strategy.inverse_matrix(32), axis=1)
        np.testing.assert_allclose(line.get_ydata(), truth, rtol=1e-9)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 33))
        assert text == f"{name}: rms {np.sqrt(np.mean(truth**2)):.3g}"
    explained(axes.figure)
    # In print without colour, dashes tell them apart.
    assert len({str(line.get_linestyle()) for line in axes.lines}) == 3


@pytest.mark.parametrize("strategy", [fz.SquareRoot(), fz.Tree(iterations=32)], ids=["square_root", "tree"])
def test_heat_map_shows_the_matrix_and_its_inverse(strategy):
    figure = plots.heat_map(strategy, 32)
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    C, inverse = (np.ma.filled(entries, 0.0) for entries in drawn)
    np.testing.assert_array_equal(C, strategy.matrix(32))
    np.testing.assert_array_equal(inverse, strategy.inverse_matrix(32))
    np.testing.assert_allclose(inverse @ C, np.eye(32), atol=1e-12)
    assert np.all(np.ma.getmaskarray(drawn[0]) == (strategy.matrix(32) == 0))


def test_heat_map_refuses_what_could_not_be_seen():
    with pytest.raises(ValueError, match="iterations must be <= 1024"):
        plots.heat_map(fz.Identity(), 2_000)


def test_training_curves_draw_means_and_ranges():
    values = np.array([[10.0, 40.0, 80.0], [30.0, 50.0, 90.0]])
    figure = plots.training_curves({"a": values, "b": values + 5}, metric="test accuracy (%)", places=[5, 10, 20])
    (axes,) = figure.axes
    for shift, line, band in zip((0, 5), axes.lines, axes.collections, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [5, 10, 20])
        np.testing.assert_array_equal(line.get_ydata(), np.array([20.0, 45.0, 85.0]) + shift)
        places, low, high = corners(band)
        np.testing.assert_array_equal(places, [5, 10, 20])
        np.testing.assert_array_equal(low, values[0] + shift)
        np.testing.assert_array_equal(high, values[1] + shift)
    assert axes.get_ylabel() == "test accuracy (%)"
    assert axes.get_legend().get_title().get_text() == "mean and range of 2 seeds"
    with pytest.raises(ValueError, match=r"values\['a'\] must be a matrix"):
        plots.training_curves({"a": [1.0, 2.0]}, metric="loss (nats)")
    with pytest.raises(ValueError, match=r"the 3 columns of values\['a'\], got shape \(2,\)"):
        plots.training_curves({"a": values}, metric="loss (nats)", places=[1, 2])


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


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_figure_gives_the_same_file(tmp_path, suffix):
    written = []
    for name in ("a", "b"):
        path = tmp_path / (name + suffix)
        plots.save(plots.errors({"none": fz.Identity()}, fz.prefix_sum(), SCHEMA), path)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_save_says_what_it_cannot_write(tmp_path):
    figure = plots.strategy(fz.Identity(), fz.prefix_sum(), SCHEMA)
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf file, got .*figure\.gif"):
        plots.save(figure, tmp_path / "figure.gif")
    with pytest.raises(FileNotFoundError):
        plots.save(figure, tmp_path / "absent" / "figure.png")

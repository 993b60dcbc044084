"""The figure of privacy against utility: every mechanism at its errors, the best of each kind by name."""

import pytest

from dpkit import plots, training
from dpkit.accounting import Bounds
from dpkit.training import sweep
from training.configs import TABLES

ERRORS = {"banded 64": (4.0, 2.0), "blt 2": (8.0, 2.5), "banded 4": (12.0, 6.0), "banded 4 (own)": (13.0, 7.0),
          "blt 1": (16.0, 7.5), "independent": (90.0, 30.0)}  # fmt: skip


def outcome(target, rmse):
    return sweep.Outcome(
        target, "a mechanism", 1.0, Bounds(target, target), 1e-5, "pld", rmse, rmse, 0, 0, None, 0.0, {},
        training.TrainingConfig.parse(TABLES),
    )  # fmt: skip


@pytest.fixture
def figure():
    return plots.comparison(
        {label: {target: outcome(target, rmse) for target, rmse in zip((1.0, 4.0), errors, strict=True)}
         for label, errors in ERRORS.items()}
    )  # fmt: skip


def test_every_error_is_drawn_and_compared_with_the_least(figure):
    absolute, relative = figure.axes
    for axes, least in ((absolute, (1.0, 1.0)), (relative, (4.0, 2.0))):
        drawn = {tuple(line.get_ydata()) for line in axes.lines}
        assert drawn == {tuple(e / b for e, b in zip(errors, least, strict=True)) for errors in ERRORS.values()}
        assert all(list(line.get_xdata()) == [1.0, 4.0] for line in axes.lines)
        assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4"]
        assert axes.get_xlabel() == "certified epsilon at delta = 1e-05"
        assert axes.get_ylabel()


def test_the_best_of_each_kind_has_a_name_and_a_look_of_its_own(figure):
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["independent", "banded 4 (own)", "other bands and buffers", "blt 2", "banded 64"]
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(looks) == len(names)


def test_what_is_best_somewhere_has_a_name():
    errors = {"banded 16": (5.0, 1.0), "banded 4": (4.0, 2.0), "banded 8": (4.5, 3.0)}
    rows = {label: {1.0: outcome(1.0, first), 8.0: outcome(8.0, last)} for label, (first, last) in errors.items()}
    (legend,) = plots.comparison(rows).legends
    assert [text.get_text() for text in legend.get_texts()] == ["other bands and buffers", "banded 4", "banded 16"]


def test_a_mechanism_that_has_no_error_at_a_target_is_drawn_at_the_others():
    rows = {"blt 1": {1.0: outcome(1.0, 3.0)}, "banded 2": {1.0: outcome(1.0, 4.0), 2.0: outcome(2.0, 1.0)}}
    absolute, relative = plots.comparison(rows).axes
    assert [len(line.get_xdata()) for line in absolute.lines] == [1, 2]
    assert [list(line.get_ydata()) for line in relative.lines] == [[1.0], [4 / 3, 1.0]]


def test_many_targets_leave_room_for_their_labels():
    targets = [float(number) for number in range(1, 101)]
    figure = plots.comparison({"tree": {target: outcome(target, 1 / target) for target in targets}})
    assert len(figure.axes[0].get_xticklabels()) == 10

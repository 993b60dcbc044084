"""Figures of what a run guarantees: epsilon against delta and against steps, and what attacks are left."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpkit import accounting, validation
from dpkit.accounting import Bounds, PrivacyAccountant
from dpkit.mechanisms import Mechanism, UnsupportedViewError, repeat
from dpkit.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Accountants = Mapping[str, PrivacyAccountant]
_DELTAS = np.geomspace(1e-2, 1e-12, 21)
_LEAST_RATE = 1e-4
_STEPS = 24
_LEAST_PERCENT = 1e-3


def epsilon_delta(mechanism: Mechanism, accountants: Accountants, *, delta: float | None = None) -> "Figure":
    """Epsilon at every delta by each accountant, and how far above the certified lower bound it is.

    Args:
        mechanism: the whole run.
        accountants: by the name that the legend shall show. Those that have nothing to say about the run are left out.
        delta: is marked, where given; in (0, 1).

    Returns:
        Above, upper bounds on epsilon for delta from 1e-12 to 1e-2, over the band down to the best lower bound; below,
        if any accountant bounds from below, by how many percent each upper bound exceeds the best lower one (at
        least 0.001, for what is exact).

    Raises:
        ValueError: there is no accountant, or `delta` is out of range.
        UnsupportedViewError: no accountant has anything to say about the run.
        ModuleNotFoundError: matplotlib is not installed.

    >>> from dpkit import accounting, mechanisms
    >>> figure = epsilon_delta(mechanisms.Gaussian(2.0), {"PLD": accounting.PldAccountant()}, delta=1e-5)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['epsilon', 'above the\\nlower bound (%)']
    """
    deltas = _DELTAS
    if delta is not None:
        deltas = np.union1d(deltas, validation.probability("delta", delta))[::-1]
    curves = _curves(accountants, lambda accountant: accountant.epsilon(mechanism, delta=deltas))
    drawn, (top, *_) = _bounded_curves(deltas, curves)
    if delta is not None:
        top.axvline(delta, color="grey", linewidth=0.8, label=f"delta = {delta:g}")
        top.legend(frameon=False)
    top.set(xscale="log", title="Epsilon at every delta")
    drawn.axes[-1].set_xlabel("delta")
    return drawn


def steps(step: Mechanism, count: int, accountants: Accountants, *, delta: float, label: str = "steps") -> "Figure":
    """Epsilon of ever longer runs by each accountant, and how far above the certified lower bound it is.

    Args:
        step: one step, as a unit that takes part in it sees it.
        count: the length of the longest run, >= 1.
        accountants: by the name that the legend shall show. Those that have nothing to say about the run are left out.
        delta: of all runs, in [0, 1].
        label: of the horizontal axis.

    Raises:
        ValueError: there is no accountant, `count` is not a positive integer, or `delta` is out of range.
        UnsupportedViewError: no accountant has anything to say about the run.
        ModuleNotFoundError: matplotlib is not installed.

    >>> from dpkit import accounting, mechanisms
    >>> step = mechanisms.PoissonSampled(mechanisms.Gaussian(1.0), sampling_probability=0.01)
    >>> figure = steps(step, 1_000, {"RDP": accounting.RdpAccountant()}, delta=1e-5)
    >>> float(figure.axes[0].lines[0].get_xdata()[-1])
    1000.0
    """
    count = validation.count("count", count, minimum=1)
    counts = np.unique(np.geomspace(1, count, _STEPS).astype(int))
    runs = [repeat(step, int(length)) for length in counts]
    curves = _curves(accountants, lambda accountant: accounting.sweep(runs, accountant, delta=delta))
    drawn, (top, *_) = _bounded_curves(counts.astype(float), curves)
    top.set(xscale="log", ylim=(0, None), title=f"Epsilon as the run goes on, at delta = {delta:g}")
    drawn.axes[-1].set_xlabel(label)
    return drawn


def trade_off(mechanism: Mechanism, accountant: PrivacyAccountant) -> "Figure":
    """The largest true positive rate that any membership test can have at each false positive rate.

    Args:
        mechanism: the whole run.
        accountant: supplies certified deltas.

    Returns:
        The certified upper curve of `dpkit.accounting.trade_off` on linear axes and, for small false positive rates, on
        logarithmic ones. No test is in the shaded region above it.

    Raises:
        UnsupportedViewError: a part of the run lacks the view the accountant needs.
        ModuleNotFoundError: matplotlib is not installed.

    >>> from dpkit import accounting, mechanisms
    >>> figure = trade_off(mechanisms.Gaussian(2.0), accounting.PldAccountant())
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['false positive rate', 'false positive rate']
    """
    drawn = style.figure(2)
    panels = drawn.subplots(1, 2)
    linear, logarithmic = np.linspace(0, 1, 101), np.geomspace(_LEAST_RATE, 1, 101)
    certified = 1 - accounting.trade_off(mechanism, accountant, np.concatenate([linear, logarithmic]))
    for axes, rates, highest in zip(panels, (linear, logarithmic), np.split(certified, 2), strict=True):
        axes.plot(rates, highest, color=style.COLORS[0], label="certified upper bound")
        axes.fill_between(rates, highest, 1, color="0.9", linewidth=0, label="impossible")
        axes.plot(rates, rates, "--", color="dimgrey", label="guessing")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", ylim=(0, 1), xlim=(0, 1))
    panels[0].set_title("Membership tests")
    panels[0].legend(frameon=False, loc="lower right")
    panels[1].set(xscale="log", yscale="log", xlim=(_LEAST_RATE, 1), ylim=(_LEAST_RATE, 1))
    panels[1].set_title("The same where false alarms are rare")
    return drawn


def _curves(
    accountants: Accountants, bounds: Callable[[PrivacyAccountant], Sequence[Bounds]]
) -> dict[str, Sequence[Bounds]]:
    """What each accountant says, by its name."""
    if not accountants:
        raise ValueError("accountants must name at least one, got none")
    found, refusal = {}, None
    for name, accountant in accountants.items():
        try:
            found[name] = bounds(accountant)
        except UnsupportedViewError as error:
            refusal = error
    if not found and refusal is not None:
        raise refusal
    return found


def _bounded_curves(places: Array, curves: Mapping[str, Sequence[Bounds]]) -> "tuple[Figure, Sequence[Axes]]":
    """Upper bounds with the certified band and, below, their excess over the best lower bound where there is one."""
    lower = np.max([[bounds.lower for bounds in curve] for curve in curves.values()], axis=0)
    certified = bool(np.any(lower > 0))
    drawn = style.figure(1, rows=1 + certified)
    heights = (5, 2) if certified else (1,)
    panels = drawn.subplots(1 + certified, 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    best = np.min([[bounds.upper for bounds in curve] for curve in curves.values()], axis=0)
    for (name, curve), line in zip(curves.items(), style.lines(), strict=False):
        upper = np.array([bounds.upper if math.isfinite(bounds.upper) else math.nan for bounds in curve])
        panels[0].plot(places, upper, label=f"{name}, upper bound", **line)
        if certified:
            excess = 100 * (upper / np.where(lower > 0, lower, math.nan) - 1)
            # What is known to rounding would squeeze everything else.
            panels[1].plot(places, np.maximum(excess, _LEAST_PERCENT), **line)
    panels[0].set_ylabel("epsilon")
    if certified:
        panels[0].fill_between(places, lower, best, color=style.COLORS[0], alpha=0.3, label="where the truth lies")
        panels[1].set(yscale="log", ylabel="above the\nlower bound (%)")
    panels[0].legend(frameon=False)
    for axes in panels:
        axes.grid(alpha=0.3)
    return drawn, list(panels)

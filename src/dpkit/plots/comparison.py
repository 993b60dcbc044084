"""Figures of privacy against utility."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dpkit.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dpkit.training.sweep import Outcome

# Beside colours and dashes, of which there are fewer than kinds of mechanisms.
_MARKERS = "os^Dv<>P"
_TICKS = 10
_CLOSE = 1.5


def comparison(by_mechanism: "Mapping[str, Mapping[float, Outcome]]") -> "Figure":
    """The error at every target epsilon, by mechanism, and how close each comes to the best.

    In colour the best of each kind and of each target, in grey those of other bands or buffers.

    Args:
        by_mechanism: what was found, by label and by target epsilon, as `dpkit.training.sweep.by_mechanism` has it.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    drawn = style.figure(3)  # The legend takes what two panels leave.
    absolute, relative = drawn.subplots(1, 2)
    outcomes = [outcome for row in by_mechanism.values() for outcome in row.values()]
    targets = sorted({outcome.target_epsilon for outcome in outcomes})
    least = {target: min(each.rmse for each in outcomes if each.target_epsilon == target) for target in targets}
    best = {label for label, row in by_mechanism.items() if any(row[t].rmse == least[t] for t in row)}
    for label, look in _looks(by_mechanism, best).items():
        row = by_mechanism[label]
        absolute.plot(list(row), [each.rmse for each in row.values()], **look)
        relative.plot(list(row), [each.rmse / least[target] for target, each in row.items()], **look)
    absolute.set(yscale="log", ylabel="rmse of the iterates (clip norms)", title="Error of every mechanism")
    relative.set(ylim=(0.99, _CLOSE), ylabel="rmse over the least", title=f"Within {_CLOSE:g} times the best")
    shown = targets[:: -(-len(targets) // _TICKS)]
    for axes in (absolute, relative):
        axes.set(xscale="log", xlabel=f"certified epsilon at delta = {outcomes[0].delta:g}")
        axes.set_xticks(shown, [f"{target:g}" for target in shown])
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.grid(alpha=0.3)
    # In the order in which the lines end, and beside them.
    handles = sorted(absolute.get_legend_handles_labels()[0], key=lambda line: -line.get_ydata()[-1])
    drawn.legend(handles=handles, loc="outside right center", frameon=False)
    return drawn


def _looks(labels: Iterable[str], best: set[str]) -> dict[str, dict[str, Any]]:
    """How each line is drawn, by label, the grey ones first and so beneath; the first of each kind and the `best`."""
    lines, markers, kinds = style.lines(), itertools.cycle(_MARKERS), set()
    named: dict[str, dict[str, Any]] = {}
    others: dict[str, dict[str, Any]] = {}
    for label in labels:
        kind = re.sub(r" \d+", "", label)
        if kind in kinds and label not in best:
            name = None if others else "other bands and buffers"
            others[label] = {"color": "0.8", "linewidth": 1, "marker": ".", "markersize": 3, "label": name}
        elif kind == "independent":
            named[label] = {"color": "black", "marker": "x", "markersize": 4, "label": label}
        else:
            named[label] = {**next(lines), "marker": next(markers), "markersize": 4, "label": label}
        kinds.add(kind)
    return others | named

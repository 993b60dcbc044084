"""Figures of training runs over seeds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from dpkit.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(values: Mapping[str, ArrayLike], *, metric: str, places: ArrayLike | None = None) -> "Figure":
    """A metric as training goes on, by mechanism: the mean over seeds, in a band from the lowest seed to the highest.

    Args:
        values: (seeds, epochs) of each mechanism, by the name that the legend shall show.
        metric: what the values are, with its unit: the label of the vertical axis.
        places: (epochs,) where they were measured; default: 1, 2, ...

    Raises:
        ValueError: the values are not a matrix, or have another number of columns than `places`.
        ModuleNotFoundError: matplotlib is not installed.

    >>> figure = training_curves({"tree": [[61, 75, 80], [63, 74, 82]]}, metric="test accuracy (%)")
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [62.0, 74.5, 81.0]
    """
    drawn = style.figure(1)
    axes = drawn.subplots()
    seeds = set()
    for (name, given), line in zip(values.items(), style.lines(), strict=False):
        table = np.asarray(given, dtype=float)
        if table.ndim != 2 or not table.size:
            raise ValueError(f"values[{name!r}] must be a matrix with a row for each seed, got shape {table.shape}")
        x = np.arange(1, table.shape[1] + 1) if places is None else np.asarray(places, dtype=float)
        if x.shape != (table.shape[1],):
            raise ValueError(f"places must name the {table.shape[1]} columns of values[{name!r}], got shape {x.shape}")
        axes.plot(x, table.mean(axis=0), label=name, **line)
        axes.fill_between(x, table.min(axis=0), table.max(axis=0), color=line["color"], alpha=0.15, linewidth=0)
        seeds.add(len(table))
    axes.set(xlabel="epoch", ylabel=metric)
    axes.locator_params(axis="x", integer=True)
    counts = " or ".join(str(count) for count in sorted(seeds))
    axes.legend(frameon=False, title=f"mean and range of {counts} seeds" if seeds != {1} else None)
    axes.grid(alpha=0.3)
    return drawn

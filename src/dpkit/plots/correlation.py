"""Figures of correlated noise: the errors that strategies leave, and their matrices."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dpkit.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dpkit.factorization import ParticipationSchema, Strategy, Workload

_LAGS = 128
_COLUMNS_OF = 4_096


def errors(strategies: "Mapping[str, Strategy]", workload: "Workload", schema: "ParticipationSchema") -> "Figure":
    """The error of every query at noise multiplier 1, with several strategies.

    Args:
        strategies: by the name that the legend shall show, which adds the root mean square over the queries.
        workload: whose queries' errors are drawn, (n,) for the n iterations of `schema`.
        schema: how units take part; sets the sensitivity.

    Raises:
        ValueError: a strategy cannot be had for such a run.
        ModuleNotFoundError: matplotlib is not installed.

    >>> from dpkit import factorization as fz
    >>> shown = {"independent": fz.Identity(), "tree": fz.Tree(iterations=64)}
    >>> figure = errors(shown, fz.prefix_sum(), fz.MinSep(iterations=64, min_sep=16))
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['independent: rms 11.4', 'tree: rms 9.16']
    """
    drawn = style.figure(1)
    _draw_errors(drawn.subplots(), strategies, workload, schema)
    return drawn


def strategy(strategy: "Strategy", workload: "Workload", schema: "ParticipationSchema") -> "Figure":
    """The error of every query at noise multiplier 1, beside that of independent noise, and columns of C.

    Args:
        strategy: with its coefficients.
        workload: whose queries' errors are drawn, (n,) for the n iterations of `schema`.
        schema: how units take part; sets the sensitivity.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    >>> from dpkit import factorization as fz
    >>> figure = strategy(fz.BandedSquareRoot(num_bands=4), fz.prefix_sum(), fz.MinSep(iterations=64, min_sep=16))
    >>> figure.axes[1].get_title()
    'Columns of the strategy matrix'
    """
    from dpkit.factorization import Identity

    drawn = style.figure(2)
    left, columns = drawn.subplots(1, 2)
    _draw_errors(left, {"independent noise": Identity(), type(strategy).__name__: strategy}, workload, schema)
    m = min(schema.iterations, _COLUMNS_OF)
    C = strategy.matrix(m)
    for step, line in zip(sorted({0, m // 3, 2 * m // 3}), style.lines(), strict=False):
        # A tree has more rows than steps, so each column is drawn from its first entry on.
        column = np.trim_zeros(C[:, step])[:_LAGS]
        columns.plot(column, marker="." if len(column) < 16 else None, label=f"column {step}", **line)
    columns.set_ylim(bottom=min(0.0, float(np.min(C))))
    columns.set(xlabel="rows below its first entry", ylabel="entry of C", title="Columns of the strategy matrix")
    columns.legend(frameon=False)
    return drawn


def heat_map(strategy: "Strategy", iterations: int) -> "Figure":
    """The strategy matrix C and its inverse, which mixes the noise: row t of the second makes the noise of step t.

    Args:
        strategy: with its coefficients.
        iterations: n, how many steps are shown, at most 1,024: columns of C, rows of its inverse.

    Raises:
        ValueError: the strategy is not fitted, or `iterations` is out of range.
        ModuleNotFoundError: matplotlib is not installed.

    >>> from dpkit import factorization as fz
    >>> figure = heat_map(fz.SquareRoot(), 64)
    >>> figure.axes[0].images[0].get_array().shape
    (64, 64)
    """
    from dpkit import validation

    if validation.count("iterations", iterations, minimum=1) > 1_024:
        raise ValueError(f"iterations must be <= 1024 to be told apart in a picture, got {iterations}; show the first")
    drawn = style.figure(2)
    C = strategy.matrix(iterations)
    pictures = (
        (C, "Strategy matrix $C$", "step", "row"),
        (strategy.inverse_matrix(iterations), "Its inverse: weights of the draws", "draw", "step"),
    )
    from matplotlib.colors import Normalize, SymLogNorm

    for axes, (matrix, title, xlabel, ylabel) in zip(drawn.subplots(1, 2), pictures, strict=True):
        largest = float(np.max(np.abs(matrix)))
        if np.min(matrix) < 0:
            # Entries far from the diagonal are small, and matter together: logarithmic from a hundredth of the largest.
            colors, scale = "PuOr_r", SymLogNorm(linthresh=largest / 100, vmin=-largest, vmax=largest)
        else:
            colors, scale = "cividis_r", Normalize(0, largest)
        aspect = "equal" if matrix.shape[0] == matrix.shape[1] else "auto"
        # Zeros stay white.
        entries = np.where(matrix == 0, np.nan, matrix)
        shown = axes.imshow(entries, cmap=colors, norm=scale, aspect=aspect, interpolation="nearest")
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        drawn.colorbar(shown, ax=axes, label="entry")
    return drawn


def _draw_errors(
    axes: "Axes", strategies: "Mapping[str, Strategy]", workload: "Workload", schema: "ParticipationSchema"
) -> None:
    n = schema.iterations
    for (name, shown), line in zip(strategies.items(), style.lines(), strict=False):
        standard = shown.sensitivity(schema) * shown.per_query_error(workload, n)
        label = f"{name}: rms {np.sqrt(np.mean(standard**2)):.3g}"
        axes.plot(np.arange(1, n + 1), standard, label=label, linewidth=1.2, **line)
    axes.set(xlabel="step", ylabel="standard deviation (clip norms)", title="Error at noise multiplier 1")
    axes.set_ylim(bottom=0)
    # Below, because curves of errors leave no corner free.
    axes.legend(frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))

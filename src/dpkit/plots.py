"""Figures, drawn with matplotlib: `pip install "dpkit[plot]"`."""

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dpkit.factorization import ParticipationSchema, Strategy, Workload

# Okabe and Ito (2008): told apart under every common form of colour blindness, and in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LAGS = 128
_COLUMNS_OF = 4_096


def strategy(strategy: "Strategy", workload: "Workload", schema: "ParticipationSchema") -> "Figure":
    """The error of every query at noise multiplier 1, beside that of independent noise, and columns of C.

    Args:
        strategy: with its coefficients.
        workload: whose queries' errors are drawn, (n,) for the n iterations of `schema`.
        schema: how units take part; sets the sensitivity.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from dpkit.factorization import Identity

    n = schema.iterations
    figure = _figure(2)
    errors, columns = figure.subplots(1, 2)
    for shown, color, line, label in (
        (Identity(), COLORS[1], "--", "independent noise"),
        (strategy, COLORS[0], "-", type(strategy).__name__),
    ):
        standard = shown.sensitivity(schema) * shown.per_query_error(workload, n)
        errors.plot(np.arange(1, n + 1), standard, line, color=color, label=label)
    errors.set(xlabel="step", ylabel="standard deviation of the error", title="Error at noise multiplier 1")
    errors.set_ylim(bottom=0)
    errors.legend(frameon=False)
    m = min(n, _COLUMNS_OF)
    C = strategy.matrix(m)
    for step, color in zip(sorted({0, m // 3, 2 * m // 3}), COLORS, strict=False):
        # A tree has more rows than steps, so each column is drawn from its first entry on.
        column = np.trim_zeros(C[:, step])[:_LAGS]
        columns.plot(column, ".-" if len(column) < 16 else "-", color=color, label=f"column {step}")
    columns.set_ylim(bottom=min(0.0, float(np.min(C))))
    columns.set(xlabel="rows below its first entry", ylabel="entry of C", title="Columns of the strategy matrix")
    columns.legend(frameon=False)
    return figure


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Writes a figure; the suffix of `path` (.png, .svg or .pdf) says how.

    Raises:
        ValueError: the suffix is another one.
        OSError: the file cannot be written.
    """
    check_path(path)
    figure.savefig(path, dpi=160)


def check_path(path: str | os.PathLike[str]) -> None:
    """`ValueError` unless `save` can write such a kind of file; before long work, not after it."""
    if not str(path).endswith((".png", ".svg", ".pdf")):
        raise ValueError(f"a plot is written to a .png, .svg or .pdf file, got {path}")


def _figure(panels: int) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError('figures need matplotlib; run pip install "dpkit[plot]"') from None
    return Figure(figsize=(5.2 * panels, 3.8), layout="constrained")

"""What all figures share: colours, lines, and how they reach a file."""

import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart under every common form of colour blindness, and in print.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Beside the colours, for those who print without any.
LINES = ("-", "--", "-.", ":", (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)))


def figure(columns: float, rows: int = 1) -> "Figure":
    """An empty figure of so many panels; a fraction of one more is room for a legend.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError('figures need matplotlib; run pip install "dpkit[plot]"') from None
    return Figure(figsize=(5.2 * columns, 3.8 + 1.6 * (rows - 1)), layout="constrained")


def lines() -> Iterator[dict[str, Any]]:
    """Colour and dashes of one curve after the other."""
    return ({"color": color, "linestyle": line} for color, line in itertools.cycle(zip(COLORS, LINES, strict=True)))


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Writes a figure; the suffix of `path` (.png, .svg or .pdf) says how. The same figure gives the same bytes.

    Raises:
        ValueError: the suffix is another one.
        OSError: the file cannot be written.

    >>> import pathlib, tempfile
    >>> from dpkit import factorization as fz, plots
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "matrix.png"
    ...     save(plots.heat_map(fz.SquareRoot(), 64), path)
    ...     path.stat().st_size > 10_000
    True
    """
    check_path(path)
    from matplotlib import rc_context

    date = {".png": None, ".svg": "Date", ".pdf": "CreationDate"}[str(path)[-4:]]
    with rc_context({"svg.hashsalt": "dpkit"}):
        figure.savefig(path, dpi=160, metadata={date: None} if date else None)


def check_path(path: str | os.PathLike[str]) -> None:
    """`ValueError` unless `save` can write such a kind of file; before long work, not after it."""
    if not str(path).endswith((".png", ".svg", ".pdf")):
        raise ValueError(f"a plot is written to a .png, .svg or .pdf file, got {path}")

"""Figures, drawn with matplotlib: `pip install "dpkit[plot]"`.

Every function returns a `matplotlib.figure.Figure`, to be saved, shown in a notebook or drawn upon.
"""

from dpkit.plots.comparison import comparison
from dpkit.plots.correlation import errors, heat_map, strategy
from dpkit.plots.curves import training_curves
from dpkit.plots.privacy import epsilon_delta, steps, trade_off
from dpkit.plots.style import COLORS, check_path, save

__all__ = [
    "COLORS",
    "check_path",
    "comparison",
    "epsilon_delta",
    "errors",
    "heat_map",
    "save",
    "steps",
    "strategy",
    "trade_off",
    "training_curves",
]

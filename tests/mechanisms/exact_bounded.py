"""Releases into a box in mpmath alone, from their definitions; in units of the noise, the box being [0, width]."""

from collections.abc import Callable
from typing import Any

from mechanisms.exact import mp


def interval(low: Any, high: Any) -> Any:
    """N(0, 1) of [low, high]; tails keep their digits on the lighter side."""
    if low > 0:
        low, high = -high, -low
    return (mp.erfc(-high / mp.sqrt(2)) - mp.erfc(-low / mp.sqrt(2))) / 2


def log_interval(low: Any, high: Any) -> Any:
    return mp.log(interval(low, high))


def exactly(function: Callable[..., Any], *arguments: float, digits: int = 80) -> Any:
    """`function` of the arguments' exact values; a divergence of 10^-k needs more than k digits."""
    with mp.workdps(digits):
        return function(*(mp.mpf(x) for x in arguments))


def truncated_renyi(order: Any, first: Any, second: Any, width: Any) -> Any:
    """log of the integral of p^order q^(1 - order), p and q normal densities over their masses of the box."""
    middle = order * first + (1 - order) * second
    logs = [log_interval(-c, width - c) for c in (middle, first, second)]
    gained = order * (order - 1) * (first - second) ** 2 / 2
    return (gained + logs[0] - order * logs[1] - (1 - order) * logs[2]) / (order - 1)


def rectified_renyi(order: Any, first: Any, second: Any, width: Any) -> Any:
    middle = order * first + (1 - order) * second
    inside = mp.exp(order * (order - 1) * (first - second) ** 2 / 2) * interval(-middle, width - middle)
    below = mp.ncdf(-first) ** order * mp.ncdf(-second) ** (1 - order)
    above = mp.ncdf(first - width) ** order * mp.ncdf(second - width) ** (1 - order)
    return mp.log(inside + below + above) / (order - 1)


def truncated_profile(epsilon: Any, first: Any, second: Any, width: Any) -> Any:
    """P - e^epsilon Q over the part of the box where p > e^epsilon q."""
    scale = [1 / interval(-c, width - c) for c in (first, second)]
    edge = (first + second) / 2 + (epsilon - mp.log(scale[0] / scale[1])) / (first - second)
    low, high = (max(edge, 0), width) if first > second else (mp.zero, min(edge, width))
    if low >= high:
        return mp.zero
    p, q = (s * interval(low - c, high - c) for s, c in zip(scale, (first, second), strict=True))
    return p - mp.exp(epsilon) * q


def rectified_profile(epsilon: Any, first: Any, second: Any, width: Any) -> Any:
    """The same, each atom where it counts."""
    edge = (first + second) / 2 + epsilon / (first - second)
    low, high = (max(edge, 0), width) if first > second else (mp.zero, min(edge, width))
    parts = [(interval(low - first, high - first), interval(low - second, high - second))] if low < high else []
    parts += [(mp.ncdf(-first), mp.ncdf(-second)), (mp.ncdf(first - width), mp.ncdf(second - width))]
    return mp.fsum(max(p - mp.exp(epsilon) * q, 0) for p, q in parts)

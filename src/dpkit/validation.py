"""Argument checks whose messages name the argument, its value and the remedy."""

import math
import numbers
from typing import SupportsFloat


def real(name: str, value: SupportsFloat) -> float:
    """`value` as a finite float, or `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real | SupportsFloat) or isinstance(value, str):
        raise ValueError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if math.isnan(number) or math.isinf(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def non_negative(name: str, value: SupportsFloat) -> float:
    number = real(name, value)
    if number < 0:
        raise ValueError(f"{name} must be >= 0, got {number}")
    return number


def positive(name: str, value: SupportsFloat) -> float:
    number = real(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be > 0, got {number}")
    return number


def probability(name: str, value: SupportsFloat) -> float:
    number = real(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be a probability in [0, 1], got {number}")
    return number


def count(name: str, value: int, minimum: int = 0) -> int:
    """`value` as an int: 14_040 and numpy integers pass, 2.5 and 14_040.0 do not."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be an integer, got {value!r}; round it explicitly if that is what you mean")
    if value < minimum:
        raise ValueError(f"{name} must be >= {minimum}, got {value}")
    return int(value)

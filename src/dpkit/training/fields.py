"""Checks of single config values. Each takes what the file says and returns what the program uses, or raises."""

import decimal
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, InstanceOf

from dpkit.relations import NeighboringRelation
from dpkit.training.kinds import KINDS
from dpkit.training.problems import nearest

# Beyond this a count of people or steps is a typing error, and float64 no longer holds it.
_LARGEST_COUNT = 2**53

UNITS = ("example", "user", "device", "provider")
STRATEGIES = (
    "identity",
    "tree",
    "banded",
    "banded_toeplitz",
    "blt",
    "square_root",
    "banded_square_root",
    "banded_inverse_square_root",
    "dense",
)
ACCOUNTANTS = ("pld", "rdp", "zcdp", "monte_carlo")
SAMPLERS = ("poisson", "fixed_size", "cyclic_poisson", "balls_in_bins", "shuffle", "full_batch", "min_sep")


def finite(value: Any) -> float:
    """A finite float: what TOML calls an integer or a float, never a truth value or text."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | Fraction):
        raise ValueError("must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


def non_negative(value: Any) -> float:
    number = finite(value)
    if number < 0:
        raise ValueError("must be >= 0")
    return number


def positive(value: Any) -> float:
    number = finite(value)
    if number <= 0:
        raise ValueError("must be > 0")
    return number


def interval(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be a list of two numbers")
    return finite(value[0]), finite(value[1])


def switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def momentum(value: Any) -> float:
    number = non_negative(value)
    if number >= 1:
        raise ValueError("must be < 1")
    return number


def share(value: Any) -> float:
    number = non_negative(value)
    if number > 1:
        raise ValueError("must lie between 0 and 1")
    return number


def open_probability(value: Any) -> float:
    number = finite(value)
    if not 0 < number < 1:
        raise ValueError("must lie strictly between 0 and 1")
    return number


def whole(value: Any) -> int:
    """A positive integer; 60000.0 is refused because a file that says so was probably computed."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    if value < 1:
        raise ValueError("must be >= 1")
    if value > _LARGEST_COUNT:
        raise ValueError(f"must be <= 2^53 = {_LARGEST_COUNT:,}")
    return value


def natural(value: Any) -> int:
    """A positive integer or 0."""
    if isinstance(value, int) and value < 0:
        raise ValueError("must be >= 0")
    return 0 if value == 0 and not isinstance(value, bool | float) else whole(value)


def exact(value: Any) -> Fraction:
    """A positive number without rounding: the 0.1 of a file, or of Python, is one tenth."""
    number = positive(value)
    if not 1e-9 <= number <= 1e9:
        raise ValueError("must lie between 1e-9 and 1e9")
    return Fraction(repr(float(value))) if isinstance(value, float) else Fraction(value)


def free_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be non-empty text")
    return " ".join(value.split())


def one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if isinstance(value, str) and value in names:
            return str(value)
        meant = nearest(value, names) if isinstance(value, str) else None
        raise ValueError(f"must be one of {', '.join(names)}" + (f" (did you mean {meant}?)" if meant else ""))

    return check


def relation(value: Any) -> NeighboringRelation:
    return NeighboringRelation(one_of(tuple(NeighboringRelation))(value))


def toml_float(text: str) -> Decimal:
    """A TOML float without rounding; an exponent beyond Decimal's own becomes infinite or zero."""
    try:
        return Decimal(text)
    except decimal.InvalidOperation:
        return Decimal(repr(float(text)))


def plain(number: Fraction) -> str:
    """`number` as a decimal where it has one, otherwise as a fraction.

    >>> plain(Fraction("0.1")), plain(Fraction(60)), plain(Fraction(1, 3))
    ('0.1', '60', '1/3')
    """
    with localcontext(prec=40):
        decimal = Decimal(number.numerator) / Decimal(number.denominator)
    return format(decimal.normalize(), "f") if Fraction(decimal) == number else str(number)


Natural = Annotated[int, BeforeValidator(natural)]
Whole = Annotated[int, BeforeValidator(whole)]
Exact = Annotated[InstanceOf[Fraction], BeforeValidator(exact)]
Positive = Annotated[float, BeforeValidator(positive)]
NonNegative = Annotated[float, BeforeValidator(non_negative)]
Real = Annotated[float, BeforeValidator(finite)]
Interval = Annotated[tuple[float, float], BeforeValidator(interval)]
Delta = Annotated[float, BeforeValidator(open_probability)]
Momentum = Annotated[float, BeforeValidator(momentum)]
Share = Annotated[float, BeforeValidator(share)]
Text = Annotated[str, BeforeValidator(free_text)]
Unit = Annotated[str, BeforeValidator(one_of(UNITS))]
Kind = Annotated[str, BeforeValidator(one_of(tuple(KINDS)))]
Switch = Annotated[bool, BeforeValidator(switch)]
Strategy = Annotated[str, BeforeValidator(one_of(STRATEGIES))]
ColumnNorms = Annotated[str, BeforeValidator(one_of(("optimal", "equal")))]
Objective = Annotated[str, BeforeValidator(one_of(("rmse", "max_error")))]
Accountant = Annotated[str, BeforeValidator(one_of(ACCOUNTANTS))]
Sampler = Annotated[str, BeforeValidator(one_of(SAMPLERS))]
Relation = Annotated[InstanceOf[NeighboringRelation], BeforeValidator(relation)]

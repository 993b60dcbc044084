"""Frozen values that hold arrays."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# The squares of coefficients between these moduli, and sums of them, are far from underflow and overflow.
_LEAST, _LARGEST = 1e-100, 1e100


class ByValue:
    """Equality and hash by type and fields, arrays included; for dataclasses with `eq=False`."""

    def _identity(self) -> tuple[Any, ...]:
        fields = (getattr(self, field.name) for field in dataclasses.fields(self))  # pyright: ignore[reportArgumentType]
        return type(self), *((f.shape, f.tobytes()) if isinstance(f, np.ndarray) else f for f in fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByValue) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


def frozen_array(name: str, value: ArrayLike, ndim: int = 1) -> Array:
    """A read-only float64 copy of `value`, or `ValueError` unless it is finite, not empty and has `ndim` axes."""
    array = np.array(value, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} must be an array with {ndim} axes and at least one entry, got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    # Negative zeros would make equal values unequal.
    array += 0.0
    array.setflags(write=False)
    return array


def check_scale(name: str, coefficients: Array) -> None:
    """`ValueError` unless C, whose first entry is the first of `coefficients`, has squares that floats can hold.

    A sensitivity is at least the first entry, which is in every leading block; were its square to underflow, so might
    the sensitivity.
    """
    first, largest = abs(coefficients.flat[0]), np.max(np.abs(coefficients))
    if first < _LEAST or largest > _LARGEST:
        raise ValueError(
            f"{name} must begin with a number of modulus >= {_LEAST} and have none > {_LARGEST}, got {first} and "
            f"{largest}; rescale: all multiples of C have the same error"
        )

"""A limited-memory quasi-Newton method for functions that are finite only on part of the space."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from dpkit.factorization.values import Array

_HISTORY = 4
_RESCALED_EVERY = 8
_STALLED_AFTER = 30


@dataclasses.dataclass(frozen=True)
class Point:
    """A point x, with the value and the gradient of a function there."""

    x: Array
    value: float
    gradient: Array


SomePoint = TypeVar("SomePoint", bound=Point)


def descend(
    evaluate: Callable[[Array], SomePoint | None], point: SomePoint, precondition: Callable[[Array], Array]
) -> Iterator[SomePoint]:
    """Limited-memory BFGS: yields points of ever lower value until no step lowers it any more.

    `evaluate` makes the point at an x, or None where the function is not finite: such a trial is rejected like one that
    is too long. `precondition` applies an approximate inverse Hessian. Steps satisfy the weak Wolfe conditions.
    """
    steps: list[tuple[Array, Array, float]] = []
    scale, count = 1.0, 0
    values = collections.deque([math.inf], maxlen=_STALLED_AFTER)
    while np.any(point.gradient) and values[0] - point.value > 1e-14:
        values.append(point.value)
        new = _line_search(evaluate, point, _direction(point, steps, precondition, scale))
        if new is None:
            if not steps:
                return
            steps = []
            continue
        s, y = new.x - point.x, new.gradient - point.gradient
        if (curvature := dot(s, y)) > 0:
            steps = [*steps[-_HISTORY + 1 :], (s, y, 1 / curvature)]
            # The preconditioner costs half as much as the function, and its scale settles soon.
            if count < _RESCALED_EVERY or count % _RESCALED_EVERY == 0:
                scale = curvature / dot(y, precondition(y))
            count += 1
        point = new
        yield point


def _direction(
    point: Point, steps: list[tuple[Array, Array, float]], precondition: Callable[[Array], Array], scale: float
) -> Array:
    q = -point.gradient
    if not steps:
        # One per cent of the length of x: a unit step along the gradient may leave where the function is finite.
        q = precondition(q)
        return q * (0.01 * float(np.linalg.norm(point.x)) / float(np.linalg.norm(q)))
    saved = []
    for s, y, r in reversed(steps):
        saved.append(r * dot(s, q))
        q -= saved[-1] * y
    q = precondition(q) * scale
    for (s, y, r), a in zip(steps, reversed(saved), strict=True):
        q += (a - r * dot(y, q)) * s
    return q


def dot(a: Array, b: Array) -> float:
    """a @ b without BLAS, whose threads wait for one another on a busy machine longer than the product takes."""
    return float(np.einsum("i,i", a, b))


def _line_search(evaluate: Callable[[Array], SomePoint | None], point: SomePoint, direction: Array) -> SomePoint | None:
    slope = dot(point.gradient, direction)
    short, long, length = 0.0, math.inf, 1.0
    lower = None
    for _ in range(30):
        trial = evaluate(point.x + length * direction)
        if trial is None or not trial.value <= point.value + 1e-4 * length * slope:
            long = length
        elif dot(trial.gradient, direction) < 0.9 * slope:
            short, lower = length, trial
        else:
            return trial
        length = (short + long) / 2 if math.isfinite(long) else 2 * length
    return lower

"""The column norms that a banded strategy may have under a participation schema."""

import abc
import dataclasses
from typing import Literal

import numpy as np

from dpkit.factorization.participation import FixedEpoch, ParticipationSchema
from dpkit.factorization.values import Array

ColumnNorms = Literal["optimal", "equal"]


class NormSet(abc.ABC):
    """The squared column norms d (n,) whose sum over a participation pattern is nowhere above k = max_participations.

    d is parametrised without constraints by numbers v, of any scale, so that a quasi-Newton method can move it.
    """

    @abc.abstractmethod
    def start(self, squared_norms: Array) -> Array:
        """A v for norms close to those given, away from the stationary points at the boundary."""

    @abc.abstractmethod
    def squared_norms(self, v: Array) -> Array:
        """d (n,), all positive."""

    @abc.abstractmethod
    def pullback(self, v: Array, gradient: Array) -> Array:
        """The gradient with respect to v of a function whose gradient with respect to d is `gradient` (n,)."""

    @abc.abstractmethod
    def largest(self, weights: Array) -> float:
        """The maximum of weights @ d over the set, for weights (n,) >= 0."""


def norm_set(column_norms: ColumnNorms, schema: ParticipationSchema) -> NormSet:
    """The norms that `column_norms` permits under `schema`; with one participation d = 1 is best of all."""
    if column_norms == "equal" or schema.max_participations == 1:
        return UnitNorms(schema.iterations)
    if isinstance(schema, FixedEpoch):
        return EpochNorms(schema.epochs)
    return WindowNorms(schema.iterations, schema.min_sep, schema.max_participations)


@dataclasses.dataclass(frozen=True)
class UnitNorms(NormSet):
    """Only d = 1."""

    iterations: int

    def start(self, squared_norms: Array) -> Array:  # noqa: ARG002
        return np.zeros(0)

    def squared_norms(self, v: Array) -> Array:  # noqa: ARG002
        return np.ones(self.iterations)

    def pullback(self, v: Array, gradient: Array) -> Array:  # noqa: ARG002
        return np.zeros(0)

    def largest(self, weights: Array) -> float:
        return float(np.sum(weights))


@dataclasses.dataclass(frozen=True)
class EpochNorms(NormSet):
    """`FixedEpoch`: the patterns are the residue classes modulo n / k, disjoint, so each class has a k of its own."""

    epochs: int

    def start(self, squared_norms: Array) -> Array:
        return np.sqrt(squared_norms)

    def squared_norms(self, v: Array) -> Array:
        u = v.reshape(self.epochs, -1) ** 2
        return (self.epochs * u / np.sum(u, axis=0)).ravel()

    def pullback(self, v: Array, gradient: Array) -> Array:
        v, g = v.reshape(self.epochs, -1), gradient.reshape(self.epochs, -1)
        total = np.sum(v**2, axis=0)
        return (2 * self.epochs * v / total * (g - np.sum(g * v**2, axis=0) / total)).ravel()

    def largest(self, weights: Array) -> float:
        return float(self.epochs * np.sum(np.max(weights.reshape(self.epochs, -1), axis=0)))


@dataclasses.dataclass(frozen=True)
class WindowNorms(NormSet):
    """`MinSep`: d_i = u_i + ... + u_{i+b-1} + w with u, w >= 0 and sum(u) + k w = k; b = min_sep, and u ends at n - 1.

    Sufficient: steps of a pattern are b apart, so their windows [i, i + b) are disjoint, and the sum of d over at most
    k steps is at most sum(u) + k w. Necessary, for the largest d: the pattern polytope {y >= 0, every b consecutive y
    sum to <= 1, all of y to <= k} has an interval matrix, which is totally unimodular, so its vertices are patterns;
    by linear programming duality max d.y <= k over it exactly if u and w with d_i <= u_i + ... + u_{i+b-1} + w exist.
    Entry n of v belongs to w.
    """

    iterations: int
    min_sep: int
    max_participations: int

    def start(self, squared_norms: Array) -> Array:
        # V[i], the largest pattern sum from step i on with no limit on k, has d_i <= V[i] - V[i + b]; u is its descent.
        n, b = self.iterations, self.min_sep
        V = [0.0] * (n + b)
        for i in range(n - 1, -1, -1):
            V[i] = max(V[i + 1], squared_norms[i] + V[i + b])
        u = -np.diff(V)[:n]
        return np.sqrt(np.append(u, 0.0) + 0.09 * np.mean(squared_norms))

    def squared_norms(self, v: Array) -> Array:
        u, k = v * v, self.max_participations
        return k * (u[-1] + self._window_sums(u[:-1])) / (np.sum(u[:-1]) + k * u[-1])

    def pullback(self, v: Array, gradient: Array) -> Array:
        u, k = v * v, self.max_participations
        costs = np.append(np.ones(self.iterations), k)
        inner = gradient @ (u[-1] + self._window_sums(u[:-1]))
        return 2 * k * v / (costs @ u) * (self._shares(gradient) - costs * inner / (costs @ u))

    def largest(self, weights: Array) -> float:
        # A linear function on a simplex is largest at a vertex: one entry of u, or w.
        shares, k = self._shares(weights), self.max_participations
        return float(max(k * np.max(shares[:-1]), shares[-1]))

    def _window_sums(self, u: Array) -> Array:
        """u_i + ... + u_{i+b-1} (n,); from sums over blocks of b, so that large entries elsewhere cost no digits."""
        b = self.min_sep
        blocks = np.append(u, np.zeros(-len(u) % b + b)).reshape(-1, b)
        tails = np.cumsum(blocks[:, ::-1], axis=1)[:, ::-1]
        heads = np.cumsum(blocks, axis=1) - blocks
        return (tails[:-1] + heads[1:]).ravel()[: len(u)]

    def _shares(self, weights: Array) -> Array:
        """(n + 1,): what a unit of each u_j, and of w, adds to weights @ d before scaling: sums of b weights to j."""
        return np.append(self._window_sums(weights[::-1])[::-1], np.sum(weights))

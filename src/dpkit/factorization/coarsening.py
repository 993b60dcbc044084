"""Shorter runs that look like a long one, to begin the search for a banded strategy with."""

import dataclasses

import numpy as np

from dpkit.factorization.participation import FixedEpoch, MinSep, ParticipationSchema, SingleParticipation
from dpkit.factorization.values import Array

_FEWEST_BLOCKS = 12


@dataclasses.dataclass(frozen=True)
class Coarsening:
    """A run of about half the steps. It makes nothing but a start, so nothing depends on how alike the two runs are.

    Optimal strategies repeat themselves every num_bands steps, least regularly near the ends of the run and of each
    epoch. So whole blocks of num_bands steps are left out, most from the middle of an epoch, and a step lies between
    steps of the same place within their blocks.

    Args:
        schema: how units take part in the shorter run.
        steps: (m,), for each step of the shorter run one that it stands for.
        before: (n,), the step of the shorter run that a step follows, or equals.
        fractions: (n,), in [0, 1), how far it has gone from there to the step num_bands later.
        num_bands: length of a block.
    """

    schema: ParticipationSchema
    steps: np.ndarray
    before: np.ndarray
    fractions: Array
    num_bands: int

    def prolong(self, values: Array) -> Array:
        """Values (m, ...) of the shorter run's steps, interpolated to (n, ...)."""
        after = np.minimum(self.before + self.num_bands, len(values) - 1)
        fractions = self.fractions.reshape(-1, *[1] * (values.ndim - 1))
        return (1 - fractions) * values[self.before] + fractions * values[after]

    def prolong_weights(self, weights: Array) -> Array:
        """The same for weights that sum to 1, and do so again: a step shares its weight with those it stands for."""
        spread = self.prolong(weights / np.maximum(np.bincount(self.before, minlength=len(weights)), 1))
        return spread / np.sum(spread)


def halved(schema: ParticipationSchema, num_bands: int) -> Coarsening | None:
    """A run of half the blocks in each epoch, or None where that would leave too few."""
    n, b = schema.iterations, num_bands
    if schema.max_participations == 1:
        schema = SingleParticipation(n)
    left_out = schema.min_sep // b // 2
    if schema.min_sep // b < _FEWEST_BLOCKS:
        return None
    epochs, m = [], 0
    for start in range(0, n, schema.min_sep):
        length = min(schema.min_sep, n - start)
        fewer = min(left_out, length // b // 2)
        epochs.append(_epoch(length, fewer, b, start, m))
        m += length - fewer * b
    steps, before, fractions = (np.concatenate(parts) for parts in zip(*epochs, strict=True))
    return Coarsening(_shortened(schema, m, schema.min_sep - left_out * b), steps, before, fractions, b)


def _epoch(length: int, fewer: int, b: int, start: int, short_start: int) -> tuple[Array, Array, Array]:
    """(steps, before, fractions) of one epoch, `fewer` of whose blocks are left out."""
    blocks = length // b - fewer
    place = np.arange(blocks + 1)
    x = place / max(blocks, 1)
    # Where the blocks of the shorter epoch lie in the longer one: at the ends no block is left out.
    positions = place + fewer * x * x * (3 - 2 * x)
    block, within = np.divmod(np.arange(length - fewer * b), b)
    steps = start + np.floor(positions[block] + 1e-9).astype(int) * b + within
    block, within = np.divmod(np.arange(length), b)
    exact = np.interp(block, positions, place)
    before = np.floor(exact + 1e-9).astype(int)
    inside = (before + 1) * b + within < length - fewer * b
    fractions = np.where(inside, np.clip(exact - before, 0, 1), 0.0)
    return steps, short_start + before * b + within, fractions


def _shortened(schema: ParticipationSchema, iterations: int, min_sep: int) -> ParticipationSchema:
    if isinstance(schema, FixedEpoch):
        return FixedEpoch(iterations, schema.epochs)
    if isinstance(schema, SingleParticipation):
        return SingleParticipation(iterations)
    return MinSep(iterations, min_sep, schema.max_participations)

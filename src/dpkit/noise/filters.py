"""From fresh noise z to correlated noise x = C^{-1} z, one pure filter per form of strategy.

A filter sees one array of the parameters at a time. What it keeps between steps is one array (copies, *shape); of the
randomness it knows only `draw`, a function from a step to that step's z. Sums are kept in the dtype of z.
"""

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dpkit.factorization import forms

F = TypeVar("F", bound=forms.Form)
B = TypeVar("B", forms.PastOutputs, forms.PastInputs)
Draw = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Filter(Generic[F]):
    """One form's arithmetic.

    Args:
        form: the coefficients.
        dtype: of x and of what is kept.
        work: of the sums, and of what `draw` returns.
    """

    form: F
    dtype: jnp.dtype
    work: jnp.dtype

    @property
    def copies(self) -> int:
        return self.form.copies

    def step(self, kept: jax.Array, t: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
        """(x_t, what is kept next); kept (copies, *shape), zeros at t = 0."""
        raise NotImplementedError

    def block(self, kept: jax.Array, t: jax.Array, count: int, draw: Draw) -> tuple[jax.Array, jax.Array]:
        """((count, *shape) x_t, x_{t+1}, ..., what is kept next)."""

        def body(kept: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
            x, kept = self.step(kept, s, draw)
            return kept, x

        kept, rows = lax.scan(body, kept, t + jnp.arange(count, dtype=jnp.int32))
        return rows, kept

    def _product(self, weights: jax.Array | np.ndarray, rows: jax.Array) -> jax.Array:
        # No reshaping of the parameters' axes, which could be sharded, and no TensorFloat32.
        weights = jnp.asarray(weights, self.work)
        return jnp.tensordot(weights, rows.astype(self.work), axes=1, precision=lax.Precision.HIGHEST)


class WhiteFilter(Filter[forms.White]):
    def step(self, kept: jax.Array, t: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
        return draw(t).astype(self.dtype), kept


class BandsFilter(Filter[B]):
    """Row t of the coefficients meets a ring: slot t mod copies is the oldest, and the one that step t overwrites.

    No copy is ever shifted; the coefficients are rotated instead.
    """

    def _rows(self, t: jax.Array, count: int) -> jax.Array:
        """(count, bands) from step t on; steps past the last, which hand out no noise, repeat its row."""
        table = jnp.asarray(self.form.coefficients, self.work)
        return table[jnp.minimum(t + jnp.arange(count), len(table) - 1)]

    def _lag(self, t: jax.Array) -> jax.Array:
        """(copies,) how many steps before t each slot was written: 1, ..., copies in some rotation."""
        return 1 + (t - 1 - jnp.arange(self.copies)) % self.copies

    def _split(self, t: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """The weights of count rows on the ring (count, copies) and on one another (count, count), lower-triangular."""
        rows, later = self._rows(t, count), jnp.arange(count)[:, None]
        return _at_lag(rows, later + self._lag(t)), _at_lag(rows, later - jnp.arange(count))

    def _put(self, ring: jax.Array, t: jax.Array, rows: jax.Array) -> jax.Array:
        """The ring after steps t, t + 1, ... wrote `rows` one after the other, those that stay."""

        def body(i: jax.Array, ring: jax.Array) -> jax.Array:
            row = lax.dynamic_index_in_dim(rows, i, keepdims=False)
            return _set_row(ring, row, (t + i) % self.copies)

        return lax.fori_loop(max(0, len(rows) - self.copies), len(rows), body, ring)


class PastOutputsFilter(BandsFilter[forms.PastOutputs]):
    def step(self, kept: jax.Array, t: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
        row = self._rows(t, 1)[0]
        if not self.copies:
            return (draw(t) / row[0]).astype(self.dtype), kept
        x = (draw(t) / row[0] + self._product(-row[self._lag(t)] / row[0], kept)).astype(self.dtype)
        return x, _set_row(kept, x, t % self.copies)

    def block(self, kept: jax.Array, t: jax.Array, count: int, draw: Draw) -> tuple[jax.Array, jax.Array]:
        """X = L^{-1} (Z - E X_past), one product: count new rows for the reading and writing of a few."""
        if not self.copies:
            return super().block(kept, t, count, draw)
        past, inner = self._split(t, count)
        inverse = jax.scipy.linalg.solve_triangular(inner, jnp.eye(count, dtype=self.work), lower=True)
        x = self._product(inverse, _add_draws(self._product(-past, kept), t, draw)).astype(self.dtype)
        return x, self._put(kept, t, x)


class PastInputsFilter(BandsFilter[forms.PastInputs]):
    def step(self, kept: jax.Array, t: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
        row, z = self._rows(t, 1)[0], draw(t)
        if not self.copies:
            return (row[0] * z).astype(self.dtype), kept
        x = row[0] * z + self._product(row[self._lag(t)], kept)
        # XLA sees no order between this reading and this writing, and so copies the ring; blocks make up for it.
        return x.astype(self.dtype), _set_row(kept, z.astype(self.dtype), t % self.copies)

    def block(self, kept: jax.Array, t: jax.Array, count: int, draw: Draw) -> tuple[jax.Array, jax.Array]:
        if not self.copies:
            return super().block(kept, t, count, draw)
        past, inner = self._split(t, count)
        z = lax.map(draw, t + jnp.arange(count, dtype=jnp.int32))
        x = self._product(past, kept) + self._product(inner, z)
        return x.astype(self.dtype), self._put(kept, t, z.astype(self.dtype))


class RegeneratedInputsFilter(BandsFilter[forms.PastInputs]):
    """Keeps nothing: past z are drawn again, each once for all the rows of a block."""

    @property
    def copies(self) -> int:
        return 0

    def step(self, kept: jax.Array, t: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
        x, kept = self.block(kept, t, 1, draw)
        return x[0], kept

    def block(self, kept: jax.Array, t: jax.Array, count: int, draw: Draw) -> tuple[jax.Array, jax.Array]:
        rows, steps = self._rows(t, count), t + jnp.arange(count)
        z = jax.eval_shape(draw, t)

        def body(s: jax.Array, x: jax.Array) -> jax.Array:
            weights = _at_lag(rows, (steps - s)[:, None])
            return x + weights.reshape(count, *[1] * z.ndim) * draw(s)

        first = jnp.maximum(t - rows.shape[1] + 1, 0)
        x = lax.fori_loop(first, t + count, body, jnp.zeros((count, *z.shape), self.work))
        return x.astype(self.dtype), kept


class BuffersFilter(Filter[forms.Buffers]):
    """Decays enter by their complements 1 - theta, whose rounding changes the matrix the least."""

    def step(self, kept: jax.Array, t: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
        x = draw(t) - self._product(self.form.omega, kept)
        complement = jnp.asarray(1 - self.form.theta, self.work).reshape(-1, *[1] * x.ndim)
        kept = kept.astype(self.work)
        return x.astype(self.dtype), (kept + (x - complement * kept)).astype(self.dtype)

    def block(self, kept: jax.Array, t: jax.Array, count: int, draw: Draw) -> tuple[jax.Array, jax.Array]:
        theta, omega = self.form.theta, self.form.omega
        powers = theta[:, None] ** np.arange(count)
        inverse = np.linalg.inv(_lower_toeplitz(np.append(1.0, omega @ powers[:, :-1])))
        x = self._product(inverse, _add_draws(self._product(-(omega[:, None] * powers).T, kept), t, draw))
        complement = jnp.asarray(1 - theta**count, self.work).reshape(-1, *[1] * (x.ndim - 1))
        added, kept = self._product(powers[:, ::-1], x), kept.astype(self.work)
        return x.astype(self.dtype), (kept + (added - complement * kept)).astype(self.dtype)


class TreeFilter(Filter[forms.TreeNodes]):
    def step(self, kept: jax.Array, t: jax.Array, draw: Draw) -> tuple[jax.Array, jax.Array]:
        kind, height = self._kind(t)
        outputs, updates = (jnp.asarray(table, self.work)[kind] for table in (self.form.outputs, self.form.updates))

        def body(h: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            below = lax.dynamic_index_in_dim(kept, h, keepdims=False).astype(self.work)
            return sums[0] + updates[1 + h] * below, sums[1] + outputs[1 + h] * below

        node = updates[0] * draw(t)
        if not self.copies:
            return (outputs[0] * node).astype(self.dtype), kept
        node, rest = lax.fori_loop(0, height, body, (node, jnp.zeros_like(node)))
        # The top node has no slot: nothing reads it, nor the slot below, which is filled again before it is read.
        kept = _set_row(kept, node.astype(self.dtype), jnp.minimum(height, self.copies - 1))
        return (outputs[0] * node + rest).astype(self.dtype), kept

    def _kind(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(row of the tables, number of slots that may matter)."""
        every, iterations = self.form.restart_every, self.form.iterations
        length = t % every + 1 if every else t + 1
        height = lax.population_count(~length & (length - 1))
        if not self.form.completion or iterations is None:
            return height, height
        completes = (length == every) & (t + 1 < iterations)
        return jnp.where(completes, len(self.form.outputs) - 1, height), jnp.where(completes, self.copies, height)


def filter_of(form: forms.Form, memory: str, dtype: jnp.dtype) -> Filter:
    """The filter of a form; `memory` is "store" or "regenerate"."""
    work = jnp.promote_types(dtype, jnp.float32)
    kinds: dict[type[forms.Form], type[Filter]] = {
        forms.White: WhiteFilter,
        forms.PastOutputs: PastOutputsFilter,
        forms.PastInputs: PastInputsFilter if memory == "store" else RegeneratedInputsFilter,
        forms.Buffers: BuffersFilter,
        forms.TreeNodes: TreeFilter,
    }
    return kinds[type(form)](form, jnp.dtype(dtype), jnp.dtype(work))


def _at_lag(rows: jax.Array, lag: jax.Array) -> jax.Array:
    """rows[i, lag[i, j]] at [i, j], and 0 where there is no such band."""
    bands = rows.shape[1]
    taken = jnp.take_along_axis(rows, jnp.clip(lag, 0, bands - 1), axis=1)
    return jnp.where((lag >= 0) & (lag < bands), taken, 0)


def _set_row(rows: jax.Array, row: jax.Array, index: jax.Array) -> jax.Array:
    return lax.dynamic_update_index_in_dim(rows, row, index, 0)


def _add_draws(rows: jax.Array, t: jax.Array, draw: Draw) -> jax.Array:
    """rows[i] + z_{t+i}; one draw at a time, in place."""

    def body(i: jax.Array, rows: jax.Array) -> jax.Array:
        return _set_row(rows, lax.dynamic_index_in_dim(rows, i, keepdims=False) + draw(t + i), i)

    return lax.fori_loop(0, len(rows), body, rows)


def _lower_toeplitz(column: np.ndarray) -> np.ndarray:
    lag = np.arange(len(column))[:, None] - np.arange(len(column))
    return np.where(lag >= 0, column[np.abs(lag)], 0.0)

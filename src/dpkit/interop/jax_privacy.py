"""JAX Privacy's strategies in and out."""

from typing import Any

import jax
import numpy as np

from dpkit.factorization import Banded, BandedToeplitz, BufferedLinearToeplitz, Strategy
from dpkit.factorization.values import Array
from dpkit.interop.optional import required

matrix_factorization = required("jax_privacy.matrix_factorization")


def from_jax_privacy(strategy: Any) -> Strategy:
    """The strategy that has the very matrix C of JAX Privacy's.

    Args:
        strategy: a `BufferedToeplitz`, whose buf_decay is theta and output_scale omega; a `ColumnNormalizedBanded`; or
            the coefficients of a banded Toeplitz C, (num_bands,), as the functions of `toeplitz` take them.

    Raises:
        ValueError: the parameters are no strategy's (a decay of 1, a diagonal that is not positive).

    Guarantees: parameters are taken over digit for digit, also from float32; a `ColumnNormalizedBanded`'s columns are
    normalized here, in float64. Sensitivity and errors are then computed from them here.

    >>> import numpy as np
    >>> from_jax_privacy(np.array([1.0, 0.5]))
    BandedToeplitz(num_bands=2, coefficients=array([1. , 0.5]))
    """
    if isinstance(strategy, matrix_factorization.buffered_toeplitz.BufferedToeplitz):
        theta, omega = (np.atleast_1d(_float64(part)) for part in (strategy.buf_decay, strategy.output_scale))
        return BufferedLinearToeplitz(theta=theta, omega=omega)
    if isinstance(strategy, matrix_factorization.banded.ColumnNormalizedBanded):
        return _banded(_float64(strategy.params))
    if np.ndim(strategy) != 1:
        raise ValueError(
            "strategy must be a BufferedToeplitz, a ColumnNormalizedBanded or Toeplitz coefficients (num_bands,), "
            f"got {strategy!r}; for another matrix of few iterations use dpkit.factorization.Dense"
        )
    return BandedToeplitz(num_bands=len(strategy), coefficients=_float64(strategy))


def to_jax_privacy(strategy: Strategy) -> Any:
    """JAX Privacy's form of a strategy, with the same matrix C; `from_jax_privacy` gives the strategy back.

    A `BufferedLinearToeplitz` becomes a `BufferedToeplitz` of decreasing decays; a `Banded` a `ColumnNormalizedBanded`;
    a `BandedToeplitz` the float64 coefficients (num_bands,) that the functions of `toeplitz` take. Their parameters are
    float64, which JAX computes with only where jax_enable_x64 is on.

    Raises:
        ValueError: JAX Privacy has no such strategy, its columns are not of norm 1 where they have to be, or it has no
            parameters yet.

    >>> from dpkit.factorization import BandedToeplitz
    >>> to_jax_privacy(BandedToeplitz(num_bands=2, coefficients=[1.0, 0.5]))
    array([1. , 0.5])
    """
    match strategy:
        case BandedToeplitz():
            return strategy.first_column(strategy.num_bands)
        case BufferedLinearToeplitz():
            strategy.form()  # Raises if it has no parameters.
            with jax.enable_x64(True):
                return matrix_factorization.buffered_toeplitz.BufferedToeplitz.build(strategy.theta, strategy.omega)
        case Banded():
            strategy.form()
            columns = _by_columns(_float64(strategy.coefficients))
            norms = np.linalg.norm(columns, axis=1)
            if np.max(np.abs(norms - 1)) > 1e-12:
                raise ValueError(
                    "the columns of C must have norm 1 for JAX Privacy, which would normalize them, got norms from "
                    f'{norms.min()} to {norms.max()}; optimize Banded(num_bands, column_norms="equal")'
                )
            with jax.enable_x64(True):
                return matrix_factorization.banded.ColumnNormalizedBanded(params=jax.numpy.asarray(columns))
    raise ValueError(
        f"JAX Privacy has no form for {strategy}; its functions of Toeplitz matrices take first_column(iterations), "
        "and those of dense ones matrix(iterations)"
    )


def _float64(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64)


def _banded(params: Array) -> Banded:
    """params[s, j] is C[s + j, s] before its columns are normalized; entries below the last row are ignored."""
    n, num_bands = params.shape
    inside = np.where(np.arange(n)[:, None] + np.arange(num_bands) < n, params, 0.0)
    columns = inside / np.linalg.norm(inside, axis=1, keepdims=True)
    rows = np.stack([np.append(np.zeros(j), columns[: n - j, j]) for j in range(num_bands)], axis=1)
    return Banded(num_bands=num_bands, column_norms="equal", coefficients=rows)


def _by_columns(rows: Array) -> Array:
    """C[s + j, s] at [s, j] from C[t, t - j] at [t, j], both (n, num_bands)."""
    return np.stack([np.append(rows[j:, j], np.zeros(j)) for j in range(rows.shape[1])], axis=1)

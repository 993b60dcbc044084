"""Buffered linear Toeplitz strategies: noise correlated over the whole run that needs few numbers per parameter."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from dpkit import validation
from dpkit.factorization import blt_forms, series
from dpkit.factorization.forms import Buffers, Form
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.row_scales import UNSCALED, RowScales
from dpkit.factorization.sensitivity import rounded_up
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.toeplitz import ToeplitzStrategy
from dpkit.factorization.values import Array, check_scale, frozen_array
from dpkit.factorization.workload import Workload


@dataclasses.dataclass(frozen=True, eq=False)
class BufferedLinearToeplitz(ToeplitzStrategy):
    """C is lower-triangular and Toeplitz with first column c_0 = 1, c_t = sum_j omega_j theta_j^(t - 1).

    Step t's noise is `x = z - omega . S`, then `S <- theta * S + x`: d = `num_buffers` buffers of the model's size.
    `BufferedLinearToeplitz(num_buffers=3)` is the family; `optimize` returns one with parameters, and a peer's
    parameters may be given: theta is what JAX Privacy calls buf_decay, omega its output_scale.

    Args:
        num_buffers: d >= 1; may be left out where theta and omega are given.
        theta: (d,) distinct decays in (-1, 1).
        omega: (d,) output scales. 0 <= theta, 0 <= omega and sum(omega) <= 1 make c non-negative and non-increasing,
            and so the sensitivity exact under several participations; with sum(omega / theta) < 1 as well the noise
            does not oscillate.

    Raises:
        ValueError: neither num_buffers nor both theta and omega are given, or they disagree; theta is out of range or
            not distinct.

    Guarantees: for such theta and omega `sensitivity` is exact under `SingleParticipation`, `FixedEpoch` and `MinSep`,
    at a cost of O(k d^2) that does not depend on the iterations; for others it is that of any Toeplitz strategy, at
    a cost of O(n): exact for one participation, an upper bound for several. The errors of SGD at a constant
    learning rate cost O(d log n) for omega >= 0 with sum(omega / theta) < 1.

    References: Dvijotham et al. (2024), "Efficient and near-optimal noise generation for streaming differential
    privacy"; McMahan, Xu and Zhang (2024), "A hassle-free algorithm for strong differential privacy in federated
    learning systems"; McMahan and Pillutla (2025), "An inversion theorem for buffered linear Toeplitz matrices".

    >>> from dpkit.factorization import MinSep, prefix_sum
    >>> strategy = BufferedLinearToeplitz(theta=[0.75], omega=[0.5])
    >>> strategy.matrix(3)
    array([[1.   , 0.   , 0.   ],
           [0.5  , 1.   , 0.   ],
           [0.375, 0.5  , 1.   ]])
    >>> strategy.rmse(prefix_sum(), MinSep(iterations=10**9, min_sep=10**7))
    93435.3
    """

    num_buffers: int = None  # type: ignore[assignment]
    theta: Array | None = None
    omega: Array | None = None

    def __post_init__(self):
        if self.theta is None or self.omega is None:
            if self.num_buffers is None or not (self.theta is None and self.omega is None):
                raise ValueError("theta and omega must be given together, or num_buffers alone for the family")
            object.__setattr__(self, "num_buffers", validation.count("num_buffers", self.num_buffers, minimum=1))
            return
        theta, omega = frozen_array("theta", self.theta), frozen_array("omega", self.omega)
        if len(theta) != len(omega) or self.num_buffers not in (None, len(theta)):
            raise ValueError(
                f"theta and omega must have num_buffers={self.num_buffers} entries each, "
                f"got {len(theta)} and {len(omega)}"
            )
        if np.max(np.abs(theta)) >= 1:
            raise ValueError(f"theta must be in (-1, 1), got {theta}; a decay of 1 never forgets")
        if len(np.unique(theta)) < len(theta):
            raise ValueError(f"theta must be distinct, got {theta}; merge equal buffers by adding their omega")
        check_scale("omega", np.append(1.0, omega))  # After c_0 no omega is too small.
        for name, value in (("num_buffers", len(theta)), ("theta", theta), ("omega", omega)):
            object.__setattr__(self, name, value)

    def form(self, iterations: int | None = None) -> Form:
        theta, omega = self._parameters()
        return Buffers(theta, omega, iterations=iterations)

    def first_column(self, n: int) -> Array:
        theta, omega = self._parameters()
        steps = np.arange(validation.count("n", n, minimum=1) - 1)
        return np.append(1.0, sum(o * t**steps for t, o in zip(theta, omega, strict=True)))

    def inverse_first_column(self, n: int) -> Array:
        """d, the first column of C^{-1} (n,), at a cost of O(n d) for omega of one sign."""
        if not self._one_sign():
            return series.divide(np.eye(1, n)[0], self.first_column(n))
        s_hat, omega_hat = self._inverse_parameters()
        terms = (o * _powers(s, n - 1) for s, o in zip(s_hat, omega_hat, strict=True))
        return np.append(1.0, sum(terms, np.zeros(n - 1)))

    def inverse(self) -> "BufferedLinearToeplitz":
        """The strategy whose matrix is C^{-1}, which has the same form; buffers whose omega is 0 are left out.

        Its theta are the eigenvalues of diag(theta) - omega 1^T.

        Raises:
            ValueError: omega has both signs or is all zero; the inverse is unstable (an eigenvalue outside (-1, 1)); or
                two eigenvalues are equal in floating point.

        >>> BufferedLinearToeplitz(theta=[0.75], omega=[0.5]).inverse()
        BufferedLinearToeplitz(num_buffers=1, theta=array([0.25]), omega=array([-0.5]))
        """
        s_hat, omega_hat = self._inverse_parameters()
        if len(s_hat) == 0:
            raise ValueError("omega must not be all zero for an inverse of the same form: C is the identity")
        theta_hat = 1 - s_hat
        if np.max(np.abs(theta_hat)) >= 1:
            raise ValueError(
                f"C^-1 is unstable, its theta are {theta_hat}, and noise would grow without bound; use parameters with "
                "0 <= theta, 0 <= omega and sum(omega / theta) < 1"
            )
        return BufferedLinearToeplitz(theta=theta_hat, omega=omega_hat)

    def _sensitivity(self, schema: ParticipationSchema, scales: RowScales) -> float:
        theta, omega = self._parameters()
        n, b, k = schema.iterations, schema.min_sep, schema.max_participations
        steps = b * np.arange(k)
        # A single participation is worst at step 0, and its norm a sum of terms that are all >= 0.
        holds = self._one_sign() if k == 1 else np.min(omega) >= 0 and math.fsum(omega) <= 1
        if np.min(theta) < 0 or not holds or not np.all(np.isin(scales.starts(n), steps)):
            return super()._sensitivity(schema, scales)
        parts, _ = blt_forms.squared_sensitivity(1 - theta, omega, n, b, k)
        # Sums of up to k positive terms, each to a few units in the last place.
        return rounded_up(float(scales.at(steps) @ parts), k)

    def _variances(self, workload: Workload, n: int, scales: RowScales) -> Array:
        """O(n d) for Toeplitz workloads, O(n (d + q)^2) for others with q <= 8 inverse bands, dense otherwise."""
        bands = None if workload.toeplitz(n) is not None or not self._one_sign() else short_inverse_bands(workload, n)
        if bands is None:
            return super()._variances(workload, n, scales)
        from dpkit.numerics.filtered_noise import variances

        s_hat, omega_hat = self._inverse_parameters()
        return variances(bands, 1 - s_hat, omega_hat, 1 / scales.at(np.arange(n)))[0]

    def _squared_errors(self, workload: Workload, n: int, scales: RowScales = UNSCALED) -> tuple[float, float]:
        theta, omega = self._parameters()
        sgd = blt_forms.constant_sgd(workload, n)
        if sgd is None or self._oscillates():
            return super()._squared_errors(workload, n, scales)
        starts = scales.starts(n)
        errors = blt_forms.SquaredErrors(sgd, n, starts)
        inverse = 1 / (1 + np.sum(omega / (errors.points[:, None] + (1 - theta)), axis=1))
        mean, largest = (errors(inverse, objective)[0] @ (1 / scales.at(starts)) for objective in ("rmse", "max_error"))
        return float(mean), float(largest)

    def _oscillates(self) -> bool:
        """Whether C^-1 may have other decays than such in (0, 1)."""
        theta, omega = self._parameters()
        active = omega != 0
        return bool(np.any(omega < 0) or np.any(theta[active] <= 0) or np.sum(omega[active] / theta[active]) >= 1)

    def _one_sign(self) -> bool:
        _, omega = self._parameters()
        return bool(np.all(omega >= 0) or np.all(omega <= 0))

    def _inverse_parameters(self) -> tuple[Array, Array]:
        theta, omega = self._parameters()
        if not self._one_sign():
            raise ValueError(f"omega must be of one sign for an inverse that surely is of the same form, got {omega}")
        # Positive scales too small to change any digit of 1 + sum_j omega_j / (w - theta_j), |w| >= 1, are left out:
        # the poles they would add may be too close to others to tell apart. Decays that are the same in s are merged.
        active = (omega > 1e-15 * (1 - np.abs(theta))) | (omega < -1e-200)
        s, where = np.unique(1 - theta[active], return_inverse=True)
        merged = np.zeros(len(s))
        np.add.at(merged, where, omega[active])
        return blt_forms.inverse_parameters(s, merged)

    def _parameters(self) -> tuple[Array, Array]:
        if self.theta is None or self.omega is None:
            raise ValueError(f"{self} has no parameters yet; call optimize, or give theta and omega")
        return self.theta, self.omega

    def _optimized(
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,
        callback: Callable[[Progress], object] | None,
    ) -> Solution:
        from dpkit.factorization.blt_solver import solve

        return solve(self, workload, schema, objective, callback, scaled=False)

    def _scaled_optimum(
        self,
        workload: Workload,
        schema: ParticipationSchema,
        objective: str,
        callback: Callable[[Progress], object] | None,
    ) -> Solution:
        from dpkit.factorization.blt_solver import solve

        return solve(self, workload, schema, objective, callback, scaled=True)


def short_inverse_bands(workload: Workload, n: int) -> Array | None:
    """A^-1 by rows from the diagonal back, (n, q) with 2 <= q <= 8; None where it has more bands."""
    bands = workload.inverse_bands(n)
    if bands is None or bands.shape[1] > 8:
        return None
    return np.pad(bands, ((0, 0), (0, max(0, 2 - bands.shape[1]))))


def _powers(complement: float, count: int) -> Array:
    """(1 - complement)^t for t < count; near 1 the ratio itself would lose digits."""
    steps = np.arange(count)
    powers = np.exp(steps * np.log1p(-complement)) if abs(complement) < 0.5 else (1 - complement) ** steps
    return np.asarray(powers, dtype=np.float64)

"""Composition of lattice laws by one FFT, tilted so that its rounding error is relative to delta.

For independent lattice losses L_j, repeated T_j times, with cumulants K_j(t) = log E[e^{t L_j}] and the tilted laws
w_j(l) = P[L_j = l] e^{t l - K_j(t)}, the sum S of all of them satisfies

    delta(eps) = P[S = inf] + e^{K - t eps} E_w[ e^{-t (S - eps)} (1 - e^{-(S - eps)})_+ ],   K = sum_j T_j K_j(t).

The expectation is over an ordinary probability law that an FFT gives to about 1e-16 per bin, and its integrand lies in
[0, 1]; so every absolute error made there costs a relative error of delta when t is near the saddle point at eps.
Errors are bounded, not estimated: FFT rounding in the 2-norm (Higham 2002, Theorem 24.2) through Cauchy-Schwarz, and
wrap-around by Chernoff's bound on the tilted law.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from dpkit.accounting.saddle import Saddle
from dpkit.mechanisms.discretization import LatticeLoss
from dpkit.numerics.logspace import log_sum_exp

Array = NDArray[Any]

_ULP = 2.0**-52
# Tilted probability allowed to fall outside the FFT window.
_WRAPPED = 1e-17
# Spectrum entries below e^-_NEGLIGIBLE are zero: their total is far below the rounding already accounted for.
_NEGLIGIBLE = 80.0
# Exponents between which the curve is kept around the reference epsilon, and how far the sums run beyond the curve.
_DOWN, _UP, _CUT = 200.0, 100.0, 60.0
_BYTES_PER_POINT = 100
# Points between epsilon 0 and the window, denser towards the window, where the noise changes fast.
_BELOW = 400


class OutOfMemoryError(MemoryError):
    """A composition needs `excess` times the memory that its caller allows."""

    def __init__(self, size: int, max_memory: float):
        needed = _BYTES_PER_POINT * size
        super().__init__(
            f"a composition on {size} lattice points needs {needed:.2g} bytes, max_memory={max_memory:.2g}"
        )
        self.excess = needed / max_memory


@dataclasses.dataclass(frozen=True)
class TailCurve:
    """delta(epsilon) of a composed lattice law around a reference point, with its error.

    `delta(e_k) = infinite + e^log_scale * partial[k]` at the lattice values `grid`, and between e_{k-1} and e_k the
    bracket adds `(1 - e^-(e_k - epsilon)) * slope[k]`. `log_noise[k]` is the log of an absolute error bound that holds
    for every epsilon >= e_k. `relative` is a relative error, `margin` an absolute error of the losses.
    """

    grid: Array
    partial: Array
    slope: Array
    log_scale: float
    log_noise: Array
    infinite: float
    relative: float
    margin: float

    @property
    def _infinite_upper(self) -> float:
        return self.infinite * (1 + self.relative)

    @property
    def _infinite_lower(self) -> float:
        return self.infinite * max(0.0, 1 - self.relative)

    def upper_delta(self, epsilon: float) -> float:
        """Never below delta(epsilon) of the composed law."""
        if epsilon < self.grid[0]:
            return 1.0
        # Losses may be off by the margin; delta falls at most as fast as epsilon rises.
        point = max(epsilon - self.margin, float(self.grid[0]))
        below = max(0.0, point - (epsilon - self.margin))
        # Beyond the grid its last value holds, because delta decreases.
        point = min(point, float(self.grid[-1]))
        k = max(int(np.searchsorted(self.grid, point, side="left")), 1)
        value = self._inside(k, point) * (1 + self.relative) + math.exp(min(self.log_noise[k - 1], 0.0))
        return min(1.0, self._infinite_upper + value + below)

    def lower_delta(self, epsilon: float) -> float:
        """Never above delta(epsilon) of the composed law."""
        k = int(np.searchsorted(self.grid, epsilon + self.margin, side="left"))
        if k == len(self.grid):
            return self._infinite_lower
        # Below the grid the value at its first point is a valid lower bound, because delta decreases.
        point = max(epsilon + self.margin, float(self.grid[0]))
        log_noise = float(self.log_noise[max(k - 1, 0)])
        if log_noise >= 0:
            return self._infinite_lower
        noise = math.exp(log_noise)
        return min(1.0, self._infinite_lower + max(0.0, self._inside(max(k, 1), point) * (1 - self.relative) - noise))

    def upper_epsilon(self, delta: float) -> float:
        """Never below the least epsilon at which the composed law has delta(epsilon) <= delta."""
        scaled = self._scaled(self.partial) * (1 + self.relative)
        reached = self._infinite_upper + scaled + np.exp(np.minimum(self.log_noise, 1.0)) <= delta
        if not reached[-1]:
            return math.inf
        k = len(reached) - int(np.argmin(reached[::-1])) if not reached.all() else 0
        epsilon = float(self.grid[k])
        if k > 0:
            spare = delta - self._infinite_upper - math.exp(min(self.log_noise[k - 1], 1.0)) - scaled[k]
            slope = float(self._scaled(self.slope[k])) * (1 + self.relative)
            share = spare / slope if 0 < spare < slope else 0.0
            if share > 0:
                epsilon = max(epsilon + math.log1p(-share), float(self.grid[k - 1]))
        return max(0.0, epsilon + self.margin)

    def lower_epsilon(self, delta: float) -> float:
        """Never above the least epsilon at which the composed law has delta(epsilon) <= delta."""
        if self._infinite_lower > delta:
            return math.inf
        scaled = self._scaled(self.partial) * (1 - self.relative)
        exceeds = self._infinite_lower + scaled - np.exp(np.minimum(self.log_noise, 0.0)) > delta
        exceeds &= self.log_noise < 0
        if not exceeds.any():
            return 0.0
        k = len(exceeds) - 1 - int(np.argmax(exceeds[::-1]))
        epsilon = float(self.grid[k])
        if k + 1 < len(self.grid):
            need = delta + math.exp(min(self.log_noise[k], 1.0)) - self._infinite_lower - scaled[k + 1]
            slope = float(self._scaled(self.slope[k + 1])) * (1 - self.relative)
            share = need / slope if 0 < need < slope else 0.0
            if share > 0:
                epsilon = max(epsilon, float(self.grid[k + 1]) + math.log1p(-share))
        return max(0.0, epsilon - self.margin)

    def _inside(self, k: int, epsilon: float) -> float:
        """The finite part of delta at an epsilon in [grid[k-1], grid[k]]."""
        value = self.partial[k] - math.expm1(epsilon - self.grid[k]) * self.slope[k]
        return float(self._scaled(value))

    def _scaled(self, value: ArrayLike) -> Array:
        """e^log_scale times a sum; beyond e^1, which only noise of size 1 and more can reach, any number serves."""
        with np.errstate(divide="ignore"):
            return np.exp(np.minimum(self.log_scale + np.log(value), 1.0))


def compose_lattices(
    lattices: Sequence[LatticeLoss], counts: Sequence[int], saddle: Saddle, max_memory: float
) -> tuple[TailCurve, int]:
    """The tail of the sum of independent losses, each repeated, near the epsilon that `saddle` expects.

    Args:
        lattices: lattice laws of equal step.
        counts: their numbers of repetitions.
        saddle: the tilt, and where the curve is wanted; a poor one costs accuracy, which the curve states.
        max_memory: bytes.

    Returns:
        The curve, and the number of lattice points it took.

    Raises:
        OutOfMemoryError: the window does not fit.
    """
    step, tilt, reference = lattices[0].step, saddle.tilt, saddle.epsilon
    tilted = [_tilt(lattice, tilt) for lattice in lattices]
    laws = [(lattice.first + np.arange(len(logs)), logs) for lattice, (logs, _) in zip(lattices, tilted, strict=True)]
    first, last = _window(laws, counts)
    size = cast(int, fft.next_fast_len(max(last - first + 1, 2), real=True))
    if _BYTES_PER_POINT * size > max_memory:
        raise OutOfMemoryError(size, max_memory)
    density, noise = _convolve(laws, counts, first, size)
    offset = math.fsum(count * lattice.offset for lattice, count in zip(lattices, counts, strict=True))
    values = offset + step * (first + np.arange(size))
    grid, partial, slope = _suffix_sums(values, density, step, tilt, reference)
    log_moment = math.fsum(count * k for (_, k), count in zip(tilted, counts, strict=True))
    finite = math.fsum(count * math.log1p(-law.infinite_mass) for law, count in zip(lattices, counts, strict=True))
    margin = math.fsum(count * law.value_error for law, count in zip(lattices, counts, strict=True))
    curve = TailCurve(
        grid=grid,
        partial=partial,
        slope=slope,
        log_scale=log_moment - tilt * reference,
        log_noise=log_moment - tilt * grid + _log_noise(noise, tilt, step),
        infinite=-math.expm1(finite),
        # Each of the factors e^{t l - K} w and the suffix sums round relative to themselves.
        relative=math.expm1(min((1000 * sum(counts) + 4 * size) * _ULP, 700.0)),
        margin=margin + 8 * _ULP * (abs(reference) + abs(offset)),
    )
    return curve, size


def _suffix_sums(
    values: Array, density: Array, step: float, tilt: float, reference: float
) -> tuple[Array, Array, Array]:
    """Grid, `partial` and `slope` of a `TailCurve`, from sums of positive terms only: nothing cancels."""
    start = min(int(np.searchsorted(values, reference - _DOWN / tilt)), len(values) - 2)
    stop = max(int(np.searchsorted(values, reference + _UP / tilt)), start + 2)
    grid = values[start:stop]
    # Where the sums overflow, noise of size 1 and more has overtaken them anyway.
    weights = density[start:stop] * np.exp(np.minimum(-tilt * (grid - reference), 600.0))
    slope = _discounted_suffix_sum(weights, step)
    partial = np.append(np.cumsum(slope[:0:-1])[::-1], 0.0) * -math.expm1(-step)
    if stop < len(values):
        # What was cut off counts for e^-_CUT at most, if the curve ends well before.
        end = max(2, int(np.searchsorted(grid, grid[-1] - _CUT / tilt)))
        grid, partial, slope = grid[:end], partial[:end], slope[:end]
    if start == 0 and grid[0] > 0:
        # Nothing lies below the window, so the same sums reach down to epsilon 0.
        gaps = np.geomspace(grid[0], step, _BELOW)[1:] if grid[0] > step else np.array([])
        below = np.append(0.0, grid[0] - gaps)
        partial = np.append(partial[0] - np.expm1(below - grid[0]) * slope[0], partial)
        slope = np.append(np.exp(below - grid[0]) * slope[0], slope)
        grid = np.append(below, grid)
    return grid, partial, slope


def _log_noise(noise: float, tilt: float, step: float) -> float:
    """Log of the error of the expectation over the tilted law: Cauchy-Schwarz for rounding, the peak for wrap-around.

    g(x) = e^{-t x}(1 - e^{-x}) is unimodal with peak below 1/(1+t), so sum g(kh)^2 <= peak^2 + (1/h) integral of g^2.
    """
    peak = 1 / (1 + tilt)
    norm = math.sqrt(peak**2 + 2 / (step * 2 * tilt * (2 * tilt + 1) * (2 * tilt + 2)))
    return math.log(noise * norm + _WRAPPED * peak + math.exp(-_CUT))


def _tilt(lattice: LatticeLoss, tilt: float) -> tuple[Array, float]:
    """The logs of the tilted law and of its normaliser."""
    with np.errstate(divide="ignore"):
        exponents = np.log(lattice.probabilities) + tilt * lattice.values
    log_moment = log_sum_exp(exponents)
    return exponents - log_moment, log_moment


def _window(laws: Sequence[tuple[Array, Array]], counts: Sequence[int]) -> tuple[int, int]:
    """Lattice indices outside which the tilted sum falls with probability at most _WRAPPED (Chernoff)."""
    kept = [(index[logs > -600], logs[logs > -600]) for index, logs in laws]
    means = [float((index * np.exp(logs)).sum()) for index, logs in kept]
    spread = [float(((index - m) ** 2 * np.exp(logs)).sum()) for (index, logs), m in zip(kept, means, strict=True)]
    variance = math.fsum(count * s for count, s in zip(counts, spread, strict=True))
    center = math.fsum(count * mean for count, mean in zip(counts, means, strict=True))
    lowest = sum(count * int(index[0]) for (index, _), count in zip(kept, counts, strict=True))
    highest = sum(count * int(index[-1]) for (index, _), count in zip(kept, counts, strict=True))
    log_tail = math.log(2 / _WRAPPED)
    scale = math.sqrt(2 * log_tail / variance) if variance > 0 else 1.0

    def reach(sign: int) -> float:
        """Least distance from the mean that a Chernoff bound proves improbable enough."""
        best = math.inf
        for factor in (0.2, 0.4, 0.7, 1.0, 1.4):
            exponent = sign * factor * scale
            log_mgf = math.fsum(
                count * log_sum_exp(exponent * (index - mean) + logs)
                for (index, logs), mean, count in zip(kept, means, counts, strict=True)
            )
            best = min(best, (log_mgf + log_tail) / (factor * scale))
        return best + 1

    return max(lowest, math.floor(center - reach(-1))), min(highest, math.ceil(center + reach(1)))


def _convolve(laws: Sequence[tuple[Array, Array]], counts: Sequence[int], first: int, size: int) -> tuple[Array, float]:
    """Probabilities of the tilted sum at indices first..first+size-1 (wrapped), and a 2-norm bound on their error."""
    spectrum = np.ones(size // 2 + 1, dtype=np.complex128)
    start = 0
    # Higham's constant is 6.7 unit roundoffs per doubling; the radices 2, 3, 5 in use stay below 10.
    per_fft = 5 * _ULP * max(1.0, math.log2(size))
    error, growth = 0.0, 0.0
    for (index, logs), count in zip(laws, counts, strict=True):
        w = np.exp(logs)
        # The largest entry goes to index 0, where its transform is a constant: it costs no rounding.
        center = int(index[np.argmax(w)])
        start += count * center
        folded = np.bincount((index - center) % size, weights=w, minlength=size)
        peak, folded[0] = folded[0], 0.0
        norm = _norm(folded)
        error += count * (per_fft * norm + 4 * _ULP)
        growth += count * (per_fft * norm * math.sqrt(size) + 4 * _ULP)
        spectrum *= _power(fft.rfft(folded) + peak, count)
    density = np.roll(cast(Array, fft.irfft(spectrum, size)), (start - first) % size)
    error = error * math.exp(min(growth, 700.0)) + (per_fft + 4 * _ULP * len(counts)) * _norm(density)
    return np.maximum(density, 0.0), error + 1e-30


def _norm(values: Array) -> float:
    """The 2-norm; BLAS would start threads for it."""
    return math.sqrt(float(np.square(values).sum()))


def _power(spectrum: NDArray[np.complex128], count: int) -> NDArray[np.complex128]:
    """`spectrum**count` by squaring; entries that vanish anyway are skipped."""
    result = np.zeros_like(spectrum)
    kept = np.flatnonzero(np.abs(spectrum) > math.exp(-_NEGLIGIBLE / count))
    base, product = spectrum[kept], np.ones(len(kept), dtype=np.complex128)
    while count:
        if count & 1:
            product = product * base
        base = base * base
        count >>= 1
    result[kept] = product
    return result


def _discounted_suffix_sum(weights: Array, step: float) -> Array:
    """`result[k] = sum over j >= k of weights[j] e^{-(j-k) step}`."""
    block = max(1, min(len(weights), int(300 / step)))
    result = np.empty_like(weights)
    carry = 0.0
    for end in range(len(weights), 0, -block):
        begin = max(0, end - block)
        discount = np.exp(-step * np.arange(end - begin))
        sums = np.cumsum((weights[begin:end] * discount)[::-1])[::-1] / discount
        result[begin:end] = sums + carry * math.exp(-step * (end - begin)) / discount
        carry = float(result[begin])
    return result

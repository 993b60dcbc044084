"""Matrix mechanisms under random sampling: from a strategy and a sampler to what an accountant accounts for.

Throughout, the noise that `noise_multiplier` stands for is Gaussian of standard deviation

    noise_multiplier * l2_clip_norm * strategy.sensitivity(SingleParticipation(iterations)),

the last factor being the largest norm of a column of C: one participation's sensitivity, because repeated
participations are in the composition. A multiple of C is the same mechanism.
"""

from typing import TYPE_CHECKING

import numpy as np

from dpkit import validation
from dpkit.mechanisms.balls_in_bins import BallsInBins
from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.composition import repeat
from dpkit.mechanisms.gaussian import Gaussian
from dpkit.mechanisms.pair import Array
from dpkit.mechanisms.sampling import PoissonSampled

if TYPE_CHECKING:
    from dpkit.factorization import Strategy


def balls_in_bins(strategy: "Strategy", iterations: int, num_bins: int, noise_multiplier: float) -> BallsInBins:
    """The run in which every unit draws one of `num_bins` bins once, and takes part at steps bin, bin + num_bins, ...

    Args:
        strategy: C, lower-triangular and without negative entries.
        iterations: n, the steps of the run, >= 1.
        num_bins: between 1 and iterations; the batches of one pass, so that a unit takes part once a pass.
        noise_multiplier: see the module, > 0.

    Raises:
        ValueError: an argument is out of range, C is not lower-triangular or has a negative entry, or it is a dense
            matrix of more than 16,384 steps.

    Guarantees: those of `BallsInBins`: bins uniform, independent between units and of the data, and hidden, under
    `ADD_OR_REMOVE_ONE` and `REPLACE_SPECIAL`. Not for bins of equal size (a shuffle cut into batches), where units'
    bins depend on one another. O(n num_bins) time and O(n) memory for a Toeplitz strategy.

    >>> from dpkit import factorization as fz
    >>> balls_in_bins(fz.Identity(), iterations=7, num_bins=3, noise_multiplier=2.0).gram
    array([[3., 0., 0.],
           [0., 2., 0.],
           [0., 0., 2.]])
    """
    from dpkit.factorization import SingleParticipation

    n = validation.count("iterations", iterations, minimum=1)
    b = validation.count("num_bins", num_bins, minimum=1)
    if b > n:
        raise ValueError(f"num_bins must be at most iterations={n}, got {b}: later bins would have no step")
    gram = _gram_of_modes(strategy, n, b)
    return BallsInBins(gram / strategy.sensitivity(SingleParticipation(n)) ** 2, noise_multiplier)


def cyclic_poisson(
    strategy: "Strategy", iterations: int, num_groups: int, sampling_probability: float, noise_multiplier: float
) -> Mechanism:
    """The run whose step t draws a Poisson sample from group t mod `num_groups` of the units.

    Args:
        strategy: C, lower-triangular with at most num_groups bands; entries of any sign.
        iterations: n, the steps of the run, >= 1.
        num_groups: groups that the units are split into before the run, independently of the data, >= 1.
        sampling_probability: of each unit of the step's group, fresh and independent, in [0, 1].
        noise_multiplier: see the module, >= 0.

    Returns:
        ceil(n / num_groups) Poisson-sampled Gaussians, for any accountant.

    Raises:
        ValueError: an argument is out of range, or C has more than num_groups bands or is not lower-triangular.

    Guarantees: columns of C that are num_groups steps apart share no row. So a unit's coins at its group's steps each
    decide over a block of rows of their own, in which everything else is known from the outputs before; the block is
    the column times the unit's contribution plus Gaussian noise, so a Poisson-sampled Gaussian of noise multiplier
    noise_multiplier or more, and they compose adaptively. Under `REPLACE_SPECIAL` and `REPLACE_ONE` for any split (the
    group belongs to the place of a record); under `ADD_OR_REMOVE_ONE` if each unit's group is drawn independently of
    the other units, or computed from nothing but the unit's own identifier. Which units were drawn must stay hidden.
    Nothing is claimed for shuffled or fixed-size batches, nor for samples from all the units (`poisson`).

    References: Choquette-Choo et al. (2023), "(Amplified) Banded Matrix Factorization", Theorem 4.

    >>> from dpkit import factorization as fz
    >>> run = cyclic_poisson(fz.BandedSquareRoot(4), 100, num_groups=8, sampling_probability=0.1, noise_multiplier=1.0)
    >>> [(part.sampling_probability, count) for part, count in run.parts()]
    [(0.1, 13)]
    """
    n = validation.count("iterations", iterations, minimum=1)
    groups = validation.count("num_groups", num_groups, minimum=1)
    bands = _num_bands(strategy, n)
    if bands > groups:
        raise ValueError(
            f"num_groups must be >= num_bands={bands} of {strategy}, got {groups}: otherwise two participations of a "
            "unit share a row; use more groups, fewer bands, or balls-in-bins sampling"
        )
    return repeat(PoissonSampled(Gaussian(noise_multiplier), sampling_probability), -(-n // groups))


def poisson(strategy: "Strategy", iterations: int, sampling_probability: float, noise_multiplier: float) -> Mechanism:
    """The run in which every step draws a Poisson sample from all the units.

    Args:
        strategy: C, lower-triangular with b bands; entries of any sign. `Identity`, b = 1, is DP-SGD.
        iterations: n, the steps of the run, >= 1.
        sampling_probability: of each unit, fresh and independent at every step, in [0, 1].
        noise_multiplier: see the module, >= 0.

    Returns:
        n Poisson-sampled Gaussians of noise multiplier noise_multiplier / sqrt(b), for any accountant.

    Raises:
        ValueError: an argument is out of range, or C is not lower-triangular.

    Guarantees: the noise is the sum of b independent ones of 1 / b of its variance. Let the steps r, r + b, ... have
    the r-th of them: their columns share no row, so each step by itself releases its column times its sum plus that
    noise, and the run is a function of these n releases, which compose adaptively. Exact for b = 1, under every
    relation that the Poisson-sampled Gaussian has; for b > 1 a loose bound, as good as independent noise of that size
    at every step: `cyclic_poisson` is the sampler for banded strategies.

    >>> from dpkit import factorization as fz
    >>> run = poisson(fz.BandedSquareRoot(4), 100, sampling_probability=0.01, noise_multiplier=1.0)
    >>> [(part.mechanism, count) for part, count in run.parts()]
    [(Gaussian(noise_multiplier=0.5), 100)]
    """
    n = validation.count("iterations", iterations, minimum=1)
    bands = _num_bands(strategy, n)
    noise_multiplier = validation.non_negative("noise_multiplier", noise_multiplier)
    # Rounded down, so that the square is no more than a b-th of the variance.
    share = np.nextafter(noise_multiplier / np.sqrt(bands), 0) if bands > 1 and noise_multiplier else noise_multiplier
    return repeat(PoissonSampled(Gaussian(float(share)), sampling_probability), n)


def _gram_of_modes(strategy: "Strategy", n: int, b: int) -> Array:
    """M^T M (b, b), where column i of M is the sum of columns i, i + b, ... of C."""
    from dpkit.factorization.toeplitz import ToeplitzStrategy

    if not isinstance(strategy, ToeplitzStrategy):
        C = _lower_triangular(strategy, n)
        _check_non_negative(strategy, C)
        M = np.stack([np.sum(C[:, i::b], axis=1) for i in range(b)], axis=1)
        return M.T @ M
    mode = strategy.first_column(n)
    _check_non_negative(strategy, mode)
    # Mode i is the first mode i steps later.
    mode = np.pad(mode, (0, -n % b)).reshape(-1, b).cumsum(axis=0).ravel()[:n]
    K = np.zeros((b, b))
    for gap in range(b):
        products = np.cumsum(mode[gap:] * mode[: n - gap])
        starts = np.arange(b - gap)
        K[starts, starts + gap] = K[starts + gap, starts] = products[n - 1 - gap - starts]
    return K


def _num_bands(strategy: "Strategy", n: int) -> int:
    """How many diagonals of C down from the main one hold all its entries, for n iterations."""
    from dpkit.factorization import Banded
    from dpkit.factorization.toeplitz import ToeplitzStrategy, num_bands

    if isinstance(strategy, Banded):
        return int(np.max(np.flatnonzero(np.any(strategy.rows(n), axis=0)))) + 1
    if isinstance(strategy, ToeplitzStrategy):
        return num_bands(strategy.first_column(n))
    rows, columns = np.nonzero(_lower_triangular(strategy, n))
    return int(np.max(rows - columns)) + 1


def _lower_triangular(strategy: "Strategy", n: int) -> Array:
    C = strategy.matrix(n)
    if C.shape != (n, n) or np.any(np.triu(C, 1)):
        raise ValueError(
            f"the matrix of {strategy} is not lower-triangular but has shape {C.shape} for {n} iterations; "
            'use the lower-triangular factor of C^T C (Tree has it as decoder="full")'
        )
    return C


def _check_non_negative(strategy: "Strategy", coefficients: Array) -> None:
    if np.min(coefficients) < 0:
        raise ValueError(
            f"the matrix of {strategy} has the negative entry {np.min(coefficients)}, and balls-in-bins sampling is "
            "proved for matrices without; use cyclic Poisson sampling, or another strategy"
        )

"""Square roots of Toeplitz workloads, whole, banded, and with a banded inverse."""

import dataclasses

import numpy as np

from dpkit import validation
from dpkit.factorization.forms import Form, PastInputs, PastOutputs
from dpkit.factorization.series import divide
from dpkit.factorization.toeplitz import ToeplitzStrategy
from dpkit.factorization.values import Array


@dataclasses.dataclass(frozen=True, eq=False)
class SquareRoot(ToeplitzStrategy):
    """C^2 = A for the prefix sums, or for SGD with constant learning rate 1, momentum and weight decay.

    For prefix sums and one participation this is the best Toeplitz strategy for the max error, whose value is
    sum_{j < n} (binom(2j, j) / 4^j)^2, about (ln n + 3.35) / pi.

    Args:
        momentum: that of the workload, in [0, 1).
        weight_decay: that of the workload, in [0, 1).

    Raises:
        ValueError: an argument is out of range.

    References: Fichtenberger, Henzinger and Upadhyay (2023) for prefix sums; Kalinin and Lampert (2024) for momentum.

    >>> SquareRoot().first_column(4)
    array([1.    , 0.5   , 0.375 , 0.3125])
    """

    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self):
        _check_filter(self)

    def first_column(self, n: int) -> Array:
        return _root_column(n, 1 - self.weight_decay, self.momentum, 0.5)

    def inverse_first_column(self, n: int) -> Array:
        return _root_column(n, 1 - self.weight_decay, self.momentum, -0.5)


@dataclasses.dataclass(frozen=True, eq=False)
class BandedSquareRoot(ToeplitzStrategy):
    """The first `num_bands` diagonals of `SquareRoot`, so that columns num_bands apart are orthogonal.

    Args:
        num_bands: diagonals of C, the main one included, >= 1; 1 is independent noise.
        momentum: that of the workload, in [0, 1).
        weight_decay: that of the workload, in [0, 1).

    Raises:
        ValueError: an argument is out of range.

    References: Kalinin and Lampert (2024), "Banded Square Root Matrix Factorization for DP Model Training".

    >>> BandedSquareRoot(num_bands=2).matrix(3)
    array([[1. , 0. , 0. ],
           [0.5, 1. , 0. ],
           [0. , 0.5, 1. ]])
    """

    num_bands: int
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "num_bands", validation.count("num_bands", self.num_bands, minimum=1))
        _check_filter(self)

    def form(self, iterations: int | None = None) -> Form:
        terms = min(self.num_bands, iterations or self.num_bands)
        return PastOutputs(self.first_column(terms)[None], iterations=iterations)

    def first_column(self, n: int) -> Array:
        return _first_terms(_root_column(min(n, self.num_bands), 1 - self.weight_decay, self.momentum, 0.5), n)

    def inverse_first_column(self, n: int) -> Array:
        return divide(np.eye(1, n)[0], self.first_column(min(n, self.num_bands)))


@dataclasses.dataclass(frozen=True, eq=False)
class BandedInverseSquareRoot(ToeplitzStrategy):
    """C^{-1} is the first `num_bands` diagonals of the inverse of `SquareRoot`: noise from the last num_bands draws.

    Args:
        num_bands: diagonals of C^{-1}, the main one included, >= 1; 1 is independent noise.
        momentum: that of the workload, in [0, 1).
        weight_decay: that of the workload, in [0, 1).

    Raises:
        ValueError: an argument is out of range.

    References: Kalinin, McKenna, Upadhyay and Lampert (2025), "Back to Square Roots".

    >>> BandedInverseSquareRoot(num_bands=2).inverse_matrix(3)
    array([[ 1. ,  0. ,  0. ],
           [-0.5,  1. ,  0. ],
           [ 0. , -0.5,  1. ]])
    """

    num_bands: int
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "num_bands", validation.count("num_bands", self.num_bands, minimum=1))
        _check_filter(self)

    def form(self, iterations: int | None = None) -> Form:
        terms = min(self.num_bands, iterations or self.num_bands)
        return PastInputs(self.inverse_first_column(terms)[None], iterations=iterations)

    def first_column(self, n: int) -> Array:
        return divide(np.eye(1, n)[0], self.inverse_first_column(min(n, self.num_bands)))

    def inverse_first_column(self, n: int) -> Array:
        return _first_terms(_root_column(min(n, self.num_bands), 1 - self.weight_decay, self.momentum, -0.5), n)


def binomial_column(n: int, power: float) -> Array:
    """The first n coefficients of (1 - x)^(-power): of the root of the prefix sums for 1/2, of its inverse for -1/2."""
    j = np.arange(1.0, n)
    return np.concatenate([[1.0], np.cumprod((j - 1 + power) / j)])


def _root_column(n: int, decay: float, momentum: float, power: float) -> Array:
    """The first n coefficients of ((1 - decay x)(1 - momentum x))^(-power)."""
    root, j = binomial_column(n, power), np.arange(n)
    slow, fast = root * decay**j, np.trim_zeros(root * momentum**j, "b")
    if len(fast) == 1:
        return slow
    from scipy import signal  # Here, because it takes longer to load than the rest of the package.

    return signal.convolve(slow, fast)[:n]


def _first_terms(terms: Array, n: int) -> Array:
    return np.concatenate([terms, np.zeros(n - len(terms))])


def _check_filter(strategy: SquareRoot | BandedSquareRoot | BandedInverseSquareRoot) -> None:
    for name in ("momentum", "weight_decay"):
        value = validation.non_negative(name, getattr(strategy, name))
        if value >= 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
        object.__setattr__(strategy, name, value)

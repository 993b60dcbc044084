"""Independent noise."""

import dataclasses

import numpy as np

from dpkit.factorization.forms import Form, White
from dpkit.factorization.toeplitz import ToeplitzStrategy
from dpkit.factorization.values import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Identity(ToeplitzStrategy):
    """C = I: independent noise at every step, as in DP-SGD. Its sensitivity is the root of max_participations, exactly.

    >>> from dpkit.factorization import FixedEpoch
    >>> Identity().sensitivity(FixedEpoch(iterations=8, epochs=4))
    2.0
    """

    def form(self, iterations: int | None = None) -> Form:
        return White(iterations=iterations)

    def first_column(self, n: int) -> Array:
        return np.eye(1, n)[0]

    def inverse_first_column(self, n: int) -> Array:
        return np.eye(1, n)[0]

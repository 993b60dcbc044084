"""Mechanisms: frozen values that say how private one release is, and can make it.

NumPy and SciPy in float64; JAX is imported only inside `privatize`.
"""

from dpkit.mechanisms.base import Mechanism, UnsupportedViewError
from dpkit.mechanisms.composition import Composed, compose, group, repeat
from dpkit.mechanisms.finite_pair import FinitePair
from dpkit.mechanisms.gaussian import Gaussian, GaussianPair
from dpkit.mechanisms.laplace import Laplace, LaplacePair
from dpkit.mechanisms.mixture_of_gaussians import MixtureOfGaussians
from dpkit.mechanisms.pair import DominatingPair, SampledPair
from dpkit.mechanisms.randomized_response import RandomizedResponse
from dpkit.mechanisms.sampling import PoissonSampled
from dpkit.mechanisms.zero_concentrated import ZeroConcentrated

__all__ = [
    "Composed",
    "DominatingPair",
    "FinitePair",
    "Gaussian",
    "GaussianPair",
    "Laplace",
    "LaplacePair",
    "Mechanism",
    "MixtureOfGaussians",
    "PoissonSampled",
    "RandomizedResponse",
    "SampledPair",
    "UnsupportedViewError",
    "ZeroConcentrated",
    "compose",
    "group",
    "repeat",
]

"""Mechanisms: frozen values that say how private one release is, and can make it.

NumPy and SciPy in float64; JAX is imported only inside `privatize`.
"""

from dpkit.mechanisms.balls_in_bins import BallsInBins
from dpkit.mechanisms.base import Mechanism, UnsupportedViewError
from dpkit.mechanisms.bounded_mean import BoundedMean
from dpkit.mechanisms.composition import Composed, compose, group, repeat
from dpkit.mechanisms.discrete_gaussian import DiscreteGaussian
from dpkit.mechanisms.distributed_discrete_gaussian import DistributedDiscreteGaussian
from dpkit.mechanisms.finite_pair import FinitePair
from dpkit.mechanisms.fixed_size import FixedSizePair, FixedSizeSampled
from dpkit.mechanisms.gaussian import Gaussian, GaussianPair
from dpkit.mechanisms.laplace import Laplace, LaplacePair
from dpkit.mechanisms.mixture_of_gaussians import MixtureOfGaussians
from dpkit.mechanisms.pair import DominatingPair, SampledPair
from dpkit.mechanisms.per_instance import BudgetExceededError, PerInstanceFilter, PerInstanceRenyi
from dpkit.mechanisms.poisson_binomial import PoissonBinomial
from dpkit.mechanisms.randomized_quantization import RandomizedQuantization
from dpkit.mechanisms.randomized_response import RandomizedResponse
from dpkit.mechanisms.rectified_gaussian import RectifiedGaussian
from dpkit.mechanisms.sampling import PoissonSampled
from dpkit.mechanisms.skellam import Skellam
from dpkit.mechanisms.sparsified_gaussian import SparsifiedGaussian
from dpkit.mechanisms.truncated_gaussian import TruncatedGaussian
from dpkit.mechanisms.zero_concentrated import ZeroConcentrated

__all__ = [
    "BallsInBins",
    "BoundedMean",
    "BudgetExceededError",
    "Composed",
    "DiscreteGaussian",
    "DistributedDiscreteGaussian",
    "DominatingPair",
    "FinitePair",
    "FixedSizePair",
    "FixedSizeSampled",
    "Gaussian",
    "GaussianPair",
    "Laplace",
    "LaplacePair",
    "Mechanism",
    "MixtureOfGaussians",
    "PerInstanceFilter",
    "PerInstanceRenyi",
    "PoissonBinomial",
    "PoissonSampled",
    "RandomizedQuantization",
    "RandomizedResponse",
    "RectifiedGaussian",
    "SampledPair",
    "Skellam",
    "SparsifiedGaussian",
    "TruncatedGaussian",
    "UnsupportedViewError",
    "ZeroConcentrated",
    "compose",
    "group",
    "repeat",
]

"""Factorizations A = B C of workloads: participation schemas, strategies, their errors and their sensitivities."""

from dpkit.factorization.banded import Banded
from dpkit.factorization.banded_toeplitz import BandedToeplitz
from dpkit.factorization.base import Strategy
from dpkit.factorization.blt import BufferedLinearToeplitz
from dpkit.factorization.dense import Dense
from dpkit.factorization.files import SavedStrategy, load, save
from dpkit.factorization.identity import Identity
from dpkit.factorization.optimize import optimize
from dpkit.factorization.participation import FixedEpoch, MinSep, ParticipationSchema, SingleParticipation
from dpkit.factorization.solution import Progress, Solution
from dpkit.factorization.square_roots import BandedInverseSquareRoot, BandedSquareRoot, SquareRoot
from dpkit.factorization.tree import Tree
from dpkit.factorization.window_scaled import WindowScaled
from dpkit.factorization.workload import Workload, cooldown_schedule, from_matrix, momentum_sgd, prefix_sum

__all__ = [
    "Banded",
    "BandedInverseSquareRoot",
    "BandedSquareRoot",
    "BandedToeplitz",
    "BufferedLinearToeplitz",
    "Dense",
    "FixedEpoch",
    "Identity",
    "MinSep",
    "ParticipationSchema",
    "Progress",
    "SavedStrategy",
    "SingleParticipation",
    "Solution",
    "SquareRoot",
    "Strategy",
    "Tree",
    "WindowScaled",
    "Workload",
    "cooldown_schedule",
    "from_matrix",
    "load",
    "momentum_sgd",
    "optimize",
    "prefix_sum",
    "save",
]

"""Accountants: from a mechanism to certified bounds on epsilon and delta."""

from dpkit.accounting import amplified
from dpkit.accounting.base import Bounds, PrivacyAccountant
from dpkit.accounting.calibration import (
    calibrate,
    calibrate_advantage,
    calibrate_iterations,
    calibrate_sampling_probability,
)
from dpkit.accounting.monte_carlo import MonteCarloAccountant
from dpkit.accounting.per_instance import PerInstanceEpsilon, per_instance_epsilon
from dpkit.accounting.pld import PldAccountant
from dpkit.accounting.rdp import RdpAccountant, ZcdpAccountant
from dpkit.accounting.sweep import sweep
from dpkit.accounting.tradeoff import advantage, trade_off, true_positive_rate

__all__ = [
    "Bounds",
    "MonteCarloAccountant",
    "PerInstanceEpsilon",
    "PldAccountant",
    "PrivacyAccountant",
    "RdpAccountant",
    "ZcdpAccountant",
    "advantage",
    "amplified",
    "calibrate",
    "calibrate_advantage",
    "calibrate_iterations",
    "calibrate_sampling_probability",
    "per_instance_epsilon",
    "sweep",
    "trade_off",
    "true_positive_rate",
]

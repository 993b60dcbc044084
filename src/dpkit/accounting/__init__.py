"""Accountants: from a mechanism to certified bounds on epsilon and delta."""

from dpkit.accounting.base import Bounds, PrivacyAccountant
from dpkit.accounting.calibration import calibrate
from dpkit.accounting.pld import PldAccountant
from dpkit.accounting.rdp import RdpAccountant, ZcdpAccountant

__all__ = ["Bounds", "PldAccountant", "PrivacyAccountant", "RdpAccountant", "ZcdpAccountant", "calibrate"]

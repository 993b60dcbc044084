"""From a training config to its privacy: what was run, what it guarantees, and how to say so.

NumPy and SciPy in float64 beneath; pydantic at the boundary only.
"""

from dpkit.training.config import TrainingConfig, load_config
from dpkit.training.plan import TrainingPlan, plan
from dpkit.training.problems import ConfigError
from dpkit.training.report import PrivacyReport
from dpkit.training.summary import Summary

__all__ = ["ConfigError", "PrivacyReport", "Summary", "TrainingConfig", "TrainingPlan", "load_config", "plan"]

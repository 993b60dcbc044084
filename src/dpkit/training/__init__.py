"""From a training config to its privacy: what was run, what it guarantees, and how to say so.

NumPy and SciPy in float64 beneath; pydantic at the boundary only. Gradients are JAX's, which loads on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dpkit.training.config import TrainingConfig, load_config
from dpkit.training.plan import TrainingPlan, plan
from dpkit.training.problems import ConfigError
from dpkit.training.report import PrivacyReport
from dpkit.training.summary import Summary

if TYPE_CHECKING:
    from dpkit.training.adaptive_clipping import AdaptiveClipping, NoiseSplit, split_noise
    from dpkit.training.clipping import clip_pytree
    from dpkit.training.gradients import PerExample, clipped_grad
    from dpkit.training.preconditioning import Preconditioner, adadps, delayed_preconditioner

__all__ = [
    "AdaptiveClipping",
    "ConfigError",
    "NoiseSplit",
    "PerExample",
    "Preconditioner",
    "PrivacyReport",
    "Summary",
    "TrainingConfig",
    "TrainingPlan",
    "adadps",
    "clip_pytree",
    "clipped_grad",
    "delayed_preconditioner",
    "load_config",
    "plan",
    "split_noise",
]

_JAX = {
    "AdaptiveClipping": "adaptive_clipping",
    "NoiseSplit": "adaptive_clipping",
    "PerExample": "gradients",
    "Preconditioner": "preconditioning",
    "adadps": "preconditioning",
    "clip_pytree": "clipping",
    "clipped_grad": "gradients",
    "delayed_preconditioner": "preconditioning",
    "split_noise": "adaptive_clipping",
}


def __getattr__(name: str) -> Any:
    if name in _JAX:
        return getattr(importlib.import_module(f"dpkit.training.{_JAX[name]}"), name)
    raise AttributeError(f"module 'dpkit.training' has no attribute {name!r}")

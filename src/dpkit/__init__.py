"""dpkit: certified differential-privacy accounting and mechanisms for people who train models."""

import importlib
from typing import TYPE_CHECKING, Any

from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    from dpkit import accounting, factorization, interop, mechanisms, noise, training

__version__ = "0.1.0"
__all__ = [
    "NeighboringRelation",
    "__version__",
    "accounting",
    "factorization",
    "interop",
    "mechanisms",
    "noise",
    "training",
]


def __getattr__(name: str) -> Any:
    # Subpackages load on first use, so that `import dpkit` costs nothing.
    if name in __all__:
        return importlib.import_module(f"dpkit.{name}")
    raise AttributeError(f"module 'dpkit' has no attribute {name!r}")

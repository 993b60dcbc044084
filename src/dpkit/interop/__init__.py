"""Bridges to other libraries, one file each; a bridge imports its library when it is first used."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpkit.interop import dp_accounting, jax_privacy, opacus, torch

__all__ = ["dp_accounting", "jax_privacy", "opacus", "torch"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"dpkit.interop.{name}")
    raise AttributeError(f"module 'dpkit.interop' has no attribute {name!r}")

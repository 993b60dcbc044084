"""Bridges to packages that a default installation lacks are collected where those are installed: see .ci/interop."""

import importlib.util

_PACKAGES = ("equinox", "flax", "jax_privacy", "opacus", "torch")
_MISSING = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]

collect_ignore = [f"src/dpkit/interop/{name}.py" for name in _MISSING] + ["tests/interop_extras"] * bool(_MISSING)

"""Libraries that a default installation lacks."""

import importlib
from typing import Any


def required(module: str) -> Any:
    """The module of another library, by its absolute name; untyped, because it may not be there to be looked at.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the command that installs it.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # Something that the library itself lacks.
        raise ModuleNotFoundError(
            f"{package} is not installed, and dpkit.interop.{package} needs it: pip install {package}", name=package
        ) from error

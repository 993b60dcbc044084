"""Configs for tests: one valid run, and any change to it."""

import copy
import pathlib
from typing import Any

TABLES: dict[str, dict[str, Any]] = {
    "data": {"examples": 60_000, "unit": "example"},
    "training": {"batch_size": 256, "epochs": 60, "sampling": "poisson"},
    "mechanism": {"kind": "gaussian", "noise_multiplier": 1.1, "l2_clip_norm": 1.0},
    "privacy": {"delta": 1e-5, "relation": "add_or_remove_one", "accountant": "pld"},
}

VALID = """
[data]
examples = 60_000
unit = "example"
[training]
batch_size = 256
epochs = 60
sampling = "poisson"
[mechanism]
kind = "gaussian"
noise_multiplier = 1.1
l2_clip_norm = 1.0
[privacy]
delta = 1e-5
relation = "add_or_remove_one"
accountant = "pld"
"""

# A run whose epsilon has a closed form: 4 steps of noise 4 are one of noise 2.
FULL_BATCH = (
    VALID.replace("epochs = 60", "iterations = 4")
    .replace("poisson", "full_batch")
    .replace("batch_size = 256\n", "")
    .replace("noise_multiplier = 1.1", "noise_multiplier = 4.0")
)


def changed(**changes: Any) -> dict[str, dict[str, Any]]:
    """The valid tables with `table__key=value` changes; None removes the key."""
    tables = copy.deepcopy(TABLES)
    for place, value in changes.items():
        table, key = place.split("__")
        tables.setdefault(table, {})[key] = value
        if value is None:
            del tables[table][key]
    return tables


def write(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "train.toml"
    path.write_text(text, encoding="utf-8")
    return path

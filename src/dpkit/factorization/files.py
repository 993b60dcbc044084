"""Strategies on disk: one `.npz` file that says for which run it was made, and is checked when it is read back."""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import tempfile
import zipfile
from typing import Any

import numpy as np

from dpkit.factorization.base import Strategy
from dpkit.factorization.participation import ParticipationSchema
from dpkit.factorization.values import Array

VERSION = 1
_FORMAT = "dpkit strategy"
_METADATA = "metadata"
_CHECKSUM = "sha256"
# The sensitivity is computed anew, perhaps on another machine: the same formula to rounding.
_SENSITIVITY_RTOL = 1e-9
# What NumPy, zipfile and json raise for other files and for damaged ones of ours.
_NOT_OURS = (zipfile.BadZipFile, OSError, EOFError, LookupError, RuntimeError, ValueError, AttributeError, TypeError)


@dataclasses.dataclass(frozen=True)
class SavedStrategy:
    """What a strategy file holds.

    Args:
        strategy: as it was saved, bit for bit.
        schema: the participation schema it was saved for.
        sensitivity: of `strategy` under `schema`, computed anew when the file was read.
    """

    strategy: Strategy
    schema: ParticipationSchema
    sensitivity: float


def save(path: str | os.PathLike[str], strategy: Strategy, schema: ParticipationSchema) -> None:
    """Writes a strategy, and the participation schema it is meant for, to a file that `load` reads.

    The file is a NumPy `.npz` archive: the array `metadata` is UTF-8 JSON with `format`, `version`, `strategy` and
    `schema` (class name and arguments, `{"array": NAME}` for an argument that is the archive's float64 array NAME),
    `sensitivity`, and `sha256`, the digest of all of that. An existing file is replaced only once the new one is
    complete.

    Args:
        path: of the file, usually with the suffix `.npz`.
        strategy: a strategy with its coefficients.
        schema: how units take part in the run.

    Raises:
        ValueError: the strategy has no coefficients yet, or no sensitivity under `schema`.
        OSError: the file cannot be written.

    >>> import os, tempfile
    >>> from dpkit import factorization as fz
    >>> strategy = fz.BufferedLinearToeplitz(theta=[0.9], omega=[0.2])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "strategy.npz")
    ...     fz.save(path, strategy, fz.SingleParticipation(iterations=100))
    ...     fz.load(path).strategy == strategy
    True
    """
    path = pathlib.Path(path)
    arrays: dict[str, Array] = {}
    metadata: dict[str, Any] = {
        "format": _FORMAT,
        "version": VERSION,
        "strategy": _encode(strategy, arrays),
        "schema": _encode(schema, arrays),
        "sensitivity": strategy.sensitivity(schema),
    }
    metadata[_CHECKSUM] = _digest(metadata, arrays)
    text = np.frombuffer(json.dumps(metadata).encode(), dtype=np.uint8)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **{_METADATA: text}, **arrays)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: str | os.PathLike[str]) -> SavedStrategy:
    """Reads a file that `save` wrote, and verifies it.

    Raises:
        ValueError: it is not such a file, is of a later version, is damaged or was altered (its checksum differs), does
            not describe a strategy, or the sensitivity it states is not that of the strategy in it.
        OSError: there is no such file, or it cannot be read.

    Guarantees: the checksum shows damage and careless edits; against an author of false files it proves nothing. The
    sensitivity does not rest on it: it is computed from the strategy that was read.
    """
    metadata, arrays = _read(path)
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a strategy file; write one with dpkit.factorization.save")
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {metadata.get('version')} of the strategy format, and this dpkit reads version "
            f"{VERSION}; use the dpkit that wrote it"
        )
    stated = metadata.pop(_CHECKSUM, None)
    if stated != _digest(metadata, arrays):
        raise ValueError(f"{path} is damaged or was altered: its checksum does not match; write it again")
    try:
        strategy, schema = _decode(metadata["strategy"], arrays), _decode(metadata["schema"], arrays)
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path} does not describe a strategy and a participation schema ({error})") from None
    if not isinstance(strategy, Strategy) or not isinstance(schema, ParticipationSchema):
        raise ValueError(f"{path} does not describe a strategy and a participation schema")
    sensitivity = strategy.sensitivity(schema)
    if not abs(sensitivity - metadata["sensitivity"]) <= _SENSITIVITY_RTOL * sensitivity:
        raise ValueError(
            f"{path} states the sensitivity {metadata['sensitivity']}, but that of its strategy is {sensitivity}; "
            "do not use it for private training"
        )
    return SavedStrategy(strategy, schema, sensitivity)


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    content = io.BytesIO(pathlib.Path(path).read_bytes())
    try:
        with np.load(content, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        metadata = json.loads(arrays.pop(_METADATA).tobytes())
    except _NOT_OURS as error:
        raise ValueError(f"{path} is not a complete strategy file ({error}); write it again") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} is not a strategy file; write one with dpkit.factorization.save")
    return metadata, arrays


def _encode(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray):
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if dataclasses.is_dataclass(value):
        fields = {f.name: _encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value) if f.init}
        return {"class": type(value).__name__, "arguments": fields}
    return value


def _decode(value: Any, arrays: dict[str, Array]) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    from dpkit import factorization

    # Only what this package makes public: a file names no code.
    kind = getattr(factorization, value["class"], None) if value["class"] in factorization.__all__ else None
    if not (isinstance(kind, type) and issubclass(kind, Strategy | ParticipationSchema)):
        raise LookupError(f"there is no strategy or schema called {value['class']!r}")
    return kind(**{name: _decode(argument, arrays) for name, argument in value["arguments"].items()})


def _digest(metadata: dict[str, Any], arrays: dict[str, Array]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()

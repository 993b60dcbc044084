"""Results kept on disk, each under a digest of everything that it depends on."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import tempfile
from typing import Any

import dpkit


def default_folder() -> pathlib.Path:
    """`dpkit` in the user's cache folder, which `XDG_CACHE_HOME` may name."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "dpkit"


@functools.cache
def software() -> str:
    """A digest of what computes: the source of dpkit, because code changes between versions, and what is beneath it."""
    root = pathlib.Path(dpkit.__file__).parent
    sources = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))}
    below = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "numba")}
    return digest({"dpkit": dpkit.__version__, "sources": sources, **below})


def digest(value: Any) -> str:
    """SHA-256 of nested dicts and lists in one canonical spelling; what JSON lacks is spelled as `str` has it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class ResultCache:
    """One small JSON file per result, which any number of processes may read and write at the same time.

    Args:
        folder: made if it does not exist.

    Raises:
        OSError: the folder cannot be made or written to.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache, key = ResultCache(folder), digest({"epsilon": 2.0})
    ...     cache.put(key, {"rmse": 0.1})
    ...     cache.get(key)
    {'rmse': 0.1}
    """

    folder: str | os.PathLike[str]

    def __post_init__(self):
        os.makedirs(self.folder, exist_ok=True)
        # Whether files can be made is found out now, and not after long work.
        tempfile.TemporaryFile(dir=self.folder).close()

    def get(self, key: str) -> Any:
        """The result under `key`; None where there is none, or what the file holds is not what was put there."""
        try:
            entry = json.loads(self._path(key).read_bytes())
            return entry["result"] if entry["sha256"] == digest([key, entry["result"]]) else None
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):  # Torn or tampered with.
            return None

    def put(self, key: str, result: Any) -> None:
        """Keeps a JSON value; whoever looks sees all of it or nothing."""
        text = json.dumps({"sha256": digest([key, result]), "result": result})
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix=".", delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, self._path(key))

    def _path(self, key: str) -> pathlib.Path:
        return pathlib.Path(self.folder) / f"{key}.json"

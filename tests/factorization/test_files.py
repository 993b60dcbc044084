"""Strategy files: what is refused when one is read."""

import hashlib
import json

import numpy as np
import pytest

from dpkit import factorization as fz

STRATEGY = fz.Banded(num_bands=2, coefficients=[[0.8, 0.0], [0.8, 0.6], [1.0, 0.6]])
SCHEMA = fz.MinSep(iterations=3, min_sep=2)


@pytest.fixture
def path(tmp_path):
    fz.save(tmp_path / "strategy.npz", STRATEGY, SCHEMA)
    return tmp_path / "strategy.npz"


def rewrite(path, change, *, sealed):
    """The same file, its metadata and arrays changed; `sealed`: with a checksum that matches, as the docs define it."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    metadata = json.loads(arrays.pop("metadata").tobytes())
    metadata["arrays"] = arrays
    change(metadata)
    arrays = metadata.pop("arrays")
    if sealed:
        del metadata["sha256"]
        digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
        metadata["sha256"] = digest.hexdigest()
    np.savez(path, metadata=np.frombuffer(json.dumps(metadata).encode(), dtype=np.uint8), **arrays)


def test_an_untouched_rewrite_is_read(path):
    rewrite(path, lambda content: None, sealed=True)  # noqa: ARG005
    assert fz.load(path).strategy == STRATEGY


def test_every_damaged_byte_is_noticed_or_harmless(path):
    content = bytearray(path.read_bytes())
    for position in range(len(content)):
        damaged = content.copy()
        damaged[position] ^= 0x41
        path.write_bytes(damaged)
        try:
            found = fz.load(path)
        except ValueError:
            continue
        # For instance the time stamp of an archive member.
        assert (found.strategy, found.schema) == (STRATEGY, SCHEMA)


def test_every_truncated_file_is_refused(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"not a complete strategy file|damaged"):
            fz.load(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + bytes(18)])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"strategy\.npz is not a complete strategy file"):
        fz.load(path)


def test_other_archives_are_refused(path):
    with path.open("wb") as file:
        np.savez(file, metadata=np.frombuffer(b"[]", dtype=np.uint8))
    with pytest.raises(ValueError, match="is not a strategy file"):
        fz.load(path)


def set_entry(key, value):
    def change(content):
        content[key] = value

    return change


def quieter(content):
    content["arrays"]["array_0"] = content["arrays"]["array_0"] * 2


def smaller_sensitivity(content):
    content["sensitivity"] *= 0.5


def other_class(name):
    def change(content):
        content["strategy"]["class"] = name

    return change


@pytest.mark.parametrize(
    "change", [quieter, smaller_sensitivity, set_entry("comment", "added"), other_class("Identity")]
)
def test_altered_files_are_refused(path, change):
    rewrite(path, change, sealed=False)
    with pytest.raises(ValueError, match="damaged or was altered"):
        fz.load(path)


@pytest.mark.parametrize("change", [quieter, smaller_sensitivity])
def test_a_matching_checksum_does_not_excuse_a_wrong_sensitivity(path, change):
    rewrite(path, change, sealed=True)
    with pytest.raises(ValueError, match="states the sensitivity"):
        fz.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_entry("version", 2), "version 2 of the strategy format"),
        (set_entry("format", "other"), "is not a strategy file"),
        (other_class("optimize"), "no strategy or schema called 'optimize'"),
        (other_class("os"), "no strategy or schema called 'os'"),
        (other_class("MinSep"), "strategy"),
    ],
)
def test_what_cannot_be_read_is_named(path, change, message):
    rewrite(path, change, sealed=True)
    with pytest.raises(ValueError, match=message):
        fz.load(path)


def test_nothing_without_coefficients_is_saved(tmp_path):
    with pytest.raises(ValueError, match="no coefficients yet"):
        fz.save(tmp_path / "strategy.npz", fz.Banded(num_bands=2), SCHEMA)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        fz.save(path, fz.Identity(), SCHEMA)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["strategy.npz"]

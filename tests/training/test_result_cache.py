"""Results on disk: what comes back is what was put there, or nothing."""

import json
import pathlib

import pytest

from dpkit.training import result_cache
from dpkit.training.result_cache import ResultCache, digest

KEY = digest({"epsilon": 1.0})
RESULT = {"rmse": 0.1 + 0.2, "gap": None, "strategy": {"num_bands": 4}}


@pytest.fixture
def cache(tmp_path):
    made = ResultCache(tmp_path / "not" / "there")
    made.put(KEY, RESULT)
    return made


def test_what_is_put_comes_back(cache):
    assert cache.get(KEY) == RESULT
    assert cache.get(digest({"epsilon": 2.0})) is None
    cache.put(KEY, {})
    assert cache.get(KEY) == {}
    assert [path.name for path in pathlib.Path(cache.folder).iterdir()] == [f"{KEY}.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda text: text.replace("4", "5"),
        lambda text: json.dumps(json.loads(text)["result"]),
        lambda text: json.dumps([text]),
        lambda _: "[" * 100_000,
        lambda _: "\xff" * 9,
    ],
    ids=["torn", "empty", "another number", "no digest", "a list", "too deep", "not UTF-8"],
)
def test_a_damaged_entry_is_none(cache, damage):
    (path,) = pathlib.Path(cache.folder).iterdir()
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="latin-1")
    assert cache.get(KEY) is None
    cache.put(KEY, RESULT)
    assert cache.get(KEY) == RESULT


def test_an_entry_under_the_key_of_another_is_none(cache):
    (path,) = pathlib.Path(cache.folder).iterdir()
    other = digest({"epsilon": 2.0})
    path.rename(path.with_name(f"{other}.json"))
    assert cache.get(other) is None


def test_half_an_entry_is_never_seen(cache, monkeypatch):
    def torn(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(result_cache.os, "replace", torn)
    with pytest.raises(KeyboardInterrupt):
        cache.put(KEY, {"rmse": 2.0})
    assert cache.get(KEY) == RESULT


def test_the_folder_is_checked_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file"):
        ResultCache(tmp_path / "file")


def test_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert result_cache.default_folder() == tmp_path / "dpkit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert result_cache.default_folder() == tmp_path / ".cache" / "dpkit"


def test_a_digest_knows_every_value_and_no_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    values = [{"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1}, {"a": None}, {"a": [1]}, {"a": 0.1}, {"a": 0.1 + 2**-56}]
    assert len(set(map(digest, values))) == len(values)


def test_the_digest_of_the_software_is_that_of_its_sources(monkeypatch, tmp_path):
    def of(text, version="1"):
        (tmp_path / "module.py").write_text(text)
        monkeypatch.setattr(result_cache.dpkit, "__file__", str(tmp_path / "__init__.py"))
        monkeypatch.setattr(result_cache.dpkit, "__version__", version)
        return result_cache.software.__wrapped__()

    assert of("x = 1") == of("x = 1")
    assert len({of("x = 1"), of("x = 2"), of("x = 1", "2")}) == 3

"""Without their libraries, bridges say what to install; everything else does without them."""

import subprocess
import sys

import pytest

from dpkit import interop
from dpkit.interop.optional import required

WITH_EXTRAS = ("jax_privacy", "opacus", "torch")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", WITH_EXTRAS)
def test_a_missing_library_is_named_with_its_remedy(name):
    code = f"""
import sys
from dpkit import interop
sys.modules["{name}"] = None  # As if it were not installed.
try:
    interop.{name}
except ModuleNotFoundError as error:
    print(error)
"""
    expected = f"{name} is not installed, and dpkit.interop.{name} needs it: pip install {name}\n"
    assert python(code) == expected


def test_what_a_library_lacks_itself_is_not_blamed_on_it(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_library_at_all\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_library_at_all'$"):
        required("half_installed")


def test_required_gives_the_module():
    assert required("dpkit.relations").NeighboringRelation is interop.dp_accounting.mechanisms.base.NeighboringRelation


def test_no_bridge_is_loaded_unasked():
    loaded = python("import sys, dpkit.interop, dpkit.noise, dpkit.training, dpkit.cli\nprint(sorted(sys.modules))")
    assert not [name for name in WITH_EXTRAS if f"'{name}'" in loaded]
    assert "'dpkit.noise'" in loaded

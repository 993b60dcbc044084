"""What each entry point loads. Times depend on the machine, modules do not; `benchmarks/startup.py` takes times."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FRAMEWORKS = {"jax", "jaxlib", "dp_accounting", "tensorflow", "torch", "matplotlib"}
# A third of a second each, and nothing that accounting needs.
HEAVY_SCIPY = {"scipy.stats", "scipy.optimize"}
# typer itself loads pydantic for the help of a command that has options.
NUMERICAL = {"numpy", "scipy", "numba", "rich"}


def loaded(code: str) -> set[str]:
    """Names of all modules in a fresh interpreter after `code`."""
    # At exit, because the command line ends the interpreter by itself.
    report = "import atexit, sys; atexit.register(lambda: print('', *sys.modules, file=sys.stderr))"
    command = f"{report}\n{code}"
    result = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return set(result.stderr.splitlines()[-1].split())


def command_line(*arguments: str) -> str:
    return f"import sys; sys.argv = {['dpkit', *arguments]!r}; from dpkit.cli import main; main()"


def test_the_package_loads_nothing():
    found = loaded("import dpkit")
    assert not found & (FRAMEWORKS | HEAVY_SCIPY | NUMERICAL | {"typer", "pydantic"})


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("epsilon", "--help"), ("optimize", "--help")])
def test_help_loads_nothing_numerical(arguments):
    assert not loaded(command_line(*arguments)) & (FRAMEWORKS | HEAVY_SCIPY | NUMERICAL)


@pytest.mark.parametrize("floor", ["numerics", "mechanisms", "accounting", "training", "cli", "cli.output"])
def test_floors_load_no_framework(floor):
    assert not loaded(f"import dpkit.{floor}") & (FRAMEWORKS | HEAVY_SCIPY)


@pytest.mark.parametrize("command", ["epsilon", "report"])
def test_accounting_for_a_run_loads_no_framework(command):
    found = loaded(command_line(command, "examples/mnist_dpsgd.toml"))
    assert "numpy" in found
    assert not found & (FRAMEWORKS | HEAVY_SCIPY)


def test_interop_loads_what_it_translates():
    assert "dp_accounting" in loaded("import dpkit.interop.dp_accounting")
    assert "dp_accounting" not in loaded("import dpkit.interop")

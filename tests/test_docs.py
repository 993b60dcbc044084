"""What `docs/` shows is what happens: its commands and configs are run, and nothing public lacks a page.

Its Python examples run as doctests. Examples for loaders of other frameworks run where these are installed.
"""

import inspect
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

import dpkit
from dpkit import factorization, mechanisms, training

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")}
TEXT = "\n".join(PAGES.values())
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
BLOCKS = [
    (page, language, code)
    for page, text in sorted(PAGES.items())
    for language, code in re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
]


def blocks(language: str) -> list:
    return [pytest.param(code, id=f"{page}-{i}") for i, (page, kind, code) in enumerate(BLOCKS) if kind == language]


def commands() -> list[str]:
    return sorted({line for _, language, code in BLOCKS if language == "sh" for line in code.splitlines()})


@pytest.mark.parametrize("command", commands())
def test_commands_run(command):
    program, *arguments = shlex.split(command)
    assert program == "dpkit"
    result = subprocess.run(
        [sys.executable, "-m", "dpkit", *arguments], capture_output=True, timeout=120, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout


@pytest.mark.parametrize("text", blocks("toml"))
def test_configs_are_valid(text):
    training.plan(training.TrainingConfig.parse(tomllib.loads(text)))


@pytest.mark.parametrize("code", blocks("python"))
def test_examples_for_other_frameworks(code):
    framework = re.search(r"^import (\w+)", code, flags=re.MULTILINE)
    assert framework, "write it as an interactive session, which is tested everywhere"
    compiled = compile(code, "docs", "exec")
    pytest.importorskip(framework[1])
    exec(compiled, {"__name__": "docs"})


def test_every_block_is_run_or_no_code():
    # `pycon` runs as a doctest, if it has a prompt; what is left is output, formulas and files.
    assert {language for _, language, _ in BLOCKS} <= {"pycon", "python", "sh", "toml", "text", "yaml", "bibtex"}
    assert all(code.startswith(">>> ") for _, language, code in BLOCKS if language == "pycon")


def test_the_epsilon_of_the_tour_is_the_one_in_its_example():
    (shown,) = re.findall(r"epsilon \(PLD\) .*\[([\d.]+), ([\d.]+)\]", PAGES["docs/index.md"])
    bounds = training.plan(training.load_config(ROOT / "examples" / "mnist_dpsgd.toml")).epsilon()
    assert [float(end) for end in shown] == pytest.approx([bounds.lower, bounds.upper], abs=1e-4)


def _public(package, base) -> list[type]:
    found = (getattr(package, name) for name in package.__all__)
    return [value for value in found if inspect.isclass(value) and issubclass(value, base) and value is not base]


@pytest.mark.parametrize("mechanism", _public(mechanisms, mechanisms.Mechanism), ids=lambda kind: kind.__name__)
def test_every_mechanism_has_a_page(mechanism):
    pages = [page for page, text in PAGES.items() if re.match(rf"# {mechanism.__name__}\b", text)]
    assert [page.split("/")[1] for page in pages] == ["mechanisms"]
    for part in ("**Guaranteed.**", "**Assumes.**", "**When to use it.**", "**Reference.**"):
        assert part in PAGES[pages[0]]


@pytest.mark.parametrize("strategy", _public(factorization, factorization.Strategy), ids=lambda kind: kind.__name__)
def test_every_strategy_has_a_page(strategy):
    pages = [page for page, text in PAGES.items() if re.match(rf"# {strategy.__name__}\b", text)]
    assert [page.split("/")[1] for page in pages] == ["strategies"]
    for part in ("**Guaranteed.**", "**Memory and time.**", "**When to use it.**", "**Reference.**"):
        assert part in PAGES[pages[0]]


@pytest.mark.parametrize("kind", sorted(training.kinds.KINDS))
def test_every_kind_of_config_is_explained(kind):
    assert f'`kind = "{kind}"`' in TEXT


@pytest.mark.parametrize("package", [name for name in dpkit.__all__ if inspect.ismodule(getattr(dpkit, name))])
def test_every_package_has_a_reference(package):
    assert re.search(rf"^::: dpkit\.{package}\b", TEXT, flags=re.MULTILINE)


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_page_is_in_the_navigation(page):
    assert NAVIGATION.count(f" {page.removeprefix('docs/')}\n") == 1


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:examples|notebooks)/[\w./]+\.\w+)`", TEXT))))
def test_files_that_are_named_exist(path):
    assert (ROOT / path).exists()


def test_references_lead_to_something_public():
    for name in re.findall(r"\]\[(dpkit[\w.]+)\]", TEXT):
        package, _, member = name.rpartition(".")
        value = dpkit
        for part in package.split(".")[1:]:
            __import__(f"{value.__name__}.{part}")
            value = getattr(value, part)
        assert hasattr(value, member), name


def test_the_version_to_cite_is_this_one():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in citation
    assert f"version = {{{project['version']}}}" in PAGES["docs/citing.md"]
    assert f"\nlicense: {project['license']}\n" in citation

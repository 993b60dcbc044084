"""Floors that must start fast, and keep float64 without a global switch, do not load JAX when they are imported.

Which package may import which at all is checked by import-linter (`lint-imports`).
"""

import ast
import pathlib
from collections.abc import Iterator

import pytest

import dpkit

PACKAGE = pathlib.Path(dpkit.__file__).parent
WITHOUT_JAX = ("numerics", "mechanisms", "accounting", "factorization")
MODULES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.parent == PACKAGE or path.relative_to(PACKAGE).parts[0] in WITHOUT_JAX
)


def imported_at_once(body: list[ast.stmt]) -> Iterator[str]:
    """Top-level names of the packages that these statements import when they are executed."""
    for statement in body:
        match statement:
            case ast.Import():
                yield from (alias.name.split(".")[0] for alias in statement.names)
            case ast.ImportFrom():
                yield (statement.module or "").split(".")[0]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                continue  # runs later, if ever
            case ast.If() if "TYPE_CHECKING" in ast.unparse(statement.test):
                yield from imported_at_once(statement.orelse)
            case _:
                for name in ("body", "orelse", "handlers", "finalbody", "cases"):
                    for inner in getattr(statement, name, []):
                        yield from imported_at_once([inner] if isinstance(inner, ast.stmt) else inner.body)


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_jax_is_not_imported_at_module_level(path):
    found = set(imported_at_once(ast.parse(path.read_text(encoding="utf-8")).body))
    assert not found & {"jax", "jaxlib", "dp_accounting"}


def test_every_floor_is_a_package():
    missing = {path.parent for path in PACKAGE.rglob("*.py")} - {path.parent for path in PACKAGE.rglob("__init__.py")}
    assert not missing


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import jax.numpy as jnp", {"jax"}),
        ("from jax import numpy", {"jax"}),
        ("try:\n    import jax\nexcept ImportError:\n    import numpy", {"jax", "numpy"}),
        ("class A:\n    import jax", {"jax"}),
        ("if True:\n    pass\nelse:\n    import jax", {"jax"}),
        ("with open('x'):\n    from jax import lax", {"jax"}),
        ("match 1:\n    case 1:\n        import jax", {"jax"}),
        ("def f():\n    import jax", set()),
        ("class A:\n    def f(self):\n        import jax", set()),
        ("if TYPE_CHECKING:\n    import jax\nelse:\n    import numpy", {"numpy"}),
    ],
)
def test_the_search_finds_what_runs_at_import(source, expected):
    assert set(imported_at_once(ast.parse(source).body)) == expected

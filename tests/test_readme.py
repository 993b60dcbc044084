"""README.md says what really happens: its commands are run, and the numbers it shows are compared.

Its Python examples run as doctests.
"""

import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from dpkit import factorization as fz
from dpkit import training
from dpkit.training import fields, kinds

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
SHELL = [text.strip() for language, text in BLOCKS if language == "sh"]
SHOWN = [
    (command.strip(), shown)
    for (language, command), (following, shown) in itertools.pairwise(BLOCKS)
    if (language, following) == ("sh", "text")
]


def dpkit(command: str) -> subprocess.CompletedProcess[str]:
    """Runs the last part of a shell command, which calls dpkit, in this interpreter."""
    program, *arguments = shlex.split(command.split("&&")[-1])
    assert program == "dpkit"
    return subprocess.run(
        [sys.executable, "-m", "dpkit", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
    )


def plain(text: str) -> str:
    """`text` without table borders and line breaks, and numbers without thousands separators."""
    words = " ".join(re.sub(r"[│┌┐└┘─┬┴]", " ", text).split())
    return re.sub(r"(?<=\d),(?=\d{3})", "", words)


def test_the_two_commands_come_first():
    assert re.fullmatch(r"pip install .* && dpkit epsilon examples/mnist_dpsgd\.toml", SHELL[0])
    assert re.fullmatch(r"pip install .* && python -m pytest .*", SHELL[1])


def test_every_job_is_shown_with_its_output():
    assert [shlex.split(command.split("&&")[-1])[1] for command, _ in SHOWN] == [
        "epsilon",
        "calibrate",
        "report",
        "optimize",
    ]


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_the_output_shown_is_the_output(command, shown):
    result = dpkit(command)
    assert result.returncode == 0, result.stderr
    actual = plain(result.stdout)
    compared = 0
    # "..." stands for lines left out.
    for piece in re.split(r"^\.\.\.$", shown, flags=re.MULTILINE):
        words, numbers = NUMBER.split(plain(piece)), [float(text) for text in NUMBER.findall(plain(piece))]
        found = re.search(f"({NUMBER.pattern})".join(map(re.escape, words)), actual)
        assert found, f"not printed by `{command}`: {plain(piece)}"
        assert [float(text) for text in found.groups()] == pytest.approx(numbers, rel=2e-3)
        compared += len(numbers)
    assert compared


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "toml"])
def test_the_config_shown_is_valid(text):
    config = training.TrainingConfig.parse(tomllib.loads(text))
    example = training.load_config(ROOT / "examples" / "mnist_dpsgd.toml")
    assert training.plan(config).mechanism == training.plan(example).mechanism


@pytest.mark.parametrize("sampler", ["poisson", "shuffle", "full_batch", "min_sep"])
def test_every_sampler_has_a_row(sampler):
    assert re.search(rf"^\| `{sampler}` \|", README, flags=re.MULTILINE)


def test_every_sampler_and_mechanism_is_in_the_table():
    for name in (*fields.SAMPLERS, *kinds.KINDS):
        assert f"`{name}`" in README


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


KINDS = [
    ("`identity`", fz.Identity()),
    ("`identity`", fz.WindowScaled(fz.Identity())),
    ("`tree`", fz.Tree(iterations=2_052)),
    ("`banded_inverse_square_root`, 200 bands", fz.BandedInverseSquareRoot(200)),
    ("`blt`, `num_buffers = 3`", fz.BufferedLinearToeplitz(3)),
    ("`banded_square_root`, 342 bands", fz.BandedSquareRoot(342)),
    ("`banded_toeplitz`, 342 bands", fz.BandedToeplitz(342)),
    ("`banded_toeplitz`, 342 bands", fz.WindowScaled(fz.BandedToeplitz(342))),
]


@pytest.mark.parametrize(("kind", "family"), KINDS, ids=str)
def test_the_table_of_strategies(kind, family):
    (row,) = (line for line in README.splitlines() if line.startswith(f"| {kind}"))
    _, _, shown, copies = (cell.strip() for cell in row.strip("|").split("|"))
    solution = fz.optimize(family, fz.prefix_sum(), fz.MinSep(iterations=2_052, min_sep=342))
    error = re.search(r"\(([\d.]+) with", shown) if isinstance(family, fz.WindowScaled) else re.match(r"[\d.]+", shown)
    assert error is not None
    assert float(error[error.lastindex or 0]) == pytest.approx(solution.rmse, abs=0.006)
    assert int(copies.split()[0].replace("none", "0")) == solution.strategy.form(2_052).copies

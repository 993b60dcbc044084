"""Every config in examples/ is a published run: our interval agrees with what was published, or says why it differs."""

import json
from pathlib import Path

import pytest

from dpkit import training

EXAMPLES = Path(__file__).parents[1] / "examples"
PUBLISHED = json.loads((EXAMPLES / "published.json").read_text(encoding="utf-8"))


def ids(entry: dict) -> str:
    return entry["config"].removesuffix(".toml")


def plan(entry: dict) -> training.TrainingPlan:
    return training.plan(training.load_config(EXAMPLES / entry["config"]))


def test_every_config_is_in_the_table():
    assert {entry["config"] for entry in PUBLISHED} == {path.name for path in EXAMPLES.glob("*.toml")}
    assert len(PUBLISHED) >= 8


@pytest.mark.parametrize("entry", PUBLISHED, ids=ids)
def test_config_states_its_source(entry):
    head = (EXAMPLES / entry["config"]).read_text(encoding="utf-8").split("[data]")[0]
    assert entry["url"].split("/tree/")[0] in head
    assert str(entry["published_epsilon"]) in head
    assert entry["explanation"]


@pytest.mark.parametrize("entry", [e for e in PUBLISHED if e["expect_pld"]], ids=ids)
def test_pld_agrees_with_an_independent_accountant(entry):
    """`expect_pld` brackets the value by dp_accounting 0.6.0 (grid 1e-5) or a closed form in mpmath."""
    bounds = plan(entry).epsilon("pld")
    assert bounds.note is None
    assert bounds.lower <= entry["expect_pld"]["upper"]
    assert entry["expect_pld"]["lower"] <= bounds.upper
    assert bounds.upper - bounds.lower <= 1e-3 * bounds.upper


@pytest.mark.parametrize("entry", [e for e in PUBLISHED if e["expect_rdp"]], ids=ids)
def test_rdp_agrees_with_an_independent_accountant(entry):
    """From the best real order by separate quadrature up to the best of a grid of orders."""
    upper = plan(entry).epsilon("rdp").upper
    assert entry["expect_rdp"]["lower"] * (1 - 1e-5) <= upper <= entry["expect_rdp"]["upper"] * (1 + 1e-6)


@pytest.mark.parametrize("entry", [e for e in PUBLISHED if e.get("expect_zcdp")], ids=ids)
def test_zcdp_agrees_with_an_independent_accountant(entry):
    expected = entry["expect_zcdp"]
    expected = expected["upper"] if isinstance(expected, dict) else expected
    assert plan(entry).epsilon("zcdp").upper == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("entry", PUBLISHED, ids=ids)
def test_published_figure_is_explained(entry):
    """The published figure is met by the authors' own accounting, and ours never exceeds it beyond its rounding."""
    reproduced = entry["reproduced_by"]
    if reproduced is not None:
        assert abs(reproduced["epsilon"] - entry["published_epsilon"]) <= entry["rounding"]
    assert plan(entry).epsilon().upper <= entry["published_epsilon"] + entry["rounding"]

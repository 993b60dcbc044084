"""`dpkit plot`: every kind from a config, and what it refuses."""

import sys

import pytest

from dpkit import plots
from dpkit.cli.plot import Kind
from test_cli import fails, run
from test_cli_optimize import FTRL
from test_startup import FRAMEWORKS, NUMERICAL, command_line, loaded
from training.configs import FULL_BATCH, VALID, write


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    save = plots.save

    def remember(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "save", remember)
    return figures


@pytest.mark.parametrize(
    ("kind", "text"),
    [(kind, FULL_BATCH if kind == "steps" else FTRL) for kind in Kind],
    ids=list(Kind),
)
def test_every_kind_is_written(tmp_path, drawn, kind, text):
    out = tmp_path / "figure.svg"
    config = write(tmp_path, text)
    result = run("plot", kind, config, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Wrote {kind} of {config} to {out}.\n"
    assert out.read_bytes().startswith(b"<?xml")
    assert all(axes.get_ylabel() for axes in drawn[0].axes)


def legend(axes) -> list[str]:
    return [text.get_text().partition(":")[0] for text in axes.get_legend().get_texts()]


def test_zcdp_is_drawn_where_nothing_is_sampled(tmp_path, drawn):
    out = tmp_path / "figure.png"
    run("plot", "epsilon_delta", write(tmp_path, FULL_BATCH), "--out", out)
    run("plot", "epsilon_delta", write(tmp_path, VALID), "--out", out)
    bounds = [[name for name in legend(figure.axes[0]) if "bound" in name] for figure in drawn]
    assert bounds == [[f"{name}, upper bound" for name in names] for names in (("PLD", "RDP", "zCDP"), ("PLD", "RDP"))]
    assert [figure.axes[0].lines[-1].get_xdata()[0] for figure in drawn] == [1e-5, 1e-5]


def test_steps_are_those_that_are_charged_for(tmp_path, drawn):
    out = tmp_path / "figure.png"
    run("plot", "steps", write(tmp_path, VALID), "--out", out)
    shuffled = VALID.replace("poisson", "shuffle")
    run("plot", "steps", write(tmp_path, shuffled), "--out", out)
    labels = [figure.axes[-1].get_xlabel() for figure in drawn]
    assert labels == ["steps of the run", "steps of the run that one example may be in"]
    assert [figure.axes[0].lines[0].get_xdata()[-1] for figure in drawn] == [14_063, 60]


def test_errors_compare_the_config_with_the_usual(tmp_path, drawn):
    out = tmp_path / "figure.pdf"
    run("plot", "errors", write(tmp_path, FTRL), "--out", out)
    assert legend(drawn[0].axes[0]) == ["independent noise", "tree", "banded (num_bands = 4)"]


def test_what_it_refuses(tmp_path, monkeypatch):
    config, out = write(tmp_path, VALID), tmp_path / "figure.svg"
    message = fails(run("plot", "pie", config, "--out", out))
    assert all(kind in message for kind in Kind)
    assert ".png, .svg or .pdf file, got" in fails(run("plot", "errors", config, "--out", tmp_path / "figure.gif"))
    absent = tmp_path / "absent" / "figure.svg"
    assert f"--out {absent}: there is no such folder" in fails(run("plot", "errors", config, "--out", absent))
    assert "Missing option '--out'" in fails(run("plot", "errors", config))
    assert "no such file" in fails(run("plot", "errors", tmp_path / "absent.toml", "--out", out))
    # Nothing bounds participation under Poisson sampling.
    assert 'sampling = "min_sep"' in fails(run("plot", "errors", config, "--out", out))
    assert "draw epsilon_delta" in fails(run("plot", "steps", write(tmp_path, FTRL), "--out", out))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert 'pip install "dpkit[plot]"' in fails(run("plot", "trade_off", config, "--out", out))
    assert not out.exists()


def test_help_loads_nothing_numerical():
    assert not loaded(command_line("plot", "--help")) & (FRAMEWORKS | NUMERICAL)

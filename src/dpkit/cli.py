"""The command line: `dpkit epsilon`, `dpkit calibrate`, `dpkit report`.

Everything numerical is imported inside the commands, so that help and errors in flags come at once.
"""

import contextlib
import enum
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dpkit import __version__
from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    from dpkit.training import TrainingPlan

app = typer.Typer(
    name="dpkit",
    add_completion=False,
    no_args_is_help=True,
    # Plain help starts twice as fast, and plain messages survive being piped.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Accountant(enum.StrEnum):
    PLD = "pld"
    RDP = "rdp"
    ZCDP = "zcdp"


class Format(enum.StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"


# typer's own conversion does not name the value it could not read, hence parsers.
def _delta(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text} does not lie strictly between 0 and 1; write for example --delta 1e-5")
    return value


def _epsilon(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text} is not a positive finite number; write for example --epsilon 8")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


Config = Annotated[str, typer.Argument(metavar="CONFIG", help="TOML file that describes the training run.")]
DeltaOption = Annotated[
    float | None,
    typer.Option("--delta", parser=_delta, metavar="NUMBER", help="Use this delta, not the config's."),
]
AccountantOption = Annotated[
    Accountant | None, typer.Option("--accountant", help="Use this accountant, not the config's.")
]
RelationOption = Annotated[
    NeighboringRelation | None, typer.Option("--relation", help="Use this neighbouring relation, not the config's.")
]
JsonOption = Annotated[bool, typer.Option("--json", help='Print one JSON object; an infinite number is "inf".')]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns what a person can repair into one message and exit status 2."""
    try:
        yield
    # Configs, views and accountants refuse what they cannot do with these two, each with cause and remedy.
    except (ValueError, NotImplementedError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
    # An accountant whose own result is not a certified interval says so rather than print it.
    except (ArithmeticError, MemoryError) as error:
        typer.echo(f"Error: no certified number for so extreme a run ({type(error).__name__}: {error})", err=True)
        raise typer.Exit(2) from None


def _plan(
    config: str, delta: float | None, accountant: Accountant | None, relation: NeighboringRelation | None
) -> "TrainingPlan":
    from dpkit import training

    return training.plan(training.load_config(config).override(delta=delta, accountant=accountant, relation=relation))


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"dpkit {__version__}")
        raise typer.Exit


@app.callback()
def dpkit(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Certified differential privacy for training runs.

    \b
    Example:
      dpkit epsilon examples/mnist_dpsgd.toml
    """


@app.command()
def epsilon(
    config: Config,
    as_json: JsonOption = False,
    delta: DeltaOption = None,
    accountant: AccountantOption = None,
    relation: RelationOption = None,
) -> None:
    """The epsilon of a training run, as a certified interval.

    \b
    Example:
      dpkit epsilon examples/mnist_dpsgd.toml --delta 1e-6
    """
    with _explained():
        from dpkit.training import Summary

        summary = Summary.of(_plan(config, delta, accountant, relation))
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=2, allow_nan=False))
        return
    from dpkit.cli_output import print_summary

    print_summary(summary, title=config)


@app.command()
def calibrate(
    config: Config,
    target: Annotated[
        float,
        typer.Option("--epsilon", parser=_epsilon, metavar="NUMBER", help="The certified epsilon to stay within."),
    ],
    as_json: JsonOption = False,
    delta: DeltaOption = None,
    accountant: AccountantOption = None,
    relation: RelationOption = None,
) -> None:
    """The least noise multiplier that keeps a run within an epsilon.

    The config's own noise_multiplier is ignored. Paste the printed one into the config unrounded.

    \b
    Example:
      dpkit calibrate examples/mnist_dpsgd.toml --epsilon 8
    """
    with _explained():
        from dpkit.training import Summary

        summary = Summary.of(_plan(config, delta, accountant, relation).calibrate(target))
    if as_json:
        typer.echo(json.dumps({"target_epsilon": target, **summary.as_dict()}, indent=2, allow_nan=False))
        return
    from dpkit.cli_output import print_summary

    print_summary(summary, title=f"{config}, calibrated to epsilon <= {target:g}")


@app.command()
def report(
    config: Config,
    style: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.TEXT,
) -> None:
    """The privacy statement of a training run, ready to quote.

    What the config does not answer reads "unknown", with what to write to answer it.

    \b
    Example:
      dpkit report examples/mnist_dpsgd.toml --format markdown
    """
    with _explained():
        from dpkit.training import PrivacyReport

        statement = PrivacyReport.of(_plan(config, None, None, None))
    render = {Format.TEXT: statement.text, Format.MARKDOWN: statement.markdown, Format.JSON: statement.json}[style]
    typer.echo(render(), nl=False)


def main() -> None:
    """The console script."""
    app()

"""What several commands share: their arguments, and how what goes wrong is said."""

import contextlib
import enum
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dpkit.relations import NeighboringRelation

if TYPE_CHECKING:
    from dpkit.training import TrainingPlan


class Accountant(enum.StrEnum):
    PLD = "pld"
    RDP = "rdp"
    ZCDP = "zcdp"
    MONTE_CARLO = "monte_carlo"


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


def epsilon_of(text: str) -> float:
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
MemoryOption = Annotated[
    int | None,
    typer.Option(
        "--memory", min=0, metavar="COPIES", help="Most model-sized arrays that the noise may keep between steps."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help='Print one JSON object; an infinite number is "inf".')]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what a person can repair into one message and exit status 2."""
    try:
        yield
    # Configs, views and accountants refuse what they cannot do with the first two, each with cause and remedy; what is
    # optional and not installed is named by the third.
    except (ValueError, NotImplementedError, ModuleNotFoundError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"Error: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(2) from None
    # An accountant whose own result is not a certified interval says so rather than print it.
    except (ArithmeticError, MemoryError) as error:
        typer.echo(f"Error: no certified number for so extreme a run ({type(error).__name__}: {error})", err=True)
        raise typer.Exit(2) from None


def plan_of(
    config: str, delta: float | None, accountant: Accountant | None, relation: NeighboringRelation | None
) -> "TrainingPlan":
    from dpkit import training

    return training.plan(training.load_config(config).override(delta=delta, accountant=accountant, relation=relation))

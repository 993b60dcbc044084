"""`dpkit audit`: what an attack achieves, beside what is certified."""

import dataclasses
import enum
import json
import math
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.options import (
    AccountantOption,
    Config,
    DeltaOption,
    JsonOption,
    RelationOption,
    explained,
    plan_of,
)

if TYPE_CHECKING:
    from dpkit.accounting import Bounds
    from dpkit.audit import AuditResult
    from dpkit.training import TrainingPlan


class Method(enum.StrEnum):
    PAIR = "pair"
    GDP = "gdp"


def fraction(example: str) -> Callable[[object], float]:
    """A parser of numbers strictly between 0 and 1."""

    def parse(text: object) -> float:
        try:
            value = float(str(text))
        except ValueError:
            value = math.nan
        if not 0 < value < 1:
            raise typer.BadParameter(f"{text} does not lie strictly between 0 and 1; write for example {example}")
        return value

    return parse


def _whole(minimum: int, example: str) -> Callable[[object], int]:
    def parse(text: object) -> int:
        digits = str(text).replace("_", "")
        if not digits.isdecimal() or int(digits) < minimum:
            raise typer.BadParameter(f"{text} is not a whole number >= {minimum}; write for example {example}")
        return int(digits)

    return parse


def audit(
    config: Config,
    trials: Annotated[
        int,
        typer.Option(
            parser=_whole(4, "--trials 10000"),
            metavar="COUNT",
            help="Simulated runs with the unit, and as many without.",
        ),
    ] = 10_000,
    confidence: Annotated[
        float, typer.Option(parser=fraction("--confidence 0.95"), metavar="NUMBER", help="Of the lower bound.")
    ] = 0.95,
    method: Annotated[
        Method, typer.Option(help="pair assumes nothing; gdp proves more, assuming Gaussian DP.")
    ] = Method.PAIR,
    seed: Annotated[
        int, typer.Option(parser=_whole(0, "--seed 1"), metavar="COUNT", help="Of the simulation; not a secret.")
    ] = 0,
    as_json: JsonOption = False,
    delta: DeltaOption = None,
    accountant: AccountantOption = None,
    relation: RelationOption = None,
) -> None:
    """A statistical lower bound on epsilon, beside the certified interval.

    Draws the privacy losses of the whole run in its worst case, step by step, and attacks them. This checks the
    accounting, not the training code: for that, examples/train_digits.py --audit plants canaries in a real run. No
    data are read. The exit status is 1 if the bound contradicts the certified epsilon.

    \b
    Example:
      dpkit audit examples/mnist_dpsgd.toml --delta 1e-2
    """
    with explained():
        plan = plan_of(config, delta, accountant, relation)
        certified = plan.epsilon()
        from dpkit.audit import audit_losses

        found = audit_losses(
            plan.mechanism,
            plan.relation,
            delta=plan.delta,
            trials=trials,
            confidence=confidence,
            method="threshold" if method is Method.PAIR else "gdp",
            seed=seed,
        )
    if as_json:
        typer.echo(json.dumps(_as_dict(found, certified, plan, trials, seed), indent=2, allow_nan=False))
    else:
        _print(found, certified, plan, trials, title=config)
    if found.contradicts(certified.upper):
        raise typer.Exit(1)


def _print(found: "AuditResult", certified: "Bounds", plan: "TrainingPlan", trials: int, title: str) -> None:
    from dpkit.cli import output
    from dpkit.training.summary import interval, rounded_down, rounded_up

    lower, name = rounded_down(found.epsilon_lower), output._NAMES[plan.config.privacy.accountant]
    rows = (
        ("epsilon, audited", f">= {lower} with confidence {found.confidence:g}"),
        (f"epsilon, certified ({name})", interval(certified)),
        ("delta", f"{plan.delta:g}"),
        ("relation", str(plan.relation)),
        ("method", found.method),
        ("simulated runs", f"{trials:,} with the {plan.unit} and {trials:,} without"),
        ("assuming", found.assumption),
    )
    width = min(output._print_table(rows, title), output._WIDEST)
    if found.contradicts(certified.upper):
        words = (
            f"CONTRADICTION: epsilon >= {lower} was found where epsilon <= {rounded_up(certified.upper)} is certified. "
            f"If all is right this happens with probability at most {1 - found.confidence:.2g}: repeat it with another "
            "--seed and --confidence 0.999999; if it stays, there is a mistake in the accounting."
        )
    else:
        words = (
            "Consistent: the audited bound is not above the certified one. That is no proof of privacy: an attack can "
            "only show a lower bound, and few trials show little at a small delta."
        )
    typer.echo("\n" + textwrap.fill(words, width))


def _as_dict(found: "AuditResult", certified: "Bounds", plan: "TrainingPlan", trials: int, seed: int) -> dict[str, Any]:
    from dpkit.training.summary import number

    return {
        **dataclasses.asdict(found),
        "epsilon_lower": number(found.epsilon_lower),
        "certified": {"lower": number(certified.lower), "upper": number(certified.upper)},
        "contradicted": found.contradicts(certified.upper),
        "relation": str(plan.relation),
        "trials": trials,
        "seed": seed,
    }

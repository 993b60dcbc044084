"""`dpkit epsilon`, `dpkit calibrate` and `dpkit report`."""

import json
from typing import Annotated, cast

import typer

from dpkit.cli.audit import fraction
from dpkit.cli.options import (
    AccountantOption,
    Config,
    DeltaOption,
    Format,
    JsonOption,
    RelationOption,
    epsilon_of,
    explained,
    plan_of,
)


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
    with explained():
        from dpkit.training import Summary

        summary = Summary.of(plan_of(config, delta, accountant, relation))
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=2, allow_nan=False))
        return
    from dpkit.cli.output import print_summary

    print_summary(summary, title=config)


def calibrate(
    config: Config,
    target: Annotated[
        float | None,
        typer.Option("--epsilon", parser=epsilon_of, metavar="NUMBER", help="The certified epsilon to stay within."),
    ] = None,
    advantage: Annotated[
        float | None,
        typer.Option(
            parser=fraction("--advantage 0.1"),
            metavar="NUMBER",
            help="Instead of --epsilon: the most by which the true positive rate of any membership attack may exceed "
            "its false positive rate.",
        ),
    ] = None,
    as_json: JsonOption = False,
    delta: DeltaOption = None,
    accountant: AccountantOption = None,
    relation: RelationOption = None,
) -> None:
    """The least noise that keeps a run within an epsilon, or within an advantage.

    The config's own is ignored. Paste the printed one into the config unrounded. For most mechanisms it is the
    noise_multiplier; the output names the key.

    \b
    Example:
      dpkit calibrate examples/mnist_dpsgd.toml --epsilon 8
      dpkit calibrate examples/mnist_dpsgd.toml --advantage 0.1
    """
    with explained():
        from dpkit.training import Summary

        if (target is None) == (advantage is None):
            raise ValueError("one target is needed, and only one: write for example --epsilon 8 or --advantage 0.1")
        plan = plan_of(config, delta, accountant, relation)
        if target is not None:
            plan, name, value = plan.calibrate(target), "epsilon", target
        else:
            plan, name, value = plan.calibrate_advantage(cast(float, advantage)), "advantage", advantage
        summary = Summary.of(plan)
    if as_json:
        typer.echo(json.dumps({f"target_{name}": value, **summary.as_dict()}, indent=2, allow_nan=False))
        return
    from dpkit.cli.output import print_summary

    print_summary(summary, title=f"{config}, calibrated to {name} <= {value:g}")


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
    with explained():
        from dpkit.training import PrivacyReport

        statement = PrivacyReport.of(plan_of(config, None, None, None))
    render = {Format.TEXT: statement.text, Format.MARKDOWN: statement.markdown, Format.JSON: statement.json}[style]
    typer.echo(render(), nl=False)

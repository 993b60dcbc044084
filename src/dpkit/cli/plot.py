"""`dpkit plot`: figures of a run."""

import enum
import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from dpkit.cli.options import Config, explained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dpkit.accounting import PrivacyAccountant
    from dpkit.factorization import Strategy
    from dpkit.training import TrainingPlan

# More could not be told apart in a picture.
_SHOWN = 256


class Kind(enum.StrEnum):
    EPSILON_DELTA = "epsilon_delta"
    STEPS = "steps"
    TRADE_OFF = "trade_off"
    ERRORS = "errors"
    STRATEGY = "strategy"
    HEAT_MAP = "heat_map"


def plot(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What to draw.")],
    config: Config,
    out: Annotated[str, typer.Option(metavar="FILE", help="The .png, .svg or .pdf file to write.")],
) -> None:
    """Draw a figure of a run.

    \b
    epsilon_delta  epsilon at every delta by each accountant, and how tight it is
    steps          epsilon as the run goes on
    trade_off      the best membership test: true against false positives
    errors         error of every step, with independent noise, a tree and the
                   config's own strategy
    strategy       error of the config's strategy, and columns of its matrix
    heat_map       the matrix of the config's strategy, and its inverse

    \b
    Example:
      dpkit plot epsilon_delta examples/mnist_dpsgd.toml --out curve.svg
    """
    with explained():
        from dpkit import plots

        plots.check_path(out)
        if not pathlib.Path(out).absolute().parent.is_dir():
            raise ValueError(f"--out {out}: there is no such folder; name a file in one that exists")
        from dpkit import training

        plots.save(_figure(kind, training.plan(training.load_config(config))), out)
    typer.echo(f"Wrote {kind} of {config} to {out}.")


def _figure(kind: Kind, plan: "TrainingPlan") -> "Figure":
    from dpkit import plots

    if kind is Kind.EPSILON_DELTA:
        return plots.epsilon_delta(plan.mechanism, _accountants(plan), delta=plan.delta)
    if kind is Kind.STEPS:
        return _steps(plan)
    if kind is Kind.TRADE_OFF:
        return plots.trade_off(plan.mechanism, plan.accountant())
    from dpkit.training import correlation

    config, schema = plan.config, correlation.schema(plan.config)
    if kind is Kind.HEAT_MAP:
        return plots.heat_map(plan.strategy, min(_SHOWN, schema.iterations))
    work = correlation.workload(config.optimizer, schema.iterations)
    if kind is Kind.STRATEGY:
        return plots.strategy(plan.strategy, work, schema)
    return plots.errors(_compared(plan), work, schema)


def _accountants(plan: "TrainingPlan") -> "dict[str, PrivacyAccountant]":
    """Those that can be tight for the run; zCDP takes no credit for sampling."""
    if plan.config.training.sampling == "balls_in_bins":
        wrong = plan.config.privacy.failure_probability
        return {f"Monte Carlo (each point wrong\nwith probability <= {wrong:g})": plan.accountant("monte_carlo")}
    names = {"PLD": "pld", "RDP": "rdp"} | ({} if plan.sampling_probability is not None else {"zCDP": "zcdp"})
    return {shown: plan.accountant(name) for shown, name in names.items()}


def _steps(plan: "TrainingPlan") -> "Figure":
    from dpkit import plots

    parts = list(plan.mechanism.parts())
    if plan.config.correlated or plan.config.training.sampling == "balls_in_bins" or len(parts) != 1:
        raise ValueError(
            "steps: a run with correlated noise or with units in bins is one release of all its steps, not a "
            "composition of them; draw epsilon_delta"
        )
    ((step, count),) = parts
    # A unit is charged for fewer steps than there are where it cannot be in all of them.
    label = "steps of the run" if count == plan.iterations else f"steps of the run that one {plan.unit} may be in"
    return plots.steps(step, count, _accountants(plan), delta=plan.delta, label=label)


def _compared(plan: "TrainingPlan") -> "dict[str, Strategy]":
    from dpkit.factorization import Identity, Tree

    strategies = {"independent noise": Identity(), "tree": Tree(plan.iterations)}
    return strategies | ({plan.config.strategy.name: plan.strategy} if plan.config.correlated else {})

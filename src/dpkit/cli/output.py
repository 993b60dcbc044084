"""Tables for the terminal: readable at 80 columns, without colour codes when piped."""

import math
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dpkit.accounting.base import Bounds
from dpkit.training import participation
from dpkit.training.summary import BRACKETING, Summary, interval, rounded_down, rounded_up

if TYPE_CHECKING:
    from dpkit.factorization import ParticipationSchema, Solution
    from dpkit.training.planning import Candidate
    from dpkit.training.sections import OptimizerSection
    from dpkit.training.sweep import Outcome

_NAMES = {"pld": "PLD", "rdp": "RDP", "zcdp": "zCDP", "monte_carlo": "Monte Carlo"}
_WIDEST = 100


def print_summary(summary: Summary, title: str) -> None:
    """Prints the numbers, the guarantee in words, its assumptions and the warnings.

    Args:
        summary: the numbers of a run.
        title: what stands above them.
    """
    width = min(_print_table((*_epsilons(summary), *_settings(summary)), title), _WIDEST)
    typer.echo("\n" + textwrap.fill(summary.guarantee, width))
    _print_list("This holds if:", summary.plan.assumptions, width)
    _print_list("Warnings:", summary.warnings, width)


def _print_list(heading: str, lines: Iterable[str], width: int) -> None:
    for number, line in enumerate(lines):
        if not number:
            typer.echo(f"\n{heading}")
        typer.echo(textwrap.fill(line, width, initial_indent="  - ", subsequent_indent="    "))


def _print_table(rows: Iterable[tuple[str, str]], title: str) -> int:
    """Prints labels and values; returns the width there is."""
    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        # Text, because a file name or a reason may hold what rich would take for markup.
        table.add_row(Text(label), Text(value))
    console.print(table)
    return console.width


def print_solution(
    solution: "Solution", schema: "ParticipationSchema", name: str, optimizer: "OptimizerSection"
) -> None:
    """Prints what an optimisation found.

    Args:
        solution: the strategy with its errors.
        schema: what it was found for.
        name: of the strategy.
        optimizer: whose errors they are.
    """
    n, copies = schema.iterations, solution.strategy.form(schema.iterations).copies
    gap = "none certified"
    if solution.gap is not None:
        gap = f"at most {rounded_up(solution.gap, 3)} of the least squared error"
    apart = f", at least {schema.min_sep:,} apart" if schema.max_participations > 1 else ""
    rows = (
        ("strategy", name),
        ("workload", _workload(optimizer)),
        ("participation", f"at most {schema.max_participations:,} of {n:,} steps{apart}"),
        ("rmse", f"{solution.rmse:.6g}"),
        ("max error", f"{solution.max_error:.6g}"),
        ("sensitivity", f"{solution.sensitivity:.6g}"),
        ("gap to the best", gap),
        ("search", f"{solution.iterations:,} steps, {solution.seconds:.2f} s; {solution.message}"),
        ("state per parameter", f"{4 * copies:,} bytes ({copies:,} copies in float32)"),
    )
    _print_table(rows, "Errors at noise multiplier 1 and clip norm 1")
    if not solution.converged:
        typer.echo("\nNot converged: the strategy is valid, but may not be the best of its kind.")


def print_candidates(candidates: "list[Candidate]", left_out: list[str], target: float, title: str) -> None:
    """Prints the mechanisms of a plan, the best first.

    Args:
        candidates: at least one.
        left_out: why others are none.
        target: epsilon.
        title: what stands above them.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    words = Text(f"{title} at epsilon <= {target:g}, delta = {candidates[0].plan.delta:g}")
    table = Table(title=words, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("mechanism", no_wrap=True)
    for heading in ("noise", "rmse", "max", "copies", "cost", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for found in candidates:
        numbers = (rounded_up(found.plan.noise_multiplier or 0.0), f"{found.rmse:.4g}", f"{found.max_error:.4g}")
        table.add_row(Text(found.name), *numbers, f"{found.copies}", f"{found.operations}", f"{found.seconds:.1f}")
    console.print(table)
    width, gap = min(console.width, _WIDEST), candidates[0].gap
    proved = "" if gap is None else f" Its squared error is within {rounded_up(gap, 2)} of the least of its kind."
    legend = (
        f"Best: {candidates[0].name}.{proved} noise: the noise multiplier. rmse, max: root mean square and largest "
        "error of the iterates, per coordinate, in clip norms of the summed contributions. copies: model-sized arrays "
        "kept between steps. cost: multiplications and additions per parameter and step. s: seconds to find it."
    )
    typer.echo(textwrap.fill(legend, width))
    _print_list("This holds if:", candidates[0].plan.assumptions, width)
    _print_list("Left out:", left_out, width)


def print_comparison(by_mechanism: "dict[str, dict[float, Outcome]]", left_out: list[str], title: str) -> None:
    """Prints the error of every mechanism, a row each, at every target epsilon, the best of each marked.

    Args:
        by_mechanism: what was found, by the mechanism's label and by target; at least one.
        left_out: why others are none.
        title: what stands above them.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    targets = sorted({target for row in by_mechanism.values() for target in row})
    least = {t: min(row[t].rmse for row in by_mechanism.values() if t in row) for t in targets}
    rows = {
        label: [_error(row[t].rmse, least[t]) if t in row else "- " for t in targets]
        for label, row in by_mechanism.items()
    }
    headings = [f"{target:g} " for target in targets]
    # As many columns as fit beside the names; the others in a table below.
    widest = max(len(entry) for entry in (*headings, *(entry for row in rows.values() for entry in row)))
    fit = max((console.width - 2 - max(map(len, rows))) // (widest + 3), 1)
    run = next(iter(next(iter(by_mechanism.values())).values())).config
    for start in range(0, len(targets), fit):
        shown = slice(start, start + fit)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("mechanism", no_wrap=True)
        for heading in headings[shown]:
            table.add_column(heading, justify="right", no_wrap=True)
        for label, row in rows.items():
            table.add_row(Text(label), *row[shown])
        typer.echo(textwrap.fill(f"{title}: rmse by epsilon, delta = {run.privacy.delta:g}", console.width))
        console.print(table)
    width = min(console.width, _WIDEST)
    legend = (
        "* the least error at this epsilon. rmse: root mean square error of the iterates, per coordinate, in clip "
        "norms of the summed contributions, at the least noise that keeps the certified epsilon within the one above. "
        f"Relation {run.privacy.relation}, unit {run.data.unit}, sampling {run.training.sampling}; what else must hold "
        "depends on the mechanism: `dpkit plan` prints it for the best, `dpkit report` for any config."
    )
    typer.echo(textwrap.fill(legend, width))
    _print_list("Left out:", left_out, width)


def _error(rmse: float, least: float) -> str:
    return f"{rmse:.4g}{'*' if rmse == least else ' '}"


def _workload(optimizer: "OptimizerSection") -> str:
    words = [f"{name} {value:g}" for name in optimizer.model_fields_set if (value := getattr(optimizer, name))]
    return f"iterates of SGD, {', '.join(sorted(words))}" if words else "prefix sums (plain SGD)"


def _epsilons(summary: Summary) -> list[tuple[str, str]]:
    chosen = summary.plan.config.privacy.accountant
    names = sorted(summary.by_accountant, key=lambda name: name != chosen)
    rows = []
    for name in names:
        value = _epsilon(name, summary.by_accountant[name])
        if name == "zcdp" and summary.plan.sampling_probability is not None:
            value += ", taking no credit for sampling"
        if name == chosen:
            value += ": the upper end is the guarantee" if name in BRACKETING else ": the guarantee"
        rows.append((f"epsilon ({_NAMES[name]})", value))
    return rows


def _epsilon(name: str, bounds: Bounds | str) -> str:
    if isinstance(bounds, str):
        return f"does not apply: {bounds}"
    if name in BRACKETING:
        return interval(bounds)
    order = "" if bounds.order is None or math.isinf(bounds.upper) else rounded_down(bounds.order, 4)
    return f"<= {rounded_up(bounds.upper)}" + (f" (best order {order})" if order else "")


def _settings(summary: Summary) -> list[tuple[str, str]]:
    plan = summary.plan
    config = plan.config
    rows = [
        ("delta", f"{plan.delta:g}"),
        ("relation", str(plan.relation)),
        ("privacy unit", f"{plan.unit} ({config.data.population:,} of them)"),
        ("sampling", config.training.sampling),
        ("sampling probability", participation.probability_rule(config)),
        ("iterations", f"{plan.iterations:,} ({plan.iterations_rule})"),
        ("mechanism", config.mechanism.kind),
        *([("noise correlated by", config.strategy.name)] if config.correlated else []),
        *((key.replace("_", " "), f"{value}") for key, value in config.mechanism.numbers.items()),
    ]
    if plan.participations is not None:
        rows.insert(6, (f"steps per {plan.unit}", f"at most {plan.participations:,}"))
    return rows

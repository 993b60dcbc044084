"""`dpkit plan`: the best mechanism for a run at a target epsilon."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dpkit.cli.options import Config, DeltaOption, JsonOption, MemoryOption, epsilon_of, explained

if TYPE_CHECKING:
    from dpkit.factorization import Progress as SearchProgress
    from dpkit.training import TrainingConfig
    from dpkit.training.planning import Candidate


def plan(
    config: Config,
    target: Annotated[
        float,
        typer.Option("--epsilon", parser=epsilon_of, metavar="NUMBER", help="The certified epsilon to stay within."),
    ],
    delta: DeltaOption = None,
    memory: MemoryOption = None,
    write: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the best mechanism's config to this .toml file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The mechanism of least error for a run at a target epsilon.

    Independent noise, trees, banded, buffered and square-root strategies, and the config's own, each with the least
    noise that meets the target, ranked by the error of the iterates of the config's [optimizer]. Ctrl-C ends the search
    with what is done.

    \b
    Example:
      dpkit plan examples/templates/ftrl_blt.toml --epsilon 8 --memory 16
    """
    with explained():
        if write is not None and not pathlib.Path(write).absolute().parent.is_dir():
            raise ValueError(f"--write {write}: there is no such folder; name a file in one that exists")
        from dpkit import training

        run = training.load_config(config).override(delta=delta)
        candidates, left_out = _search(run, target, memory, visible=not as_json)
        if not candidates:
            raise ValueError("no mechanism was finished; " + "; ".join(left_out))
        if write is not None:
            pathlib.Path(write).write_text(candidates[0].plan.config.toml(), encoding="utf-8")
    if as_json:
        found = {"target_epsilon": target, "candidates": [candidate.as_dict() for candidate in candidates]}
        typer.echo(json.dumps({**found, "left_out": left_out}, indent=2, allow_nan=False))
        return
    from dpkit.cli.output import print_candidates

    print_candidates(candidates, left_out, target, config)
    if write is not None:
        typer.echo(f"\nWrote {candidates[0].name} to {write}.")


def _search(
    run: "TrainingConfig", target: float, memory: int | None, *, visible: bool
) -> tuple[list["Candidate"], list[str]]:
    """The candidates, best first, and why others are none."""
    from dpkit.training import planning

    tables = list(planning.strategies(run, memory))
    found, left_out = [], []
    with _progress(len(tables), visible=visible) as (report, advance):
        try:
            for table in tables:
                try:
                    solution = planning.solve(run, table, report)
                    candidate = planning.evaluate(run, table, target, solution)
                except ValueError as error:
                    left_out.append(f"{table.get('kind', 'independent')}: {error}")
                else:
                    if memory is None or candidate.copies <= memory:
                        found.append(candidate)
                    else:
                        left_out.append(f"{candidate.name}: keeps {candidate.copies} copies")
                advance()
        except KeyboardInterrupt:
            left_out.append(f"interrupted: {len(tables) - len(found) - len(left_out)} mechanisms were not tried")
    return planning.ranked(found), left_out


@contextlib.contextmanager
def _progress(total: int, *, visible: bool) -> Iterator[tuple]:
    """A callback for a search and one for its end; shown on standard error and only to a person."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (visible and console.is_terminal)) as bar:
        task = bar.add_task("mechanisms", total=total)

        def report(at: "SearchProgress") -> None:
            bar.update(task, description=f"mechanisms (step {at.iterations})")

        yield report, lambda: bar.advance(task)

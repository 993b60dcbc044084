"""`dpkit compare`: privacy against utility, mechanism by mechanism."""

import csv
import enum
import json
import os
import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.options import Config, DeltaOption, JsonOption, MemoryOption, epsilon_of, explained

if TYPE_CHECKING:
    from dpkit.training import TrainingConfig
    from dpkit.training.result_cache import ResultCache
    from dpkit.training.sweep import Outcome

# What a row of a CSV file says, beside the two ends of the certified epsilon.
_NUMBERS = (
    "noise_multiplier", "rmse", "max_error", "state_copies", "operations", "gap", "seconds", "delta", "accountant",
)  # fmt: skip


class Backend(enum.StrEnum):
    LOCAL = "local"
    DASK = "dask"


def _epsilons(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({epsilon_of(item.strip()) for item in text.split(",")}))
    except typer.BadParameter:
        remedy = "write positive numbers with commas between them, for example --epsilons 0.5,1,2,4,8"
        raise typer.BadParameter(f"cannot read {text!r}; {remedy}") from None


def compare(
    config: Config,
    targets: Annotated[
        Any,
        typer.Option("--epsilons", parser=_epsilons, metavar="LIST", help="Certified epsilons, as in 0.5,1,2,4,8."),
    ],
    delta: DeltaOption = None,
    memory: MemoryOption = None,
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write one row per mechanism and epsilon to this file.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw error against epsilon to this .png, .svg or .pdf.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="COUNT", help="Local processes; default: one per core.")
    ] = None,
    backend: Annotated[Backend, typer.Option(help="Where the work is done.")] = Backend.LOCAL,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Of the Dask scheduler, as in tcp://10.0.0.1:8786.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where results are kept; default: the user's cache folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Privacy against utility: the error of every mechanism at every epsilon.

    The mechanisms are those of `dpkit plan`. Results are kept, so Ctrl-C ends with what is done and the same command
    goes on from there.

    \b
    Examples:
      dpkit compare examples/templates/ftrl_blt.toml --epsilons 1,2,4,8
      dpkit compare train.toml --epsilons 1,8 --plot out.png --csv out.csv
      dpkit compare train.toml --epsilons 1,8 --backend dask \\
        --scheduler tcp://10.0.0.1:8786
    """
    with explained():
        _check_places(backend, scheduler, jobs)
        _check_files(csv_file, plot)
        from dpkit import training
        from dpkit.training import sweep
        from dpkit.training.result_cache import ResultCache, default_folder

        run = training.load_config(config).override(delta=delta)
        kept = ResultCache(cache or default_folder())
        outcomes, left_out = _swept(run, targets, memory, kept, jobs or -1, scheduler, visible=not as_json)
        if not outcomes:
            raise ValueError("no mechanism was finished; " + "; ".join(left_out))
        by_mechanism = sweep.by_mechanism(run, outcomes)
        if csv_file is not None:
            _write_csv(by_mechanism, csv_file)
        if plot is not None:
            from dpkit import plots

            plots.save(plots.comparison(by_mechanism), plot)
    if as_json:
        results = [outcome.as_dict() for row in by_mechanism.values() for outcome in row.values()]
        found = {"target_epsilons": targets, "results": results}
        typer.echo(json.dumps({**found, "left_out": left_out}, indent=2, allow_nan=False))
        return
    from dpkit.cli.output import print_comparison

    print_comparison(by_mechanism, left_out, config)


def _check_places(backend: Backend, scheduler: str | None, jobs: int | None) -> None:
    if backend == Backend.DASK and scheduler is None:
        raise ValueError("--backend dask needs --scheduler, for example --scheduler tcp://10.0.0.1:8786")
    if backend == Backend.LOCAL and scheduler is not None:
        raise ValueError(f"--scheduler {scheduler} is for a Dask cluster; add --backend dask")
    if backend == Backend.DASK and jobs is not None:
        raise ValueError(f"--jobs {jobs} is for local processes; a Dask cluster has the workers it was started with")


def _check_files(csv_file: str | None, plot: str | None) -> None:
    """Before the work, so that nobody waits for what cannot be written."""
    for option, path in (("--csv", csv_file), ("--plot", plot)):
        folder = pathlib.Path(path or "").absolute().parent
        if path is not None and not folder.is_dir():
            raise ValueError(f"{option} {path}: there is no such folder; name a file in one that exists")
        if path is not None and not os.access(folder, os.W_OK):
            raise ValueError(f"{option} {path}: the folder cannot be written to; name a file in another one")
    if plot is not None:
        from dpkit import plots

        plots.check_path(plot)


def _swept(
    run: "TrainingConfig",
    targets: tuple[float, ...],
    memory: int | None,
    cache: "ResultCache",
    jobs: int,
    scheduler: str | None,
    *,
    visible: bool,
) -> tuple[list["Outcome"], list[str]]:
    """The outcomes, and why others are none."""
    from rich.console import Console
    from rich.progress import track

    from dpkit.training import planning, sweep

    tables = list(planning.strategies(run, memory))
    total, outcomes, left_out = len(tables) * len(targets), [], []
    console = Console(stderr=True)
    hidden = not (visible and console.is_terminal)
    results = sweep.sweep(run, tables, targets, cache=cache, jobs=jobs, scheduler=scheduler)
    done = 0
    try:
        for result in track(results, "mechanisms", total, console=console, transient=True, disable=hidden):
            done += 1
            if isinstance(result, sweep.Refusal):
                left_out.append(f"{result.strategy.get('kind', 'independent')}: {result.reason}")
            elif memory is not None and result.state_copies > memory:
                left_out.append(f"{result.name}: keeps {result.state_copies} copies")
            else:
                outcomes.append(result)
    except KeyboardInterrupt:
        left_out.append(f"interrupted: {total - done} of {total} results were not computed")
    except sweep.WorkersLostError as error:
        left_out.append(f"{error}; {total - done} of {total} results were not computed")
    return outcomes, list(dict.fromkeys(left_out))


def _write_csv(by_mechanism: "dict[str, dict[float, Outcome]]", path: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["mechanism", "target_epsilon", "epsilon_lower", "epsilon_upper", *_NUMBERS])
        for label, row in by_mechanism.items():
            for target, outcome in row.items():
                bounds = (outcome.epsilon.lower, outcome.epsilon.upper)
                writer.writerow([label, target, *bounds, *(getattr(outcome, name) for name in _NUMBERS)])

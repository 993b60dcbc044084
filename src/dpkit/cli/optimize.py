"""`dpkit optimize`: the best correlated noise of a kind for a run."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.options import JsonOption, explained

if TYPE_CHECKING:
    from dpkit.factorization import Progress as SearchProgress
    from dpkit.factorization import Solution
    from dpkit.training import TrainingConfig

# What a run needs besides its participation and its strategy; no matrix depends on any of it.
_ANY_RUN = {
    "data": {"unit": "user", "users": 1},
    "mechanism": {"kind": "gaussian", "noise_multiplier": 1.0},
    "privacy": {"delta": 1e-5, "relation": "replace_special"},
}
_WORKLOADS = "momentum, weight_decay, learning_rate, cooldown"


def _workload(text: str) -> dict[str, float]:
    """The [optimizer] table that `momentum:0.95,cooldown:0.25` stands for; `prefix_sum` is an empty one."""
    table: dict[str, float] = {}
    for item in text.split(",") if text != "prefix_sum" else ():
        name, colon, value = item.strip().partition(":")
        try:
            table[name] = float(value)
        except ValueError:
            colon = ""
        if not colon or name not in _WORKLOADS.split(", "):
            raise typer.BadParameter(
                f"cannot read {item!r}; write prefix_sum, or for example momentum:0.95,cooldown:0.25 ({_WORKLOADS})"
            )
    return table


def optimize(
    config: Annotated[
        str | None, typer.Argument(metavar="[CONFIG]", help="TOML file that describes the training run.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="KIND", help="tree, banded, banded_toeplitz, blt, ... (see the README).")
    ] = None,
    num_bands: Annotated[int | None, typer.Option(metavar="COUNT", help="Diagonals of a banded strategy.")] = None,
    num_buffers: Annotated[int | None, typer.Option(metavar="COUNT", help="Buffers of a blt strategy.")] = None,
    column_norms: Annotated[
        str | None, typer.Option(metavar="RULE", help="optimal or equal, for banded strategies.")
    ] = None,
    window_scales: Annotated[
        bool | None,
        typer.Option("--window-scales", help="Let noise grow from one window of min_sep steps to the next."),
    ] = None,
    objective: Annotated[str | None, typer.Option(metavar="ERROR", help="rmse or max_error.")] = None,
    iterations: Annotated[int | None, typer.Option(metavar="COUNT", help="Steps of the run.")] = None,
    min_sep: Annotated[
        int | None, typer.Option(metavar="COUNT", help="Least number of steps between two uses of a unit.")
    ] = None,
    max_participations: Annotated[
        int | None, typer.Option(metavar="COUNT", help="Most steps that one unit is in.")
    ] = None,
    workload: Annotated[
        Any, typer.Option(parser=_workload, metavar="WORDS", help="prefix_sum, momentum:0.95, ...")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="FILE", help="Go on from the strategy in this .npz file.")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Save the strategy to this .npz file.")] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw errors and coefficients to this .png, .svg or .pdf.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The correlated noise of least error for a run, and how close to the best it is proved to be.

    The run comes from a config, from flags, or from both; a flag wins. Without --min-sep a unit takes part once. Ctrl-C
    ends the search with the best strategy so far, and --start goes on from it.

    \b
    Examples:
      dpkit optimize examples/templates/ftrl_banded.toml --out strategy.npz
      dpkit optimize --iterations 2052 --min-sep 342 --strategy banded \\
        --num-bands 64 --workload momentum:0.95
    """
    chosen = {
        "kind": strategy,
        "num_bands": num_bands,
        "num_buffers": num_buffers,
        "column_norms": column_norms,
        "window_scales": window_scales,
        "objective": objective,
    }
    steps = {"iterations": iterations, "min_sep": min_sep, "max_participations": max_participations}
    with explained():
        _check_files(out, plot)
        run = _described(config, _given(steps), _given(chosen), workload)
        from dpkit import factorization
        from dpkit.training import correlation

        if not run.correlated and start is None:
            raise ValueError("no strategy is named; add for example --strategy banded --num-bands 32")
        first = None if start is None else factorization.load(start).strategy
        schema = correlation.schema(run)
        with _progress(visible=not as_json) as report:
            solution = correlation.solve(run.strategy, run.optimizer, schema, report, first)
        if out is not None:
            factorization.save(out, solution.strategy, schema)
        if plot is not None:
            from dpkit import plots

            work = correlation.workload(run.optimizer, schema.iterations)
            plots.save(plots.strategy(solution.strategy, work, schema), plot)
    if as_json:
        typer.echo(json.dumps(_as_dict(solution, schema.iterations), indent=2, allow_nan=False))
        return
    from dpkit.cli.output import print_solution

    print_solution(solution, schema, run.strategy.name or start or "", run.optimizer)


def _check_files(out: str | None, plot: str | None) -> None:
    """Before the search, so that nothing found is lost for a mistyped name."""
    for option, path in (("--out", out), ("--plot", plot)):
        if path is not None and not pathlib.Path(path).parent.is_dir():
            raise ValueError(f"{option} {path}: there is no such folder; name a file in one that exists")
    if plot is not None:
        from dpkit import plots

        plots.check_path(plot)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _described(
    path: str | None, training: dict[str, Any], strategy: dict[str, Any], optimizer: dict[str, Any] | None
) -> "TrainingConfig":
    """The run of the config with the flags' values in place of its own, or that of the flags alone."""
    from dpkit.training import TrainingConfig, load_config

    if path is not None:
        config = load_config(path)
        tables, source = config.tables(), f"{path} with these flags"
        # Another kind makes the numbers of the config's own meaningless, and steps replace epochs.
        if "kind" in strategy:
            tables.pop("strategy", None)
        if "iterations" in training:
            tables["training"].pop("epochs", None)
    else:
        if "iterations" not in training:
            raise ValueError("name a config, or the number of steps as --iterations 2052")
        tables, source = dict(_ANY_RUN), "these flags"
        tables["training"] = {"sampling": "min_sep", "min_sep": training["iterations"]}
    for name, changed in (("training", training), ("strategy", strategy)):
        if changed:
            tables[name] = {**tables.get(name, {}), **changed}
    if optimizer is not None:
        tables["optimizer"] = optimizer
    return TrainingConfig.parse(tables, source)


@contextlib.contextmanager
def _progress(*, visible: bool) -> Iterator[Any]:
    """A callback that shows, on standard error and only to a person, how far the search is."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (visible and console.is_terminal)) as bar:
        task = bar.add_task("optimizing", total=None, words="")

        def report(at: "SearchProgress") -> None:
            gap = "" if at.gap is None else f", within {at.gap:.1e} of the best"
            bar.update(task, words=f"step {at.iterations}, error {at.error:.6g}{gap}")

        yield report


def _as_dict(solution: "Solution", iterations: int) -> dict[str, Any]:
    fields = {field.name: getattr(solution, field.name) for field in dataclasses.fields(solution)}
    fields["strategy"] = type(solution.strategy).__name__
    return {**fields, "state_copies": solution.strategy.form(iterations).copies}

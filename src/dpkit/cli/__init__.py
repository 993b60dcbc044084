"""The command line.

Everything numerical is imported inside the commands, so that help and errors in flags come at once.
"""

from typing import Annotated

import typer

from dpkit import __version__
from dpkit.cli import accounting, audit, compare, optimize, planning, plot

app = typer.Typer(
    name="dpkit",
    add_completion=True,
    no_args_is_help=True,
    # Plain help starts twice as fast, and plain messages survive being piped.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


for command in (
    accounting.epsilon,
    accounting.calibrate,
    accounting.report,
    audit.audit,
    compare.compare,
    optimize.optimize,
    planning.plan,
    plot.plot,
):
    app.command()(command)


def main() -> None:
    """The console script."""
    app()

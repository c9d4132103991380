"""``ssgd-analyze``: finds the command, and turns every failure into one line and a status."""

import contextlib
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from ssgd_analysis.errors import InputError, WorkError, unknown

COMMANDS = {
    "train": "Train one model with one method and leave a run folder.",
    "sharpness": "Measure eigenvalues, trace, density and flatness of checkpoints.",
    "landscape": "Draw the loss along lines and planes through weight space.",
    "connect": "Measure the barrier between two checkpoints, along several paths.",
    "compare": "Compare groups of runs: intervals, paired tests, verdicts.",
    "study": "Train a grid, measure every run, compare and report.",
    "list": "List methods, models, data, metrics, optimizers, studies, systems.",
}


class LazyGroup(click.Group):
    """Imports a command's file only when that command runs: ``--help`` needs no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import ``ssgd_analysis.cli.NAME`` and take its ``command``."""
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"ssgd_analysis.cli.{name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown command with the nearest name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssgd-analysis", prog_name="ssgd-analyze")
def cli() -> None:
    """Did a training method really find a flatter minimum?

    Trains with S-SGD and its rivals, measures curvature and flatness with error bars, draws
    loss landscapes, and compares with honest statistics. `ssgd-analyze study` answers the
    question on real handwritten digits within minutes.

    Add --debug to any command for a full traceback.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 the work failed, 2 the input was wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    if not given:
        given = ["--help"]
    try:
        cli.main(given, prog_name="ssgd-analyze", standalone_mode=False)
        sys.stdout.flush()
        status = 0
    except BrokenPipeError:  # the reader of stdout went away, as `| head` does
        sys.stdout = Path("/dev/null").open("w")  # noqa: SIM115
        status = 1
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        message, status = _explain(error)
        with contextlib.suppress(OSError):  # stderr may be what is full; the status still tells
            sys.stderr.write(f"Error: {' '.join(message.split())}\n")
    sys.exit(status)


def _explain(error: BaseException) -> tuple[str, int]:
    """One line and an exit status for any failure."""
    if isinstance(error, click.ClickException):
        return error.format_message(), 2
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, WorkError):
        return str(error), 1
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted; everything that was finished is saved", 1
    if isinstance(error, OSError):
        # whatever is written or read by name says so; what is left is the answer itself
        return f"{error.filename or 'standard output'}: {error.strerror or error}", 1
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory: try a smaller --batch-size or --samples", 1
    return f"{type(error).__name__}: {error} (--debug shows where)", 1


if __name__ == "__main__":
    main()

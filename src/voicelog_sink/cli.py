"""The command line `voicelog-sink`: finds the command's file, and turns errors into one sentence and a status.

Status 0: done. 1: it failed. 2: wrong use. What went wrong is on stderr, without a traceback.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Sequence

import click

from voicelog.errors import ConfigError
from voicelog_sink import commands
from voicelog_sink.errors import SinkError
from voicelog_sink.nearest import NearestGroup
from voicelog_sink.stores.base import StoreError
from voicelog_sink.streams import StdoutUnwritable, own_streams, silence_stdout
from voicelog_sink.version import sink_version

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130


class LazyGroup(NearestGroup):
    """A group whose commands are the files in commands/, imported only when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the files."""
        return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's file and return its `command`; None when there is no such file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="\b\nExamples:\n  voicelog-sink dev -- python bot.py\n  voicelog-sink sessions\n  voicelog-sink run --help",
)
@click.version_option(sink_version(), prog_name="voicelog-sink", message="%(prog)s %(version)s")
def group() -> None:
    """Keep what voice agents report: from the broker into a store, and back as calls, waterfalls and percentiles."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; raises nothing that a user could cause."""
    with own_streams():
        status = _guarded(lambda: _run(args))
        return _guarded(sys.stdout.flush) or status  # also of a command that failed, before the interpreter does it


def _run(args: Sequence[str] | None) -> int:
    status = group.main(args, prog_name="voicelog-sink", standalone_mode=False)
    return status if isinstance(status, int) else 0


def _guarded(step: Callable[[], int | None]) -> int:
    """Return the step's status, or that of the error, which is told on stderr."""
    try:
        return step() or 0
    except click.ClickException as exc:
        exc.show()
        return WRONG_USE if isinstance(exc, click.UsageError) else FAILED
    except ConfigError as exc:
        return _fail(str(exc), WRONG_USE)
    except StdoutUnwritable as exc:
        silence_stdout()
        return _fail(str(exc), FAILED)
    except (SinkError, StoreError) as exc:
        return _fail(str(exc), FAILED)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the latter is click's own way out of a closed pipe
        silence_stdout()  # whoever reads had enough, as `head` has: that is no failure
        return 0
    except Exception as exc:
        if sys.flags.dev_mode:
            raise
        return _fail(_unexpected(exc), FAILED)


def _fail(sentence: str, status: int) -> int:
    click.echo(f"voicelog-sink: {sentence}", err=True)
    return status


def _unexpected(exc: Exception) -> str:
    *_, frame = traceback.extract_tb(exc.__traceback__)
    return (
        f"unexpected {type(exc).__name__} at {os.path.basename(frame.filename)}:{frame.lineno}: {exc}; this is a fault "
        "of voicelog-sink, please report it with the traceback that PYTHONDEVMODE=1 shows"
    )

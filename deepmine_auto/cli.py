"""The `deepmine-auto` command: whatever the `commands` hook brings, and one way to end for each kind of error."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

import click

from deepmine_auto import __version__, interrupts
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.host import Host, the_host

NAME = "deepmine-auto"
UNUSABLE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EROFS, errno.ENOSPC)
"""Errors of a path that a user can mend."""

LONGEST_PATH = 100
"""Of a path that cannot be used so many characters are shown: a text may have been taken for one."""

NO_HOME = "Could not determine home directory."
"""What Python says of a path that begins with ~ and the name of nobody here."""

HELP = """Find the attention model for your data: variants, architecture and training recipe, searched together.

Standard output is the result, standard error is progress; `--json` prints one JSON object.
"""


def main() -> NoReturn:
    """Run the command that was typed, and end with its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal knows every character
    interrupts.listen()
    interrupts.hear_in_destructors()
    code = run(sys.argv[1:], the_host())
    interrupts.deafen()
    sys.exit(code)


def run(args: Sequence[str], host: Host) -> int:
    """Run one command and return its exit code. A DeepmineError becomes its sentence; a bug keeps its traceback."""
    group = group_of(host)
    try:
        code = group.main(list(args), NAME, standalone_mode=False)
        _mention_broken(host, args)
        return code if isinstance(code, int) else 0
    except DeepmineError as error:
        click.echo(str(error), err=True)
        return error.exit_code
    except click.Abort as abort:
        with suppress(OSError):  # a terminal that hung up
            for note in getattr(abort.__cause__, "__notes__", ()):
                click.echo(note, err=True)
        return interrupts.exit_code(abort.__cause__)
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        return interrupts.TERMINATED  # Ray, while it starts, takes SIGTERM for itself, and ends with its number
    except (OSError, RuntimeError, termios.error) as error:
        if interrupt := interrupts.behind(error):
            return interrupts.exit_code(interrupt)
        if (told := _of_a_path(error)) is None:
            raise
        click.echo(str(told), err=True)
        return told.exit_code
    except click.ClickException as error:
        click.echo(_told(error, host, args), err=True)
        return error.exit_code


def _of_a_path(error: Exception) -> BadInput | None:
    """What is to be said of a path that cannot be used, wherever that turned out; None for any other error."""
    if str(error) == NO_HOME:
        return BadInput("A path begins with ~ and the name of nobody here.", "Write ./~ if a file is called so.")
    if not isinstance(error, OSError) or error.errno not in UNUSABLE or error.filename is None:
        return None
    path = str(error.filename)
    named = path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}..."
    return BadInput(f"{named} cannot be used: {error.strerror}.", "Give another path, or mend this one.")


def group_of(host: Host) -> click.Group:
    """The group with every command that the host offers, in the order in which they are brought."""
    commands = {name: each.thing for name, each in host.offered("command").items()}
    group = InOrder(NAME, commands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
    return click.version_option(__version__, prog_name=NAME)(group)


class InOrder(click.Group):
    """Lists its commands in the order in which a study meets them, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Where nobody reads on (`| head -1`), it ends as if by SIGPIPE, and says nothing."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            unread = [each for each in (sys.stdout, sys.stderr) if _nobody_reads(each)]
            if not unread:  # click would take a broken pipe of our own for a reader who left, and say nothing
                raise RuntimeError("a pipe inside the command broke") from error
            for each in unread:
                os.dup2(os.open(os.devnull, os.O_WRONLY), each.fileno())  # Python flushes once more at its end
            ctx.exit(interrupts.CLOSED_PIPE)


def _nobody_reads(stream: TextIO) -> bool:
    asked = select.poll()
    asked.register(stream, 0)
    return any(what & select.POLLERR for _, what in asked.poll(0))


def _told(error: click.ClickException, host: Host, args: Sequence[str]) -> str:
    """A usage error in one sentence: with the nearest right name as click finds it, and where all of them are. Where a
    group is typed alone, its help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.message
    for each in host.broken:
        if each.kind == "command" and args and each.what.endswith(f":{args[0]}"):
            return str(BadInput(f"The command '{args[0]}' cannot be used: {each.why}.", f"See `{NAME} plugins list`."))
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = f" See `{context.command_path} --help`." if context else ""
    return f"{_message(error)}{where}"


def _message(error: click.ClickException) -> str:
    near = getattr(error, "possibilities", None)  # nearest first, where a name is unknown; click itself shows several
    message = f"{error.message} Did you mean '{near[0]}'?" if near else " ".join(error.format_message().split())
    return message if message.endswith((".", "?")) else f"{message}."


def _mention_broken(host: Host, args: Sequence[str]) -> None:
    """Say in one line that plugins are set aside, unless the command was about them."""
    if host.broken and args and args[0] != "plugins":
        many = "1 plugin is" if len(host.broken) == 1 else f"{len(host.broken)} plugins are"
        click.echo(f"{many} set aside: see `{NAME} plugins list`.", err=True)

"""Ctrl-C, SIGTERM, SIGHUP, and a reader who leaves."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from typed import PROGRAM, command, search_args

from deepmine_auto import cli, interrupts
from deepmine_auto.terminal.watching import EventLines

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]

SWALLOWED = """
import os, signal, sys
from deepmine_auto import interrupts
interrupts.listen()
try:
    os.kill(os.getpid(), {number})
except:  # as some libraries have it around their imports
    pass
try:
    interrupts.raise_if_lost()
except KeyboardInterrupt as interrupt:
    sys.exit(interrupts.exit_code(interrupt))
"""

TIDYING = """
import os, signal, sys
from contextlib import contextmanager
from deepmine_auto import interrupts
interrupts.listen()

@contextmanager
def workers():
    try:
        yield
    finally:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        print("tidied up", flush=True)

try:
    with workers():
        os.kill(os.getpid(), {number})
except KeyboardInterrupt as interrupt:
    code = interrupts.exit_code(interrupt)
interrupts.deafen()
os.kill(os.getpid(), {number})
sys.exit(code)
"""


IN_A_DESTRUCTOR = """
import os, time
from deepmine_auto import cli, interrupts

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), {number})

def search(args, host):
    try:
        Dropped()
        time.sleep({seconds})
    except KeyboardInterrupt as interrupt:
        return interrupts.exit_code(interrupt)

cli.run = search
cli.main()
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_an_interrupt_that_a_library_swallowed_is_raised_again(number: int, code: int) -> None:
    assert python(SWALLOWED.format(number=int(number))).returncode == code


@pytest.mark.parametrize(("number", "code"), CODES)
def test_an_interrupt_that_came_in_a_destructor_is_raised_after_it_and_told_nowhere(number: int, code: int) -> None:
    done = python(IN_A_DESTRUCTOR.format(number=int(number), seconds=30))
    assert (done.returncode, done.stderr) == (code, "")


def test_another_error_in_a_destructor_is_told() -> None:
    other = IN_A_DESTRUCTOR.replace("os.kill(os.getpid(), {number})", "raise OSError('of another')")
    assert "of another" in python(other.format(seconds=0)).stderr


@pytest.mark.parametrize(("number", "code"), CODES)
def test_further_interrupts_do_not_break_off_what_the_first_one_tidies_up(number: int, code: int) -> None:
    done = python(TIDYING.format(number=int(number)))
    assert (done.returncode, done.stdout, done.stderr) == (code, "tidied up\n", "")


def test_an_interrupt_that_was_dealt_with_keeps_none_of_the_next_from_being_heard() -> None:
    again = """
import os, signal
from deepmine_auto import interrupts
interrupts.listen()
for number in (signal.SIGINT, signal.SIGTERM):
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt as interrupt:
        print(interrupts.exit_code(interrupt))
"""
    assert python(again).stdout.split() == ["130", "143"]


def test_a_command_that_is_to_outlive_its_terminal_does() -> None:
    nohup = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from deepmine_auto import interrupts
interrupts.listen()
os.kill(os.getpid(), signal.SIGHUP)
print("alive")
"""
    assert python(nohup).stdout == "alive\n"


def test_the_interrupt_behind_an_error_is_found_through_all_that_was_raised_since() -> None:
    first = interrupts.HungUp()
    second, third = OSError("no terminal"), ValueError("nor a value")
    second.__context__, third.__context__ = first, second
    assert interrupts.behind(third) is first
    assert interrupts.behind(first) is first
    assert interrupts.behind(OSError()) is None
    assert interrupts.behind(None) is None


def test_a_search_looks_for_lost_interrupts_after_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_received", [signal.SIGTERM])
    with pytest.raises(interrupts.Terminated, match=r"^$"):
        EventLines(print, lambda: None).tick()


def test_without_an_interrupt_nothing_is_raised() -> None:
    EventLines(print, lambda: None).tick()
    assert interrupts._received == []


# -- a terminal that hangs up, and a reader who leaves -----------------------------------------------------------------


@pytest.mark.slow
def test_a_terminal_that_hangs_up_ends_a_search_that_can_be_resumed(tmp_path: Path) -> None:
    args = [*PROGRAM, *search_args(tmp_path, "--trials", "40")]
    process, ours = pty.fork()
    if process == 0:  # the child, whose terminal we hold
        os.chdir(tmp_path)
        os.environ["TERM"] = "xterm"
        os.environ.pop("CI", None)
        os.execv(args[0], args)
    shown = b""
    while b"trial 0 complete" not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == interrupts.HUNG_UP
    assert '"complete"' in command("trials", "small", "--json", folder=tmp_path).stdout


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_command_whose_reader_left_ends_as_if_by_sigpipe_and_says_nothing(closed: str, tmp_path: Path) -> None:
    code = """
import click, sys
from deepmine_auto import cli
@click.command()
def speak():
    for _ in range(9):
        click.echo("x" * 9, err={err})
try:
    sys.exit(cli.InOrder("group", {{"speak": speak}}).main(["speak"], standalone_mode=False))
except BaseException as error:
    open("raised", "w").write(repr(error))
    raise
"""
    ours, theirs = os.pipe()
    os.close(ours)
    other = "stdout" if closed == "stderr" else "stderr"
    ends = {closed: theirs, other: subprocess.PIPE}
    program = [sys.executable, "-c", code.format(err=closed == "stderr")]
    done = subprocess.run(program, cwd=tmp_path, check=False, **ends)  # type: ignore[call-overload]
    os.close(theirs)
    assert (tmp_path / "raised").read_text() == f"SystemExit({interrupts.CLOSED_PIPE})"
    assert done.returncode == interrupts.CLOSED_PIPE
    assert getattr(done, other) == b""


def test_a_reading_command_whose_reader_left_says_nothing(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    listing = [*PROGRAM, "plugins", "list"]
    done = subprocess.run(listing, cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (interrupts.CLOSED_PIPE, b"")


def test_a_pipe_of_our_own_that_breaks_is_a_bug_and_keeps_its_traceback() -> None:
    @click.command()
    def fail() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(RuntimeError, match="a pipe inside the command broke"):
        cli.InOrder("group", {"fail": fail}).main(["fail"], standalone_mode=False)

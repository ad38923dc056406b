"""The command as it is typed: its help, its errors, its exit codes."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from deepmine_auto import __version__, interrupts
from deepmine_auto.cli import run
from deepmine_auto.errors import DatabaseAway
from deepmine_auto.host import Broken, the_host


class Hosted:
    """A host with one command."""

    broken: list = []

    def __init__(self, work, broken=()):
        self.command = click.Command("work", callback=work)
        self.broken = list(broken)

    def offered(self, kind):
        return {"work": type("Brought", (), {"thing": self.command})} if kind == "command" else {}


def raising(error):
    def work():
        raise error

    return work


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['deepmine-auto', '--help']; from deepmine_auto import cli\n"
        "try: cli.main()\n"
        "finally: print(sorted({'torch', 'optuna', 'ray', 'rich', 'sqlalchemy', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in ("search", "resume", "studies", "trials", "best", "plugins", "dashboard", "doctor"):
        assert re.search(f"^  {name} ", done.stdout, re.MULTILINE)


def test_the_version_is_told(capsys):
    assert run(["--version"], the_host()) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["serch"], "No such command 'serch'. Did you mean 'search'? See `deepmine-auto --help`."),
        (["search", "--trails", "3"], "No such option '--trails'. Did you mean '--trials'?"),
        (["search", "--trials", "many"], "'many' is not a valid integer."),
        (["resume"], "Missing argument 'STUDY'."),
        (["plugins", "lst"], "Did you mean 'list'?"),
    ],
)
def test_a_slip_of_the_keyboard_is_one_line_with_the_nearest_name(args, told, capsys):
    assert run(args, the_host()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert told.split(". Did")[0] in shown.err
    assert told in shown.err
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("args", [[], ["plugins"]])
def test_a_group_typed_alone_prints_its_help(args, capsys):
    assert run(args, the_host()) == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("Usage: deepmine-auto")
    assert any(line.strip() == "Commands:" for line in shown)


def test_an_error_of_ours_is_its_sentence_and_its_exit_code(capsys):
    assert run(["work"], Hosted(raising(DatabaseAway("The database is away.", "Call it back.")))) == 6
    assert capsys.readouterr().err == "The database is away. Call it back.\n"


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENOSPC])
def test_a_path_that_cannot_be_used_is_a_sentence_wherever_that_turns_out(number, capsys):
    assert run(["work"], Hosted(raising(OSError(number, os.strerror(number), "x" * 200)))) == 2
    assert capsys.readouterr().err == (
        f"{'x' * 100}... cannot be used: {os.strerror(number)}. Give another path, or mend this one.\n"
    )


def test_an_error_of_the_system_without_a_path_is_a_bug():
    with pytest.raises(OSError, match="No space left"):
        run(["work"], Hosted(raising(OSError(errno.ENOSPC, "No space left"))))


def test_a_path_of_nobody_s_home_is_a_sentence(capsys):
    assert run(["work"], Hosted(lambda: Path("~nobody-is-called-so/rows.csv").expanduser())) == 2
    told = "A path begins with ~ and the name of nobody here. Write ./~ if a file is called so.\n"
    assert capsys.readouterr().err == told


def test_any_other_error_at_run_time_is_a_bug():
    with pytest.raises(RuntimeError, match="no luck"):
        run(["work"], Hosted(raising(RuntimeError("no luck"))))


def test_a_terminal_that_lacks_a_character_gets_its_number():
    code = (
        "import click; from deepmine_auto import cli\n"
        "cli.run = lambda args, host: click.echo('\\u2026 \\xe9') or 0\n"
        "cli.main()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, b"\\u2026 \xe9\n")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run(["work"], Hosted(raising(ZeroDivisionError("a bug"))))


@pytest.mark.parametrize(("kind", "code"), [(KeyboardInterrupt, 130), (interrupts.Terminated, 143)])
def test_an_interrupt_says_how_to_go_on(kind, code, capsys):
    error = kind()
    error.add_note("go on later: deepmine-auto resume mine")
    assert run(["work"], Hosted(raising(error))) == code
    assert capsys.readouterr().err.strip() == "go on later: deepmine-auto resume mine"


def test_a_command_that_is_set_aside_says_why(capsys):
    host = Hosted(lambda: None, [Broken("theirs:other", "theirs", "ImportError: no luck", "command")])
    assert run(["other"], host) == 2
    assert "The command 'other' cannot be used: ImportError: no luck." in capsys.readouterr().err


def test_plugins_that_are_set_aside_are_one_line_after_a_command(capsys):
    broken = [Broken(f"theirs:{each}", "theirs", "no luck", "attention") for each in range(3)]
    assert run(["work"], Hosted(lambda: None, broken)) == 0
    assert capsys.readouterr().err == "3 plugins are set aside: see `deepmine-auto plugins list`.\n"


def test_a_closed_pipe_ends_silently():
    command = f"{sys.executable} -c 'from deepmine_auto.cli import main; main()' plugins list --names | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["search", "resume", "studies", "trials", "best", "plugins", "dashboard", "doctor"])
def test_every_command_explains_itself(command, capsys):
    assert run([command, "--help"], the_host()) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: deepmine-auto {command}")
    assert "--help" in shown

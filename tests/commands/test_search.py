import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from typed import PROGRAM, command, search_args, space_in

from deepmine_auto.cli import run
from deepmine_auto.host import the_host
from deepmine_auto.terminal.words import plain

ROWS = [("text,label"), *(f"a {word} film number {at},{label}" for at in range(9) for word, label in
                           (("good", "up"), ("bad", "down")))]  # fmt: skip


def refused(capsys, tmp_path, *args):
    """What a refused search says; asserts that it leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    assert run(["search", "--executor", "inline", *args], the_host()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1, shown.err
    assert sorted(tmp_path.rglob("*")) == before
    return shown.err


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--task", "sentimnt"], "'sentimnt' is no task. Did you mean 'sentiment'?"),
        (["--attention", "multi_head,linaer"], "'linaer' is no attention. Did you mean 'linear'?"),
        (["--attention", "rotary"], "No core or mixer is among the attentions rotary. Add one"),
        (["--sampler", "tpee"], "'tpee' is no sampler. Did you mean 'tpe'?"),
        (["--pruner", "ashha"], "'ashha' is no pruner. Did you mean 'asha'?"),
        (["--objective", "macrof1"], "Did you mean 'macro_f1'?"),
        (["--space", "sentimental"], "'sentimental' is no search space. Did you mean 'sentiment'?"),
        (["--space", "none.toml"], "There is no search space file none.toml. Check the path."),
        (["--executor", "inlin"], "'inlin' is no executor. Did you mean 'inline'?"),
        (
            ["--gpus", "2"],
            "The inline executor has one worker in this process, and takes no --gpus. Use --executor ray.",
        ),
        (["--gpus", "-1"], "--gpus is -1. Give a larger number."),
        (["--workers", "0"], "--workers is 0. Give a larger number."),
        (["--trials", "0"], "A study of 0 trials learns nothing. Give --trials 1 or more."),
        (["--time-budget", "3s"], "A time budget of 3 s is too short"),
        (["--time-budget", "soon"], "'soon' is no duration. Write 90s, 5m or 1h30m."),
        (["--study", "a/b"], "'a/b' is no study name."),
        (["--storage", "mysql://me:secret@host/db"], "'mysql' storage is not supported."),
        (["--storage", "."], "is a folder. Name a file in it"),
        (["--data", "none.csv"], "none.csv"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(args, told, capsys, tmp_path):
    assert told in refused(capsys, tmp_path, *args)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"text,label\n", "no row"),
        (b"\x00\x01\x02" * 100, "text"),
        ("text,label\ncaf\u00e9,up\n".encode("latin-1"), "UTF-8"),
        (b"text,colour,shape\na,red,round\nb,blue,flat\n", "colour"),
        (b"text,label\n" + b"".join(b"text %d,up\n" % at for at in range(9)), "class"),
        ("\n".join([*ROWS, "one,rare"]).encode(), "rare"),
        ("\n".join([*ROWS, ",up"]).encode(), "empty"),
        ("\n".join([*ROWS, f"{'x' * 1_000_001},up"]).encode(), "1,000,00"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(content, told, capsys, tmp_path):
    (tmp_path / "rows.csv").write_bytes(content)
    said = refused(capsys, tmp_path, "--task", "text_classification", "--data", "rows.csv")
    assert told.lower() in said.lower()


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[budgets]\n", "'budgets' is no section. Did you mean 'budget'?"),
        ("[budget]\ntrials = 'many'\n", "'trials' is 'many'"),
        ('[ranges]\n"model/dpeth" = 2\n', "Did you mean 'model/depth'?"),
        ('[ranges]\n"model/depth" = { low = 3, high = 2 }\n', "the range of 'model/depth' is empty"),
        ('[ranges]\n"model/depth" = "deep"\n', "'model/depth' is 'deep'. It must be a whole number from 1 to 6."),
        ("[budget\n", "is no TOML"),
    ],
)
def test_a_space_file_that_is_wrong_is_refused_with_its_name(toml, told, capsys, tmp_path):
    (tmp_path / "mine.toml").write_text(toml)
    said = refused(capsys, tmp_path, "--space", "mine.toml", "--trials", "2")
    assert told in said
    assert "mine.toml" in said


def test_storage_that_is_no_database_is_refused(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, surely")
    assert "notes.txt is no SQLite database." in refused(capsys, tmp_path, "--storage", "notes.txt")


def test_an_output_folder_that_exists_is_refused(capsys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    assert "out exists already." in refused(capsys, tmp_path, "--output", "out", "--space", str(space_in(tmp_path)))
    (tmp_path / "file").touch()
    told = refused(capsys, tmp_path, "--output", "file/out", "--space", str(space_in(tmp_path)))
    assert told.endswith("file. Give another --output.\n")


def test_a_storage_file_gives_the_storage_of_its_first_line(capsys, tmp_path):
    (tmp_path / "where").write_text("mysql://me:secret@host/db\nand a note\n")
    said = refused(capsys, tmp_path, "--storage-file", "where")
    assert "'mysql' storage is not supported." in said
    assert "secret" not in said
    (tmp_path / "where").write_text("\n")
    assert "The first line of where is empty." in refused(capsys, tmp_path, "--storage-file", "where")
    assert "both given" in refused(capsys, tmp_path, "--storage-file", "where", "--storage", "x.db")
    assert "cannot be read" in refused(capsys, tmp_path, "--storage-file", "nowhere")


@pytest.mark.slow
@pytest.mark.ray
def test_more_gpus_than_there_are_is_refused_with_what_runs(tmp_path):
    done = command("search", "--gpus", "64", "--trials", "2", folder=tmp_path)
    assert done.returncode == 2
    assert "64 GPUs were asked for, and Ray reports" in done.stderr
    assert re.search(r"The same with(out --gpus| --gpus \d+) runs", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_search_prints_one_object_and_tells_its_progress_beside_it(searched):
    folder, found, progress = searched
    assert found["study"] == "small"
    assert found["trials"] == 2
    assert found["result"]["winner"] in (0, 1)
    assert (Path(found["result"]["bundle"]) / "model.safetensors").exists()
    assert found["storage"] == str(folder / "deepmine-auto" / "studies.db")
    assert "trial 0 complete" in progress
    assert "rerun 3 of trial" in progress
    assert "A new study created" not in progress
    assert "\x1b" not in progress


@pytest.mark.slow
def test_a_study_that_exists_is_refused_with_how_to_go_on(searched):
    folder, _, _ = searched
    done = command(*search_args(folder), folder=folder)
    assert done.returncode == 2
    assert "There is a study 'small'" in done.stderr
    assert "deepmine-auto resume small; or choose another --study." in done.stderr


def stopped(args, folder, number, after):
    """Run the command, send a signal once standard error holds `after`, and return code and standard error."""
    with subprocess.Popen([*PROGRAM, *args], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        told = b""
        while after not in told:
            read = os.read(process.stderr.fileno(), 65536)
            assert read, told.decode()
            told += read
        process.send_signal(number)
        told += process.stderr.read()
    return process.returncode, told.decode()


@pytest.mark.slow
def test_a_search_that_ctrl_c_stopped_goes_on_with_the_same_trials(tmp_path):
    exit_code, told = stopped(search_args(tmp_path), tmp_path, signal.SIGINT, b"trial 0 complete")
    assert exit_code == 130
    assert told.splitlines()[-1] == "go on later: deepmine-auto resume small"
    assert "Traceback" not in told
    before = json.loads(command("trials", "small", "--json", folder=tmp_path).stdout)["trials"]
    done = command("resume", "small", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    after = json.loads(command("trials", "small", "--json", folder=tmp_path).stdout)["trials"]
    assert len(after) == 2
    assert after[0] == before[0]
    assert [each["params"] for each in after[: len(before)]] == [each["params"] for each in before]


@pytest.mark.slow
def test_sigterm_ends_a_search_as_ctrl_c_does(tmp_path):
    exit_code, told = stopped(search_args(tmp_path), tmp_path, signal.SIGTERM, b"small  ")
    assert exit_code == 143
    assert told.splitlines()[-1] == "go on later: deepmine-auto resume small"
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_terminal_gets_the_live_view_and_the_outcome(tmp_path):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"}
    environment.pop("CI", None)
    args = [*PROGRAM, *search_args(tmp_path, "--trials", "2")]
    with subprocess.Popen(args, cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        shown = io.BytesIO()
        while True:
            try:
                shown.write(os.read(ours, 65536))
            except OSError:  # the other end is closed
                break
        outcome = process.stdout.read().decode()
    os.close(ours)
    raw = shown.getvalue().decode()
    text = plain(raw)
    assert process.returncode == 0, text
    assert "best 0." in text
    assert "done  2/2 trials" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", raw), "a colour in spite of NO_COLOR"
    assert "winner  trial " in outcome
    assert "next    deepmine-auto predict " in outcome


@pytest.mark.slow
def test_q_ends_the_search_after_the_running_trials(tmp_path):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
    environment.pop("CI", None)
    args = [*PROGRAM, *search_args(tmp_path, "--trials", "40", "--json")]
    ends = {"stdin": theirs, "stderr": theirs, "stdout": subprocess.PIPE}
    with subprocess.Popen(args, cwd=tmp_path, env=environment, **ends) as process:
        os.close(theirs)
        shown = b""
        while b"trial 0 complete" not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"q")
        reader = threading.Thread(target=drain, args=(ours,))
        reader.start()
        found = json.loads(process.stdout.read())
        reader.join()
    os.close(ours)
    assert process.returncode == 0
    assert b"q: stop after the running trials" in shown
    assert found["trials"] < 40
    assert found["result"]["facts"]["reruns"] > 0


def drain(terminal):
    """Read what a terminal shows until the other end is closed."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass

"""`deepmine-auto search --dry-run` says what would be searched and what it would take, and writes nothing."""

import contextlib
import ctypes
import io
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest
import torch
from fakes import Desk
from tiny_texts import as_csv

from deepmine_auto.cli import run
from deepmine_auto.host import the_host
from deepmine_auto.planning import calibrating

HURRY = {"DRAWN": 6, "FEWEST_DRAWN": 6, "MEASURING_SECONDS": 0.0, "STEPPING_SECONDS": 0.0}
SPACE = """
[plugins]
attention = ["multi_head", "linear", "entmax", "rotary"]
optimizer = ["adamw", "lion"]
schedule = ["cosine", "warmup_stable_decay"]
technique = ["ema", "word_dropout"]
[ranges]
"model/depth" = 1
"model/dim" = [32, 64]
"technique/ema/use" = true
"training/epochs" = 2
"data/tokens" = ["word"]
[[recipes]]
"attention/kind" = "linear"
"model/dim" = 64
"""


def prepared(folder, patch):
    """Fill a working folder with texts and a space, and be in a hurry."""
    patch.chdir(folder)
    (folder / "moods.csv").write_text(as_csv())
    (folder / "mine.toml").write_text(SPACE)
    for name, value in HURRY.items():
        patch.setattr(calibrating, name, value)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    return prepared(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """What a dry run says, and its folder before and after."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        folder = prepared(tmp_path_factory.mktemp("dry"), patch)
        (folder / "scratch").mkdir()
        torch.optim.SGD([torch.zeros(1)])  # the first optimizer of a process makes a folder for what torch compiles
        patch.setattr(tempfile, "tempdir", str(folder / "scratch"))
        before = state_of(folder)
        assert run(ASKED, the_host()) == 0
        return said.getvalue(), before, state_of(folder)


ASKED = ["search", "--dry-run", "--task", "text_classification", "--data", "moods.csv", "--space", "mine.toml"]
ASKED += ["--executor", "inline", "--trials", "5"]


def told(capsys, *more, code=0):
    """What a dry run says on standard output, or on standard error where it fails."""
    assert run([*ASKED, *more], the_host()) == code
    shown = capsys.readouterr()
    assert not shown.err if code == 0 else not shown.out
    return shown.out or shown.err


def state_of(folder):
    """Every file of a folder with its bytes."""
    return {each: each.read_bytes() if each.is_file() else None for each in sorted(folder.rglob("*"))}


# -- it writes nothing -------------------------------------------------------------------------------------------------


def test_nothing_is_written(dry):
    _, before, after = dry
    assert after == before


def test_a_database_that_is_there_is_left_as_it_is(here, capsys):
    (here / "deepmine-auto").mkdir()
    desk = Desk(here / "deepmine-auto")
    desk.begin("another")
    desk.store.storage.engine.dispose()
    before = state_of(here)
    told(capsys)
    after = state_of(here)
    beside = {each: after.pop(each) for each in set(after) - set(before)}
    assert after == before
    assert {each.name for each in beside} <= {"studies.db-shm", "studies.db-wal"}, "what SQLite has beside an open file"
    assert not any(content for each, content in beside.items() if each.name.endswith("-wal"))


def obey_permissions():
    """Let root write no more than its permissions say, in the process that is begun."""
    drop_from_bounding_set, may_write_anywhere, may_chmod_anything = 24, 1, 3
    for each in (may_write_anywhere, may_chmod_anything):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, each, 0, 0, 0)


def begun_in(folder, code, *args):
    """Run Python in a process that obeys permissions."""
    options = {"preexec_fn": obey_permissions, "capture_output": True, "text": True, "check": False}
    return subprocess.run([sys.executable, "-c", code, *args], cwd=folder, **options)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_enough_and_ray_is_not_started(here):
    code = (
        "import sys\n"
        "from deepmine_auto.planning import calibrating\n"
        f"vars(calibrating).update({HURRY!r})\n"
        "from deepmine_auto.cli import run\n"
        "from deepmine_auto.host import the_host\n"
        "code = run(sys.argv[1:], the_host())\n"
        "print('ray' in sys.modules, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    here.chmod(0o555)
    assert begun_in(here, "open('x', 'w')").returncode == 1, "the folder can be written to, and proves nothing"
    done = begun_in(here, code, *ASKED, "--executor", "ray", "--workers", "3", "--json")
    here.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False"
    assert json.loads(done.stdout)["estimates"]["crew"]["slots"] >= 1


# -- it says what would be searched ------------------------------------------------------------------------------------


def test_it_says_which_study_would_be_searched_on_what_for_what(here, capsys):
    said = told(capsys, "--study", "moods", "--limit", "latency_ms<=50", "--objective", "log_loss", "--seed", "4")
    lines = said.splitlines()
    assert lines[0].startswith(f"study      moods in {here / 'deepmine-auto' / 'studies.db'}; this is a dry run")
    assert lines[1] == f"folder     {here / 'deepmine-auto' / 'moods'}"
    assert "data       64 / 8 / 8 rows of the task text_classification" in lines
    assert "objective  log_loss, minimize" in lines
    assert "limits     latency_ms<=50" in lines
    assert "budget     5 trials" in lines
    assert any(line.startswith("search     space ") and "sampler tpe  pruner asha  seed 4" in line for line in lines)


def test_it_names_every_plugin_and_every_param_with_its_range_and_condition(dry):
    said, *_ = dry
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "attention multi_head, linear, entmax" in lines
    assert "modifier rotary" in lines
    assert "optimizer adamw, lion" in lines
    assert "technique word_dropout, ema" in lines
    assert "attention/entmax/alpha 1.05 to 1.95 entmax" in lines
    assert "attention/rotary/base 1000 to 1e+06, log rotary" in lines
    assert "model/dim 32, 64 encoder" in lines
    assert "training/epochs 2" in lines, "what is fixed is told too"
    assert "schedule cosine, warmup_stable_decay" in lines
    assert "schedule/warmup_stable_decay/cooldown 0.1 to 0.5 warmup_stable_decay" in lines
    assert "schedule/warmup 0 to 0.3" in lines, "warm-up is no plugin's"
    assert any(line.startswith("first linear, depth 1, dim 64") for line in lines)


def test_a_variant_that_the_data_rule_out_is_named_with_the_reason(here, capsys, monkeypatch):
    linear = the_host().get("attention", "linear")
    monkeypatch.setattr(linear, "caps", replace(linear.caps, max_len=3))
    said = told(capsys)
    assert "note       left out: linear takes at most 3 tokens, and up to" in said
    assert "attention  multi_head, entmax\n" in said


def test_it_says_what_the_search_would_take(dry):
    said, *_ = dry
    heads = [line.split()[0] for line in said.rpartition("\n\n")[2].splitlines()]
    wanted = ["expected", "workers", "trial", "trials", "finals", "closing", "whole", "memory", "process", "disk"]
    assert heads == wanted
    assert "8 of 10 cases lie in these ranges" in said
    assert "3 of 6 models drawn at random were trained for a moment" in said
    assert "\ntrials     5 in " in said
    assert "Ray" not in said


def test_it_says_what_is_kept_for_a_refit_or_that_nothing_is(here, capsys):
    kept, none = told(capsys, "--refit"), told(capsys, "--refit", "--time-budget", "50s")
    assert re.search(r"\nrefit      \d+s for the winner trained once more, validation rows too\n", kept)
    assert "\nrefit      nothing is kept for it: it would take more than 20 % of the time\n" in none


def test_models_that_cannot_be_trained_are_counted_with_the_reason(here, capsys, monkeypatch):
    def build(self, shape):
        raise ValueError("not\nthis \x1b[31mone")

    monkeypatch.setattr(the_host().get("attention", "linear"), "build", build)
    said = told(capsys)
    assert "of 6 models cannot be trained: ValueError: not this one" in said
    assert "\x1b" not in said


def test_in_a_narrow_terminal_nothing_is_cut_but_params(here, capsys, monkeypatch):
    monkeypatch.setattr("deepmine_auto.commands.search.width", lambda: 60)
    blocks = told(capsys).split("\n\n")
    texts = "\n".join(each for each in blocks if not each.startswith("param"))
    assert len(blocks) == 5
    assert all(len(line) <= 60 or " " not in line[11:] for line in texts.splitlines())
    assert "…" not in texts
    assert "8 of 10 cases lie in these ranges" in " ".join(texts.split())


def test_json_says_the_same_to_programs(here, capsys):
    found = json.loads(told(capsys, "--json", "--study", "moods"))
    assert found["study"] == "moods"
    assert found["storage"] == str(here / "deepmine-auto" / "studies.db")
    assert found["parts"] == {"train": 64, "validation": 8, "test": 8}
    assert found["plugins"]["attention"] == ["multi_head", "linear", "entmax"]
    assert found["plugins"]["modifier"] == ["rotary"]
    assert {"name", "range", "when"} == set(found["space"]["params"][0])
    assert [each["attention/kind"] for each in found["space"]["recipes"]] == ["linear"]
    assert found["budget"]["trials"] == 5
    estimates = found["estimates"]
    assert set(estimates["trial"]) == {"low", "middle", "high"}
    assert estimates["crew"] == {"slots": 1, "gpus": 0.0}
    assert estimates["trials"]["high"] == 5


# -- it refuses what the search refuses --------------------------------------------------------------------------------


def test_a_study_that_is_there_is_refused_as_the_search_refuses_it(here, capsys):
    (here / "deepmine-auto").mkdir()
    Desk(here / "deepmine-auto").begin("moods")
    assert "There is a study 'moods'" in told(capsys, "--study", "moods", code=2)


def test_bad_input_is_one_sentence(here, capsys):
    assert "Did you mean 'linear'?" in told(capsys, "--attention", "linaer", code=2)
    assert "The inline executor has one worker in this process" in told(capsys, "--gpus", "2", code=2)
    (here / "full").mkdir()
    (here / "full" / "precious").touch()
    assert "full exists already." in told(capsys, "--output", "full", code=2)


def test_where_no_model_can_be_trained_it_fails_with_the_reason(here, capsys, monkeypatch):
    def build(self, prepared, attention):
        raise ValueError("not today")

    monkeypatch.setattr(the_host().get("backbone", "encoder"), "build", build)
    assert told(capsys, code=1) == "No model of 6 could be trained: ValueError: not today\n"

"""`search --refit`: the winner is trained once more within the budget; without that the study has ended well too."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from tiny_texts import SPACE, as_csv

import deepmine_auto
from deepmine_auto.commands.search import search
from deepmine_auto.errors import DeepmineError
from deepmine_auto.exporting import study_in
from deepmine_auto.messages import BEFORE_TASK, WHOLE
from deepmine_auto.refitting import in_time
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import place_of
from deepmine_auto.study.budget import SLACK
from deepmine_auto.study.closing import VERIFY_SECONDS
from deepmine_auto.watcher import Watcher

PARTS = {"train": 80, "validation": 20, "test": 20}


def agenda_with(left, leading=3, reports=(WHOLE,), **workers):
    """An agenda with so many seconds left, of which one trial leads that takes a minute."""
    spec = {"parts": PARTS, "refit": True, "workers": workers}
    standing = SimpleNamespace(reports=[{"metrics": {}, "share": each} for each in reports])
    history = SimpleNamespace(of=lambda *_: standing)
    ledger = SimpleNamespace(study=SimpleNamespace(spec=spec), note_end=lambda: None, history=history)
    finalists = [] if leading is None else [leading]
    return SimpleNamespace(
        seconds_left=lambda: left,
        took=[(1.0, 0.0)],
        ledger=ledger,
        finalists=lambda: finalists,
        expected=lambda _: 60.0,
    )


END = VERIFY_SECONDS + 2.0
"""The test is as large as the validation rows, and its outputs are computed twice."""


def test_a_refit_takes_a_whole_training_on_more_rows_and_an_end_of_its_own():
    assert in_time.refit_seconds(agenda_with(100.0)) == pytest.approx(SLACK * 60.0 * 100 / 80 + END)
    two = in_time.refit_seconds(agenda_with(100.0, gpus_per_trial=2))
    assert two == pytest.approx(2 * SLACK * 60.0 * 100 / 80 + END), "one process does what two did"
    assert in_time.refit_seconds(agenda_with(100.0, leading=None)) == 0.0


def test_of_a_training_that_ended_early_its_steps_before_the_task_are_taken_whole():
    agenda = agenda_with(100.0)
    agenda.ledger.history.of("trial", 3).reports[-1]["metrics"][BEFORE_TASK] = 0.5
    seconds = in_time._seconds(agenda, 3, WHOLE // 2)
    assert seconds == pytest.approx(SLACK * 60.0 * 100 / 80 * 0.75 + END)


class Listener(Watcher):
    """Keeps what it hears, and counts its ticks."""

    def __init__(self):
        self.heard, self.ticks = [], 0

    def happened(self, kind, text, trial):
        self.heard.append(text)

    def tick(self):
        self.ticks += 1


@pytest.fixture
def refitted(tmp_path, monkeypatch):
    """A refit in what an agenda has left, of a winner that was best in the end."""
    monkeypatch.setattr(in_time, "best_share", lambda *_: WHOLE)

    def refitted(agenda, watcher, held=None, gpus=0.0):
        monkeypatch.setattr(in_time, "refit_held", held)
        spec = agenda.ledger.study.spec
        study = SimpleNamespace(spec=spec, typed="one", result={"winner": 3}, folder=str(tmp_path))
        opened = SimpleNamespace(study=study, store=None, fence=None)
        return in_time.refit_in_time(opened, agenda, watcher, gpus)

    return refitted


def found(*_):
    return {"folder": "there"}


def test_a_refit_that_does_not_fit_is_not_begun(refitted):
    watcher = Listener()
    assert refitted(agenda_with(50.0), watcher) is None
    assert watcher.heard == [
        "no refit: It would take 1m36s, and 50s are left. Later: deepmine-auto refit one",
    ]


def test_a_refit_of_what_was_trained_on_gpus_is_not_begun_without_one(refitted):
    watcher = Listener()
    assert refitted(agenda_with(None), watcher, gpus=8.0) is None
    assert watcher.heard[0].startswith("no refit: Trials ran on GPUs, and this process has none. Later: ")


def test_it_goes_on_until_its_own_end_must_begin(refitted):
    watcher, agenda, went_on = Listener(), agenda_with(100.0), []

    def held(_study, _store, _fence, _folder, _tell, goes_on):
        went_on.append(goes_on())
        agenda.seconds_left = lambda: END
        went_on.append(goes_on())
        return found()

    assert refitted(agenda, watcher, held) == found()
    assert went_on == [True, False]
    assert watcher.ticks == 2


def test_the_refit_of_a_later_winner_has_a_folder_of_its_own(refitted, tmp_path):
    folders = []

    def held(*given):
        folders.append(given[3].name)
        given[3].mkdir()
        return found()

    for _ in range(3):
        refitted(agenda_with(None), Listener(), held)
    assert folders == ["refit-3", "refit-3-2", "refit-3-3"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DeepmineError("It did not end well.", "Export it."), "It did not end well."),
        (OSError(28, "No space left"), "OSError: [Errno 28] No space left."),
    ],
)
def test_a_refit_that_fails_is_told_and_what_was_found_stands(refitted, error, told):
    def fails(*_):
        raise error

    watcher, agenda, noted = Listener(), agenda_with(None), []
    agenda.ledger.note_end = lambda: noted.append(True)
    assert refitted(agenda, watcher, fails) is None
    assert watcher.heard == [f"no refit: {told} Later: deepmine-auto refit one"]
    assert noted, "its time counts"


def test_an_interrupted_refit_can_be_made_later(refitted):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        refitted(agenda_with(None), Listener(), interrupted)
    told = "the study has ended, its refit has not. Later: deepmine-auto refit one"
    assert caught.value.__notes__ == [told]


def test_where_its_time_cannot_be_written_the_study_has_ended_well(refitted):
    def away():
        raise ConnectionError

    agenda = agenda_with(None)
    agenda.ledger.note_end = away
    assert refitted(agenda, Listener(), found) == found()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A working folder with a file of texts, a small space, and a search of one trial as it is typed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moods.csv").write_text(as_csv())
    (tmp_path / "small.toml").write_text(SPACE)
    where = ["--data", "moods.csv", "--space", "small.toml", "--executor", "inline", "--study", "one"]
    return ["--task", "text_classification", "--refit", "--trials", "1", *where]


def test_a_search_leaves_the_bundle_of_its_winner_and_that_of_the_refit(small):
    done = CliRunner().invoke(search, [*small, "--json"], catch_exceptions=False)
    assert "is trained on all" in done.stderr
    found = json.loads(done.stdout)
    store, row = study_in(place_of(None), "one")
    assert found["refit"]["facts"]["training_rows"] == row.spec["parts"]["train"] + row.spec["parts"]["validation"]
    for folder in (found["result"]["bundle"], found["refit"]["folder"]):
        assert deepmine_auto.load(folder).predict(["good"])
    (event,) = [each for each in store.rows(tables.events, row.id) if each["kind"] == "refit"]
    assert event["text"] == f"{found['refit']['sentence']}: {found['refit']['folder']}"


def test_people_read_of_it_below_the_bundle(small, monkeypatch):
    again = {"sentence": "It is better.", "facts": {"test_opened": 2}, "folder": "there"}
    monkeypatch.setattr(in_time, "refit_held", lambda *_: again)
    done = CliRunner().invoke(search, small, catch_exceptions=False)
    *_, bundle, better, opened, there = done.stdout.split("\n\nnext")[0].splitlines()
    assert bundle.startswith("bundle  ")
    assert better == "refit   It is better."
    assert opened.strip() == "the locked test was opened 2 times in this study, so these scores flatter both"
    assert there.strip() == "there"

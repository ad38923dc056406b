"""`search --refit`: the winner is trained once more within the budget; without that the study has ended well too."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from tiny_texts import rows

import deepmine_auto
from deepmine_auto import refitting, searching
from deepmine_auto.commands.search import search
from deepmine_auto.errors import DeepmineError
from deepmine_auto.messages import WHOLE
from deepmine_auto.searching import Watcher
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import place_of
from deepmine_auto.study.budget import SLACK
from deepmine_auto.study.closing import VERIFY_SECONDS

SPACE = """
[plugins]
attention = ["multi_head"]
[ranges]
"training/epochs" = 2
"model/dim" = [32]
"model/depth" = 1
"""
PARTS = {"train": 80, "validation": 20, "test": 20}


def agenda_with(left, refit=True, spent=500.0, **more):
    """An agenda with so many seconds left, of a study that asks for a refit or does not."""
    study = SimpleNamespace(spec={"parts": PARTS, "refit": refit})
    ledger = SimpleNamespace(spent=spent, study=study, note_end=lambda: None, direction="maximize")
    return SimpleNamespace(seconds_left=lambda: left, took=(), ledger=ledger, **more)


@pytest.mark.parametrize(
    ("left", "asked", "takes", "kept"),
    [
        (100.0, True, 120.0, 120.0),
        (100.0, True, 121.0, 0.0),
        (100.0, False, 120.0, 0.0),
        (None, True, 120.0, 0.0),
    ],
    ids=["its share", "more than that", "not asked for", "no time is limited"],
)
def test_time_is_kept_for_a_refit_that_was_asked_for(monkeypatch, left, asked, takes, kept):
    monkeypatch.setattr(searching, "refit_seconds", lambda _: takes)
    baseline = SimpleNamespace(seconds=lambda: 3.0)
    assert searching._kept(agenda_with(left, asked), baseline) == VERIFY_SECONDS + 6.0 + kept


def test_far_from_the_end_nobody_asks_who_the_finalists_are(monkeypatch):
    monkeypatch.setattr(searching, "refit_seconds", None)
    baseline = SimpleNamespace(seconds=lambda: 0.0)
    assert searching._kept(agenda_with(900.0, spent=100.0), baseline) == VERIFY_SECONDS


def test_a_refit_takes_what_the_longest_of_the_finalists_would():
    """As large a part of its training as was best, on more rows, and an end of its own."""
    best = {3: {"share": 500}, 5: {"share": WHOLE}}
    history = SimpleNamespace(of=lambda _, trial: SimpleNamespace(best=lambda _: best[trial]))
    agenda = agenda_with(100.0, finalists=lambda: [3, 5], expected={3: 100.0, 5: 60.0}.get)
    agenda.ledger.history = history
    assert refitting.refit_seconds(agenda) == pytest.approx(SLACK * 60.0 * 100 / 80 + VERIFY_SECONDS)


class Listener(Watcher):
    """Keeps what it hears, and counts its ticks."""

    def __init__(self):
        self.heard, self.ticks = [], 0

    def happened(self, kind, text, trial):
        self.heard.append(text)

    def tick(self):
        self.ticks += 1


def in_time(agenda, watcher):
    opened = SimpleNamespace(study=SimpleNamespace(spec=agenda.ledger.study.spec, typed="one"), store=None, fence=None)
    return searching._refit_in_time(opened, agenda, watcher)


def test_a_refit_that_does_not_fit_is_not_begun(monkeypatch):
    monkeypatch.setattr(searching, "refit_seconds", lambda _: 60.0)
    monkeypatch.setattr(searching, "refit_held", None)
    watcher = Listener()
    assert in_time(agenda_with(50.0), watcher) is None
    told = "no refit: it would take 1m00s, and 50s are left. Later: deepmine-auto refit one"
    assert watcher.heard == [told]


def test_it_goes_on_until_its_own_end_must_begin(monkeypatch):
    monkeypatch.setattr(searching, "refit_seconds", lambda _: 20.0)
    watcher, agenda, went_on = Listener(), agenda_with(100.0), []

    def held(*_, goes_on, **__):
        went_on.append(goes_on())
        agenda.seconds_left = lambda: VERIFY_SECONDS
        went_on.append(goes_on())
        return {"folder": "there"}

    monkeypatch.setattr(searching, "refit_held", held)
    assert in_time(agenda, watcher) == {"folder": "there"}
    assert went_on == [True, False]
    assert watcher.ticks == 2


def test_a_refit_that_fails_is_told_and_what_was_found_stands(monkeypatch):
    def fails(*_, **__):
        raise DeepmineError("It did not end well.", "Export it.")

    monkeypatch.setattr(searching, "refit_held", fails)
    watcher, agenda, noted = Listener(), agenda_with(None), []
    agenda.ledger.note_end = lambda: noted.append(True)
    assert in_time(agenda, watcher) is None
    assert watcher.heard == ["no refit: It did not end well. Export it."]
    assert noted, "its time counts"


def test_an_interrupted_refit_can_be_made_later(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "refit_held", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        in_time(agenda_with(None), Listener())
    assert caught.value.__notes__ == ["the study has ended; its refit later: deepmine-auto refit one"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A working folder with a file of texts, a small space, and a search of one trial as it is typed."""
    monkeypatch.chdir(tmp_path)
    made = rows()
    lines = [f'"{text}",{label}' for text, label in zip(made.inputs, made.labels, strict=True)]
    (tmp_path / "moods.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    (tmp_path / "small.toml").write_text(SPACE)
    where = ["--data", "moods.csv", "--space", "small.toml", "--executor", "inline", "--study", "one"]
    return ["--task", "text_classification", "--refit", "--trials", "1", *where]


def test_a_search_leaves_the_bundle_of_its_winner_and_that_of_the_refit(small):
    done = CliRunner().invoke(search, [*small, "--json"], catch_exceptions=False)
    assert "is trained on all" in done.stderr
    found = json.loads(done.stdout)
    assert found["refit"]["facts"]["training_rows"] > found["result"]["facts"].get("training_rows", 0)
    for folder in (found["result"]["bundle"], found["refit"]["folder"]):
        assert deepmine_auto.load(folder).predict(["good"])
    store, row = refitting.study_in(place_of(None), "one")
    (event,) = [each for each in store.rows(tables.events, row.id) if each["kind"] == "refit"]
    assert event["text"] == f"{found['refit']['sentence']}: {found['refit']['folder']}"


def test_people_read_of_it_below_the_outcome(small, monkeypatch):
    again = {"sentence": "It is better.", "facts": {"test_opened": 2}, "folder": "there"}
    monkeypatch.setattr(searching, "refit_held", lambda *_, **__: again)
    done = CliRunner().invoke(search, small, catch_exceptions=False)
    told = "\n\nIt is better.\nthe locked test was opened 2 times in this study, so these scores flatter both\nthere\n"
    assert done.stdout.endswith(told)

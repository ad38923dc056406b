"""P12: at the end of its budget a search has an exported, verified model, and says what was left out. P6: exactly N."""

import json
import random
from itertools import count
from types import SimpleNamespace

import pytest
from fakes import Desk, ending, quick, training_is
from typed import command

from deepmine_auto import load
from deepmine_auto.executors import inline
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.store import Store
from deepmine_auto.study import ledger as ledger_module
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.ledger import Ledger
from deepmine_plugins.pruners.none import KeepAll

SECONDS = 30.0
CLOSING = 5.0

LIGHT = """
[plugins]
attention = ["multi_head", "linear"]
optimizer = ["adamw"]
technique = []
[ranges]
"model/depth" = 1
"model/dim" = [32]
"training/epochs" = 3
"training/batch" = [64]
"data/tokens" = ["word"]
"""

HEAVY = """
[plugins]
attention = ["multi_head"]
optimizer = ["adamw"]
technique = []
[ranges]
"model/depth" = 6
"model/dim" = [256]
"model/heads" = [8]
"model/encoder/widen" = [4]
"training/epochs" = 1
"training/batch" = [8]
"data/tokens" = ["word"]
"""


# -- the real thing ----------------------------------------------------------------------------------------------------


def searched_for_30_seconds(folder, *more):
    """The result of a search with a short time budget, and its rows."""
    (folder / "light.toml").write_text(LIGHT)
    budget = ["--space", "light.toml", "--time-budget", f"{SECONDS:g}s", "--study", "short", "--json"]
    done = command("search", *budget, *more, folder=folder)
    assert done.returncode == 0, done.stderr
    store = Store(place_of(str(folder / "deepmine-auto" / "studies.db")).open_reader())
    return json.loads(done.stdout)["result"], store, store.study("short")


def kept_its_deadline(folder, *more):
    """Assert that at the deadline there was a verified bundle that says what it cost and what was left out."""
    result, store, study = searched_for_30_seconds(folder, *more)
    answers = load(result["bundle"]).predict(["what a lovely day :)"])
    assert answers[0]["label"] in ("negative", "neutral", "positive")
    assert result["reload_difference"] < 1e-4
    opened = [row for row in store.rows(tables.events, study.id) if row["kind"] == "test opened"]
    assert len(opened) == 1
    reruns = [row for row in store.rows(tables.reruns, study.id) if row["state"] == "COMPLETE"]
    assert ("(not rerun)" in result["sentence"]) == (not reruns)
    assert {row.state.name for row in store.trials(study.id)} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert not [row for row in store.rows(tables.reruns, study.id) if row["state"] == "RUNNING"]
    assert study.spec["budget"]["trials"] is None, "nothing but the time ended it"


@pytest.mark.slow
def test_a_search_of_30_seconds_ends_then_with_a_verified_bundle(tmp_path):
    kept_its_deadline(tmp_path, "--executor", "inline")


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_of_30_seconds_on_ray_ends_then_with_a_verified_bundle(tmp_path):
    kept_its_deadline(tmp_path, "--workers", "1")


def long_texts(file, rows=6000, words=250):
    """Write rows that are so long that a step takes long."""
    rng = random.Random(3)
    known = [f"word{each}" for each in range(500)]
    lines = [f"{' '.join(rng.choices(known, k=words))},{('up', 'down')[at % 2]}" for at in range(rows)]
    file.write_text("\n".join(["text,label", *lines]) + "\n")


@pytest.mark.slow
def test_where_not_even_one_evaluation_fits_it_says_how_long_a_trial_takes_and_leaves_no_bundle(tmp_path):
    long_texts(tmp_path / "long.csv")
    (tmp_path / "heavy.toml").write_text(HEAVY)
    args = ["--task", "text_classification", "--data", "long.csv", "--space", "heavy.toml", "--executor", "inline"]
    done = command("search", *args, "--time-budget", "30s", "--study", "short", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("Nothing was learned in "), said
    assert "no trial reached its first evaluation; a whole trial takes about " in said
    assert said.endswith("Go on with more time: deepmine-auto resume short --time-budget 11m"), (
        "ten minutes more than it took"
    )
    assert not list((tmp_path / "deepmine-auto" / "short").glob("*bundle*"))
    store = Store(place_of(str(tmp_path / "deepmine-auto" / "studies.db")).open_reader())
    (trial,) = store.trials(store.study("short").id)
    assert (trial.state.name, trial.user_attrs["cause"]) == ("PRUNED", "deadline")


# -- exactly N ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, pruner=KeepAll())


def interrupted(training, *moments):
    """A training of which Ctrl-C is pressed before the messages with these numbers, counted over all trials."""
    messages = count()

    def of(assignment, host):
        for message in training(assignment, host):
            if next(messages) in moments:
                raise KeyboardInterrupt
            yield message

    return of


@pytest.mark.parametrize("cause", ["budget", "memory", "diverged", "plugin"])
@pytest.mark.parametrize("moments", [(0, 1, 2), (3, 9, 14), (4, 5, 20)])
def test_so_many_trials_are_there_as_were_asked_for_after_three_interrupts(desk, cause, moments):
    study = desk.begin()
    first, others = ending(cause, after=1), quick

    def mixed(assignment, host):
        return (first if assignment.number % 2 else others)(assignment, host)

    training, interrupts = interrupted(mixed, *moments), 0
    while True:
        try:
            agenda = desk.work(study, Budget(trials=7), training)
            break
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts == 3
    states = [each.state.name for each in desk.trials(study)]
    assert len(states) == 7
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}
    assert not agenda.ledger.unfinished()


# -- the first that is reached -----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the test says."""
    now = [0.0]
    monkeypatch.setattr(ledger_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def timed(clock, seconds):
    """A training of four reports that takes so many seconds."""

    def messages(assignment, host):
        *reports, end = quick(assignment, host)
        for each in reports:
            clock[0] += seconds / len(reports)
            yield each
        yield end

    return messages


def agenda_on_gpus(desk, study, budget, gpus):
    """The agenda of a new driver that holds so many GPUs."""
    desk.free()
    plugins = desk.sampler, desk.pruner
    ledger = Ledger(desk.store, study, desk.fence, plugins, lambda *_: None, gpus=gpus)
    return Agenda(ledger, budget, 1, lambda: CLOSING)


def work_on_gpus(desk, study, budget, training, gpus):
    """Run a study to its end with a driver that holds so many GPUs."""
    agenda = agenda_on_gpus(desk, study, budget, gpus)
    with training_is(training):
        inline.run(agenda, None, lambda: None)
    return agenda


@pytest.mark.parametrize(
    ("seconds", "gpu_hours", "left"),
    [(1000.0, 1.0, 900.0), (2000.0, 1.0, 1700.0), (2000.0, None, 1900.0), (None, 1.0, 1700.0), (None, None, None)],
    ids=["the time", "the GPU hours", "time alone", "GPU hours alone", "neither"],
)
def test_the_time_that_is_left_is_that_of_the_budget_that_is_used_up_first(desk, clock, seconds, gpu_hours, left):
    agenda = agenda_on_gpus(desk, desk.begin(), Budget(9, seconds, gpu_hours), gpus=2.0)
    clock[0] = 100.0
    assert agenda.seconds_left() == (None if left is None else pytest.approx(left))


def test_the_trials_end_the_search_where_they_are_reached_before_the_time(desk, clock):
    agenda = work_on_gpus(desk, desk.begin(), Budget(3, 1000.0, 10.0), timed(clock, 9.0), gpus=2.0)
    assert len(agenda.ledger.trials) == 3
    assert len(agenda.ledger.reruns) == 9


def test_the_time_ends_the_search_where_it_is_reached_before_the_trials(desk, clock):
    agenda = work_on_gpus(desk, desk.begin(), Budget(100, 100.0, 10.0), timed(clock, 9.0), gpus=2.0)
    assert 3 <= len(agenda.ledger.trials) < 100 / 9
    assert 100.0 - CLOSING - 9.0 <= clock[0] <= 100.0 - CLOSING


def test_the_gpu_hours_end_the_search_counted_over_all_gpus_that_are_held(desk, clock):
    agenda = work_on_gpus(desk, desk.begin(), Budget(100, 1000.0, 0.1), timed(clock, 9.0), gpus=2.0)
    assert 180.0 - CLOSING - 9.0 <= clock[0] <= 180.0 - CLOSING
    assert agenda.ledger.gpu_hours == pytest.approx(clock[0] * 2 / 3600)
    assert agenda.ledger.reruns, "the finals are paid from them too"


def test_gpu_hours_of_an_earlier_driver_count_by_the_gpus_that_it_held(desk, clock):
    study = desk.begin()
    training = interrupted(timed(clock, 9.0), 40)
    with pytest.raises(KeyboardInterrupt):
        work_on_gpus(desk, study, Budget(gpu_hours=0.1), training, gpus=2.0)
    (before,) = [row["spent"] for row in desk.store.sessions(study.id)]
    assert 60.0 < before < 90.0
    begun = clock[0]
    agenda = work_on_gpus(desk, study, Budget(gpu_hours=0.1), timed(clock, 9.0), gpus=1.0)
    left = 360.0 - 2 * before
    assert left - CLOSING - 9.0 <= clock[0] - begun <= left - CLOSING
    assert agenda.ledger.gpu_hours <= 0.1


def test_a_driver_without_gpus_uses_no_gpu_hours(desk, clock):
    agenda = work_on_gpus(desk, desk.begin(), Budget(5, None, 1e-6), timed(clock, 9.0), gpus=0.0)
    assert len(agenda.ledger.trials) == 5
    assert agenda.ledger.gpu_hours == 0.0

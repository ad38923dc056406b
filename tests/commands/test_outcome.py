"""What is said of the finals beside the winner."""

from types import SimpleNamespace

import pytest
from fakes import Desk

from deepmine_auto.commands.outcome import _finals, to_json
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget
from deepmine_auto.terminal.looking import see


@pytest.mark.parametrize(
    ("values", "behind", "as_good", "told"),
    [
        ([0.5, 0.7], [], [28, 29], "mean 0.6000 over 2 other splits; trials 28 and 29 may be as good"),
        ([0.5, 0.6, 0.7], [7], [28], "mean 0.6000 over 3 other splits; ahead of trial 7; trial 28 may be as good"),
        ([0.5, 0.6, 0.7], [7, 28], [], "mean 0.6000 over 3 other splits; ahead of trials 7 and 28"),
        ([0.5], [], [], "mean 0.5000 over 1 other split; no other trial was trained again"),
    ],
)
def test_the_finals_say_who_may_be_as_good(values, behind, as_good, told):
    row = SimpleNamespace(varied="split")
    assert _finals(SimpleNamespace(behind=behind, as_good=as_good, row=row), values) == [("finals", told)]


def test_where_validation_rows_were_given_the_finals_are_over_seeds(tmp_path):
    study = Desk(tmp_path).begin("mine")
    study.spec["validation_given"] = True
    ((_, told),) = _finals(SimpleNamespace(behind=[7], as_good=[], row=study), [0.5, 0.7])
    assert told == "mean 0.6000 over 2 other seeds; ahead of trial 7"


def test_without_a_rerun_there_were_no_finals():
    assert _finals(SimpleNamespace(behind=[], as_good=[]), []) == []


def test_who_is_behind_and_who_may_be_as_good_is_read_from_the_reruns(tmp_path):
    """What failed was not compared, and an unfinished study has no winner."""
    desk = Desk(tmp_path)
    study = desk.begin("mine")
    desk.work(study, Budget(trials=5))
    values = {10: (0.9, 0.91, 0.92), 11: (0.8, 0.81, 0.83), 12: (0.95, 0.8, 0.9), 13: (None, None, None)}
    rows = [(trial, repeat, value) for trial, each in values.items() for repeat, value in enumerate(each)]
    for number, (trial, repeat, value) in enumerate(rows, 100):
        state = "FAIL" if value is None else "COMPLETE"
        row = {"number": number, "trial": trial, "repeat": repeat, "state": state, "value": value}
        desk.store.add(tables.reruns, study.id, row)
    assert to_json(see(desk.place), desk.place)["as_good"] == []
    desk.store.set_result(study.id, {"winner": 10})
    seen = see(desk.place)
    assert [{*each} & {*values} for each in (seen.as_good, seen.behind)] == [{12}, {11}]
    assert to_json(seen, desk.place)["as_good"] == seen.as_good

"""What is noted of a proposal, and what is held against a trial."""

import pytest
from fakes import Desk
from optuna.trial import TrialState, create_trial

from deepmine_auto.study.causes import ENDS
from deepmine_auto.study.known import Known, held_against, known_of
from deepmine_auto.study.mirror import INFEASIBLE
from deepmine_auto.study.setting_aside import as_they_are, set_aside


def trial(state, **attrs):
    values = [1.0] if state == TrialState.COMPLETE else None
    return create_trial(state=state, values=values, user_attrs=attrs, system_attrs={"constraints:latency_ms<=5": 2.0})


@pytest.mark.parametrize("cause", ENDS)
def test_limits_and_what_params_caused_are_held_against_an_ended_trial(cause):
    blamed = {INFEASIBLE: 1.0} if ENDS[cause].infeasible else {}
    assert held_against(trial(ENDS[cause].state, cause=cause)) == {"latency_ms<=5": 2.0, **blamed}


def test_nothing_is_held_against_a_trial_whose_end_was_told_by_half(tmp_path):
    """A driver that was killed before it wrote the state may have written the cause: the trial runs on."""
    assert held_against(trial(TrialState.RUNNING, cause="diverged")) == {}


def test_a_plugin_is_not_set_aside_for_ends_that_were_told_by_half():
    raised = trial(TrialState.FAIL, cause="plugin", plugin="attention/x")
    half_told = trial(TrialState.RUNNING, cause="plugin", plugin="attention/x")
    assert set_aside([raised] * 3) == {"attention/x"}
    assert set_aside([raised, raised, half_told]) == set()


def test_raises_of_a_plugin_before_it_was_mended_do_not_set_it_aside():
    def row(since):
        return {"kind": "attention", "name": "x", "since": since}

    raised = [trial(TrialState.FAIL, cause="plugin", plugin="attention/x") for _ in range(6)]
    for number, each in enumerate(raised):
        each.number = number
    assert set_aside(raised, as_they_are([row(0)], 6)) == {"attention/x"}
    assert set_aside(raised, as_they_are([row(4), row(0)], 6)) == set()
    assert set_aside(raised, as_they_are([row(3), row(0)], 6)) == {"attention/x"}, "it is no better"
    assert set_aside(raised, as_they_are([row(4), row(0)], 3)) == {"attention/x"}, "before that it was"


def test_what_a_killed_driver_told_of_an_end_that_came_otherwise_is_not_counted():
    complete = trial(TrialState.COMPLETE, cause="budget", plugin="attention/x")
    assert set_aside([complete] * 3) == set()


def test_every_row_says_what_it_was_proposed_from(tmp_path):
    desk = Desk(tmp_path)
    agenda = desk.agenda(desk.begin(), slots=3)
    for _ in range(3):
        agenda.next()
    noted = [known_of(each.system_attrs) for each in desk.trials(agenda.ledger.study)]
    assert noted == [Known(0, ()), Known(0, (0,)), Known(0, (0, 1))]


def test_rows_of_the_first_schema_do_not_say_it():
    assert known_of({}) is None

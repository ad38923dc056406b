"""The ledger with the inline executor and a training that costs nothing."""

import math
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain, repeat

import optuna
import pytest
from fakes import SPACE, STEPS, Desk, ending, quick, told, training_is, value_at

from deepmine_auto.errors import DeepmineError, NothingLearned
from deepmine_auto.executors import inline
from deepmine_auto.messages import Ended, Reported
from deepmine_auto.space import Choice, Float, Int, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.storage.store import Conflict
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.causes import ENDS
from deepmine_auto.study.finals import winner
from deepmine_auto.study.giving_up import AllFailed
from deepmine_auto.study.history import GIVEN_UP, SEARCH_ENDED
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.study.setting_aside import SET_ASIDE_AFTER, bar
from deepmine_plugins.pruners.none import KeepAll
from deepmine_plugins.samplers.random import Random
from deepmine_plugins.samplers.tpe import Tpe


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, pruner=KeepAll())


def rows(desk, table, study):
    return desk.store.rows(table, study.id)


def asked(desk, study, reports=0):
    """A ledger with one trial that has reported so often, and its assignment."""
    ledger = desk.ledger(study)
    assignment = ledger.ask()
    for message in list(quick(assignment, None))[:reports]:
        ledger.report(assignment, message, out_of_time=False)
    return ledger, assignment


# -- ends --------------------------------------------------------------------------------------------------------------

STATES = {
    "budget": "COMPLETE",
    "patience": "COMPLETE",
    "pruned": "PRUNED",
    "deadline": "PRUNED",
    "diverged": "PRUNED",
    "limit": "PRUNED",
    "lost": "FAIL",
    "cancelled": "FAIL",
    "memory": "FAIL",
    "plugin": "FAIL",
    "error": "FAIL",
}


@pytest.mark.parametrize("cause", ENDS)
def test_every_cause_has_its_state_its_reason_and_its_value(desk, cause):
    study = desk.begin()
    ledger, assignment = asked(desk, study, reports=3)
    ledger.end(
        assignment.key,
        Ended(cause, 0.5, 3, "best", reason="why\nbecause", plugin="attention/x" if cause == "plugin" else None),
    )
    (row,) = desk.trials(study)
    assert row.state.name == STATES[cause]
    assert row.user_attrs["cause"] == cause
    assert row.user_attrs["reason"] == "why\nbecause"
    assert row.user_attrs.get("plugin") == ("attention/x" if cause == "plugin" else None)
    last = value_at(assignment, STEPS[2])
    assert row.value == {"COMPLETE": 0.5, "PRUNED": last, "FAIL": None}[STATES[cause]]
    assert set(row.intermediate_values) == set(STEPS[:3]), "the whole curve, last point included"


def test_every_cause_that_a_worker_may_name_has_an_end():
    from typing import get_args

    from deepmine_auto.messages import Cause

    assert set(ENDS) == set(get_args(Cause)) == set(STATES)


@pytest.mark.parametrize("cause", ["diverged", "memory", "plugin", "lost"])
def test_what_params_caused_is_infeasible_in_the_mirror_and_not_in_the_study(desk, cause):
    study = desk.begin()
    ledger, assignment = asked(desk, study)
    ledger.end(assignment.key, Ended(cause))
    for mirror in (ledger.mirror, desk.ledger(study).mirror):
        (seen,) = mirror.study.get_trials()
        assert seen.state.name == "PRUNED"
        assert max(seen.constraints.values()) > 0
    assert not desk.trials(study)[0].constraints


def test_an_unexplained_failure_is_no_evidence_against_its_params(desk):
    study = desk.begin()
    ledger, assignment = asked(desk, study)
    ledger.end(assignment.key, Ended("error"))
    (seen,) = ledger.mirror.study.get_trials()
    assert seen.state.name == "FAIL"
    assert not seen.constraints


def test_an_end_told_twice_changes_nothing(desk):
    study = desk.begin()
    ledger, assignment = asked(desk, study, reports=1)
    ledger.end(assignment.key, Ended("budget", 0.5, 1, "a"))
    before = told(desk.trials(study))
    ledger.end(assignment.key, Ended("error", reason="late"))
    with pytest.raises(Conflict, match=r"Trial 0 should have ended as FAIL None, and stands as COMPLETE \[0.5\]"):
        ledger.store.finish_trial(ledger.trials[0]._trial_id, "FAIL", None, {}, {})
    assert told(desk.trials(study)) == before


def test_the_end_of_a_rerun_told_twice_changes_nothing(desk):
    study = desk.begin()
    agenda = desk.work(study, Budget(trials=1))
    before = rows(desk, tables.reruns, study)
    again = agenda.ledger.assigning.rerun(0, "lost")
    agenda.ledger.end(again.key, Ended("error", reason="late"))
    assert rows(desk, tables.reruns, study) == before
    assert [row["state"] for row in before] == ["COMPLETE"] * 3


def test_a_message_after_the_end_is_an_event_and_no_row(desk):
    study = desk.begin()
    agenda = desk.agenda(study)
    assignment = agenda.next()
    *reports, end = quick(assignment, None)
    assert agenda.heard(assignment.key, reports[0])
    assert not agenda.heard(assignment.key, end)
    before = told(desk.trials(study)), rows(desk, tables.reports, study)
    assert not agenda.heard(assignment.key, reports[1])
    assert not agenda.heard(assignment.key, Ended("error"))
    assert (told(desk.trials(study)), rows(desk, tables.reports, study)) == before
    assert [row["kind"] for row in rows(desk, tables.events, study)] == ["late", "late"]


# -- reports and verdicts ----------------------------------------------------------------------------------------------


def test_reports_of_trials_and_reruns_have_one_order(desk):
    study = desk.begin()
    desk.work(study, Budget(trials=3))
    found = rows(desk, tables.reports, study)
    assert [row["seq"] for row in found] == list(range(1, len(found) + 1))
    assert Counter(row["kind"] for row in found) == {"trial": 3 * 4, "rerun": 9 * 4}


def test_a_step_that_comes_twice_is_judged_and_shown_once(desk):
    study = desk.begin()
    ledger, assignment = asked(desk, study, reports=2)
    seen = list(ledger.history.reports)
    assert ledger.report(assignment, list(quick(assignment, None))[1], out_of_time=False)
    assert ledger.history.reports == seen
    assert [row["seq"] for row in rows(desk, tables.reports, study)] == [1, 2, 3]
    assert desk.ledger(study).history.reports == seen, "a restart sees it the same way"


@dataclass(frozen=True)
class StopAtOnce(KeepAll):
    def keep(self, reports, trial, share):
        return super().keep(reports, trial, share)._replace(keep=False, value=1.0, rung=7)


def test_a_verdict_is_written_before_the_trial_is_stopped(desk, monkeypatch):
    desk.pruner = StopAtOnce()
    study = desk.begin()
    ledger, assignment = asked(desk, study)
    written = []

    def finish(self, number, message):
        written.extend(rows(desk, tables.verdicts, study))
        assert desk.trials(study)[number].state.name == "RUNNING"

    monkeypatch.setattr(Ledger, "_finish", finish)
    assert not ledger.report(assignment, next(quick(assignment, None)), out_of_time=False)
    (row,) = written
    assert (row["number"], row["keep"], row["rung"], row["cause"]) == (0, False, 7, "pruned")


def test_at_the_deadline_a_trial_is_stopped_with_its_best_checkpoint(desk):
    study = desk.begin()
    ledger, assignment = asked(desk, study, reports=2)
    assert not ledger.report(assignment, list(quick(assignment, None))[2], out_of_time=True)
    (row,) = desk.trials(study)
    assert (row.state.name, row.user_attrs["cause"]) == ("PRUNED", "deadline")
    assert row.user_attrs["checkpoint"].endswith("step-0000006")
    assert rows(desk, tables.verdicts, study)[-1]["cause"] == "deadline"


# -- what params and plugins cause -------------------------------------------------------------------------------------


SOUND = ending("budget", after=1)


def by_params(test, broken, sound=SOUND):
    """A training that is broken where the params pass a test, and short elsewhere."""
    return lambda assignment, host: (broken if test(assignment.params) else sound)(assignment, host)


def is_bad(params):
    return params["attention/kind"] == "bad"


def test_an_always_raising_attention_of_two_gets_at_most_10_of_60_trials(desk):
    broken = by_params(is_bad, ending("plugin", after=0, plugin="attention/bad", reason="ValueError: no"))
    study = desk.begin()
    desk.work(study, Budget(trials=60), broken)
    states = Counter(each.state.name for each in desk.trials(study) if is_bad(each.params))
    assert states.keys() == {"FAIL"}
    assert states.total() <= 10
    assert len(desk.trials(study)) == 60


def test_what_always_diverges_is_avoided_though_no_plugin_is_blamed(desk):
    """No plugin is set aside here: the sampler itself must learn it from the mirror."""
    desk.pruner = KeepAll()
    study = desk.begin()
    desk.work(study, Budget(trials=60), by_params(is_bad, ending("memory", after=0)))
    drawn = [is_bad(each.params) for each in desk.trials(study)]
    assert sum(drawn) <= 25
    assert sum(drawn[30:]) < 15  # rarer than by chance; how much rarer differs between processors, with the last bits


def test_a_plugin_is_set_aside_after_three_trials(desk):
    desk.sampler = Random()
    study = desk.begin()
    desk.work(
        study, Budget(trials=14), by_params(is_bad, ending("plugin", after=0, plugin="attention/bad", reason="no"))
    )
    assert sum(is_bad(each.params) for each in desk.trials(study)) == SET_ASIDE_AFTER
    (event,) = [row for row in rows(desk, tables.events, study) if row["kind"] == "set aside"]
    assert event["text"] == "attention/bad raised in 3 trials and is set aside for this study"
    assert all("attention/good/width" in each.params for each in desk.trials(study) if not is_bad(each.params)), (
        "what came in its place has its own params"
    )


def test_a_plugin_that_was_set_aside_is_proposed_again_once_it_is_mended(desk):
    desk.sampler = Random()
    study, broken = desk.begin(), by_params(is_bad, ending("plugin", after=0, plugin="attention/bad", reason="no"))
    until_killed(desk.agenda(study, Budget(trials=50)), broken, 14)
    assert sum(is_bad(each.params) for each in desk.trials(study)) == SET_ASIDE_AFTER
    mended = {"kind": "attention", "name": "bad", "since": 14, "distribution": "theirs", "version": "2", "hash": "new"}
    desk.store.put(tables.plugins, study.id, mended)
    until_killed(desk.agenda(study, Budget(trials=50)), quick, 14)
    assert any(is_bad(each.params) for each in desk.trials(study)[14:])


@pytest.mark.parametrize(
    ("plugin", "test"),
    [
        ("technique/ema", lambda params: params["technique/ema/use"]),
        ("backbone/other", lambda params: params["model/kind"] == "other"),
    ],
)
def test_techniques_and_backbones_are_set_aside_too(desk, plugin, test):
    desk.sampler = Random()
    study = desk.begin()
    desk.work(study, Budget(trials=12), by_params(test, ending("plugin", after=0, plugin=plugin, reason="no")))
    assert sum(bool(test(each.params)) for each in desk.trials(study)) == SET_ASIDE_AFTER
    assert len(desk.trials(study)) == 12


def test_where_a_space_has_hybrids_alone_nothing_stands_in_their_place():
    params = (Param("placement/kind", Choice("hybrid"), {}), Param("placement/hybrid/kind", Choice("bad"), {}))
    assert bar({"attention/bad"}, Space(params, {}), 0, 0)("placement/kind", "hybrid") is None


def test_a_variant_that_alone_could_stand_between_layers_of_another_leaves_the_search_without_hybrids(desk):
    desk.sampler = Random()
    hybrid = {"placement/kind": ("hybrid",)}
    params = (Param("attention/kind", Choice("good", "fair", "bad"), {}),
              Param("placement/kind", Choice("same", "hybrid"), {}),
              Param("placement/hybrid/kind", Choice("bad"), hybrid),
              Param("placement/hybrid/ratio", Int(1, 5), hybrid),
              Param("optimizer/adamw/lr", Float(1e-4, 1e-2), {}))  # fmt: skip
    study = desk.begin(space=Space(params, {**SPACE.fixed, "optimizer/kind": "adamw", "model/kind": "encoder"}))

    def uses_bad(params):
        return params["attention/kind"] == "bad" or params["placement/kind"] == "hybrid"

    desk.work(study, Budget(trials=30), by_params(uses_bad, ending("plugin", after=0, plugin="attention/bad")))
    assert sum(uses_bad(each.params) for each in desk.trials(study)) == SET_ASIDE_AFTER
    assert len(desk.trials(study)) == 30


@pytest.mark.parametrize("plugin", ["task/t", "optimizer/adamw"])
def test_a_plugin_that_nothing_can_replace_ends_the_search_with_a_sentence(desk, plugin):
    study = desk.begin()
    with pytest.raises(DeepmineError, match=r"raised in 3 trials, and this space has nothing in its place\. See `deep"):
        desk.work(study, Budget(trials=50), ending("plugin", plugin=plugin, reason="no"))
    assert len(desk.trials(study)) == SET_ASIDE_AFTER


def raising_after_the_first(plugin):
    """A training of which trial 0 ends well, and every later one by a plugin that raises."""

    def messages(assignment, host):
        sound = assignment.kind == "rerun" or assignment.number == 0
        yield from (quick if sound else ending("plugin", after=0, plugin=plugin, reason="no"))(assignment, host)

    return messages


@pytest.mark.parametrize(("plugin", "told"), [("task/t", "The task 't'"), ("optimizer/adamw", "The optimizer 'adamw'")])
def test_where_something_may_win_the_finals_follow_a_plugin_that_nothing_can_replace(desk, plugin, told):
    study = desk.begin()
    desk.work(study, Budget(trials=50), raising_after_the_first(plugin))
    assert len(desk.trials(study)) == 1 + SET_ASIDE_AFTER
    assert [(row["trial"], row["state"]) for row in rows(desk, tables.reruns, study)] == [(0, "COMPLETE")] * 3
    (event,) = [row for row in rows(desk, tables.events, study) if row["kind"] == "search ended"]
    assert event["text"] == f"{told} raised in 3 trials, and this space has nothing in its place. The finals follow."


def test_a_restart_comes_to_these_finals_too(desk):
    study, training = desk.begin(), raising_after_the_first("task/t")
    agenda = desk.agenda(study, Budget(trials=50))
    agenda._reruns_left = list
    with training_is(training):
        inline.run(agenda, None, lambda: None)
    assert not rows(desk, tables.reruns, study)
    desk.work(study, Budget(trials=50), training)
    assert len(desk.trials(study)) == 1 + SET_ASIDE_AFTER
    assert [row["state"] for row in rows(desk, tables.reruns, study)] == ["COMPLETE"] * 3


@pytest.mark.parametrize("cause", ["budget", "memory"])
def test_what_runs_is_waited_for_before_a_study_is_given_up(desk, cause):
    agenda = desk.agenda(desk.begin(), Budget(trials=50), slots=2)
    first = agenda.next()
    for _ in range(SET_ASIDE_AFTER):
        agenda.heard(agenda.next().key, Ended("plugin", plugin="task/t", reason="no"))
    assert agenda.next() is None
    assert not agenda.done
    for message in ending(cause)(first, None):
        agenda.heard(first.key, message)
    if cause == "budget":
        assert agenda.next().kind == "rerun"
        return
    with pytest.raises(DeepmineError, match=r"raised in 3 trials, and this space has nothing in its place\."):
        agenda.next()


def test_five_unexplained_failures_in_a_row_end_the_search(desk):
    study = desk.begin()
    with pytest.raises(
        DeepmineError, match=r"The last trials all failed: OSError: gone\. See `deepmine-auto trials study`"
    ):
        desk.work(study, Budget(trials=50), ending("error", reason="Traceback\nOSError: gone"))
    assert len(desk.trials(study)) == 5


def test_after_five_unexplained_failures_what_was_good_before_comes_to_the_finals(desk):
    causes, study = chain(["budget"], repeat("error")), desk.begin()

    def training(assignment, host):
        cause = next(causes) if assignment.kind == "trial" else "budget"
        return ending(cause, reason="OSError: gone")(assignment, host)

    desk.work(study, Budget(trials=50), training)
    assert len(desk.trials(study)) == 6
    assert [row["state"] for row in rows(desk, tables.reruns, study)] == ["COMPLETE"] * 3
    (event,) = [row for row in rows(desk, tables.events, study) if row["kind"] == "search ended"]
    assert event["text"] == "The last trials all failed: OSError: gone. The finals follow."


def failing_after(sound):
    """A training of which so many trials end well, and every later one fails for no known reason."""

    def messages(assignment, host):
        well = assignment.kind == "rerun" or assignment.number < sound
        yield from (quick if well else ending("error", after=0, reason="OSError: gone"))(assignment, host)

    return messages


def until_killed(agenda, training, trials):
    """Let a driver end so many trials and be gone."""
    for _ in range(trials):
        assignment = agenda.next()
        for message in training(assignment, None):
            agenda.heard(assignment.key, message)


def ends_of_search(desk, study):
    return [row["kind"] for row in rows(desk, tables.events, study) if row["kind"] in (SEARCH_ENDED, GIVEN_UP)]


@pytest.mark.parametrize("told", [False, True])
def test_a_restart_after_five_unexplained_failures_begins_no_trial_before_the_finals(desk, told):
    """Whether the driver was killed before it said that the search has ended, or after."""
    study, training = desk.begin(), failing_after(1)
    agenda = desk.agenda(study, Budget(trials=50))
    until_killed(agenda, training, 6)
    if told:
        agenda._reruns_left = list
        assert agenda.next() is None
    assert ends_of_search(desk, study) == [SEARCH_ENDED] * told
    desk.work(study, Budget(trials=50), training)
    assert len(desk.trials(study)) == 6
    assert [row["state"] for row in rows(desk, tables.reruns, study)] == ["COMPLETE"] * 3
    assert ends_of_search(desk, study) == [SEARCH_ENDED]


def test_a_search_that_has_ended_stays_so_though_what_ran_then_ends_well_after_a_restart(desk):
    study, training = desk.begin(), failing_after(1)
    agenda = desk.agenda(study, Budget(trials=50), slots=2)
    until_killed(agenda, training, 1)
    begun = [agenda.next()]
    for _ in range(5):
        begun.append(agenda.next())
        for message in training(begun[-2], None):
            agenda.heard(begun[-2].key, message)
    assert agenda.next() is None
    desk.work(study, Budget(trials=50), quick)
    assert Counter(each.state.name for each in desk.trials(study)) == {"COMPLETE": 2, "FAIL": 5}
    assert len(rows(desk, tables.reruns, study)) == 6
    assert ends_of_search(desk, study) == [SEARCH_ENDED]


def test_whoever_goes_on_after_a_study_was_given_up_has_seen_to_it(desk):
    """A driver that is killed before it says so is none that has given up."""
    study, training = desk.begin(), failing_after(0)
    until_killed(desk.agenda(study, Budget(trials=50)), training, 5)
    for failed in (5, 6):
        with pytest.raises(AllFailed, match=r"The last trials all failed: OSError: gone\."):
            desk.work(study, Budget(trials=50), training)
        assert len(desk.trials(study)) == failed
    assert ends_of_search(desk, study) == [GIVEN_UP] * 2
    desk.work(study, Budget(trials=8))
    assert [each.state.name for each in desk.trials(study)] == ["FAIL"] * 6 + ["COMPLETE"] * 2


@pytest.mark.parametrize(("first", "trials"), [("plugin", 5), ("budget", 14)])
def test_a_search_of_which_all_trials_ask_for_what_cannot_be_is_given_up(desk, first, trials):
    """Where some do not, it goes on: the sampler learns to leave the others."""
    study, causes = desk.begin(), chain([first], repeat("plugin"))
    given_up = pytest.raises(AllFailed, match=r"The last trials all failed: no such attention\.")
    with given_up if first == "plugin" else nullcontext():
        desk.work(study, Budget(trials=14), lambda *each: ending(next(causes), reason="no such attention.")(*each))
    assert len(desk.trials(study)) == trials


def test_a_space_that_is_used_up_ends_the_search(desk):
    params = (Param("attention/kind", Choice("good", "bad"), {}), Param("attention/good/width", Int(1, 5, step=2),
              {"attention/kind": ("good",)}), Param("model/kind", Choice("encoder"), {}))  # fmt: skip
    fixed = {"training/epochs": 3, "optimizer/kind": "adamw", "optimizer/adamw/lr": 1e-3, "technique/ema/use": False}
    study = desk.begin(space=Space(params, fixed))
    desk.work(study, Budget(trials=50))
    assert len({tuple(sorted(each.params.items())) for each in desk.trials(study)}) == len(desk.trials(study)) == 4
    assert len(rows(desk, tables.reruns, study)) == 9
    (ended,) = [row for row in rows(desk, tables.events, study) if row["kind"] == SEARCH_ENDED]
    assert ended["text"] == "All that this search space can say was tried. The finals follow."


def test_a_space_of_which_the_rest_is_set_aside_is_used_up(desk):
    params = (Param("attention/kind", Choice("good", "bad"), {}),
              Param("attention/bad/width", Choice(1, 2, 3, 4), {"attention/kind": ("bad",)}),
              Param("technique/ema/decay", Float(0.9, 1.0), {"technique/ema/use": (True,)}))  # fmt: skip
    fixed = {"training/epochs": 3, "optimizer/kind": "adamw", "technique/ema/use": False, "model/kind": "encoder"}
    study, training = desk.begin(space=Space(params, fixed)), quick

    def raising(assignment, host):
        bad = assignment.params["attention/kind"] == "bad"
        return (ending("plugin", plugin="attention/bad") if bad else training)(assignment, host)

    desk.work(study, Budget(trials=50), raising)
    found = [each.params.get("attention/bad/width") for each in desk.trials(study)]
    assert sorted(found, key=str) == sorted({*found}, key=str), "none twice"
    assert len(found) == SET_ASIDE_AFTER + 1


def test_what_runs_may_still_win_when_the_last_trials_all_failed(desk):
    agenda, training = desk.agenda(desk.begin(), Budget(trials=50), slots=2), failing_after(0)
    first = agenda.next()
    until_killed(agenda, training, 5)
    assert agenda.next() is None
    for message in quick(first, None):
        agenda.heard(first.key, message)
    assert agenda.next().key == ("rerun", 0)


def test_failures_that_are_explained_or_apart_do_not_end_the_search(desk):
    causes = chain(["error"] * 4, ["memory"], ["error"] * 4, ["diverged"], repeat("budget"))
    study = desk.begin()
    desk.work(study, Budget(trials=14), lambda *each: ending(next(causes), reason="x")(*each))
    assert len(desk.trials(study)) == 14


# -- limits ------------------------------------------------------------------------------------------------------------


def limited(desk, *limits):
    """A study with limits."""
    study = desk.begin()
    desk.store.reopen(study.id, {**study.spec, "limits": limits})
    return desk.store.study(study.name)


def lifted(reports, end, by, **metrics):
    """A training that is worth more by so much, and measures more."""
    for each in reports:
        yield replace(each, value=each.value + by, metrics={"f": each.value + by, **metrics})
    yield replace(end, value=end.value + by)


def won(agenda):
    return winner(agenda.finalists(), agenda.ledger.reruns.values(), agenda.best_values(), "maximize")


def test_reruns_over_a_limit_do_not_count_however_good_they_are(desk):
    """Of two finalists every other rerun is of the first, which keeps the limit in its trial alone."""

    def messages(assignment, host):
        over = assignment.kind == "rerun" and assignment.number % 2 == 0
        *reports, end = quick(assignment, host)
        yield from lifted(reports, end, by=float(over), g=1.0 - over)

    study = limited(desk, ("g", -1, 0.5))
    agenda = desk.work(study, Budget(trials=2), messages)
    found = rows(desk, tables.reruns, study)
    assert [(row["state"], row["value"] is None) for row in found] == [("FAIL", True), ("COMPLETE", False)] * 3
    assert [row["reason"] for row in found[::2]] == ["0.0 is over the limit g>=0.5"] * 3
    assert (won(agenda).trial, won(agenda).rerun % 2) == (agenda.finalists()[1], 1)
    told = [row["text"] for row in rows(desk, tables.events, study) if row["kind"] == "limit"]
    first = agenda.finalists()[0]
    assert told == [f"rerun {each} of trial {first} does not count: 0.0 is over the limit g>=0.5" for each in (1, 2, 3)]


def test_a_rerun_that_costs_too_much_ends_at_its_first_report(desk):
    def messages(assignment, host):
        *reports, end = quick(assignment, host)
        yield from lifted(reports, end, by=0.0, latency_ms=9.0 if assignment.kind == "rerun" else 1.0)

    study = limited(desk, ("latency_ms", 1, 5.0))
    agenda = desk.work(study, Budget(trials=1), messages)
    assert Counter(row["kind"] for row in rows(desk, tables.reports, study)) == {"trial": 4, "rerun": 3}
    assert {row["reason"] for row in rows(desk, tables.reruns, study)} == {"9.0 is over the limit latency_ms<=5"}
    assert won(agenda)[:2] == (0, None), "its own weights keep the limit"


def test_a_rerun_that_the_deadline_cuts_off_over_a_limit_does_not_count_either(desk):
    study = limited(desk, ("f", -1, 9.0))
    ledger, trial = asked(desk, study, reports=4)
    ledger.end(trial.key, Ended("budget", 0.5, 9, "x"))
    rerun = ledger.add_rerun(0, 0)
    assert not ledger.report(rerun, next(quick(rerun, None)), out_of_time=True)
    (row,) = rows(desk, tables.reruns, study)
    assert row["state"] == "FAIL"
    assert row["reason"].endswith("is over the limit f>=9")


def test_a_rerun_that_fails_is_told_with_its_reason(desk):
    def messages(assignment, host):
        failing = ending("error", after=0, reason="Traceback\nOSError: gone")
        yield from (failing if assignment.kind == "rerun" else quick)(assignment, host)

    desk.work(desk.begin(), Budget(trials=1), messages)
    told = [text for kind, text, _ in desk.events if kind == "failed"]
    assert told == [f"rerun {each} of trial 0 failed: OSError: gone" for each in (1, 2, 3)]


def test_only_what_may_win_is_noted_as_a_new_best(desk):
    def messages(assignment, host):
        failing = assignment.key == ("trial", 0)
        *reports, end = quick(assignment, host)
        yield from lifted(reports, replace(end, cause="error" if failing else "budget"), by=float(failing))

    study = desk.begin()
    desk.work(study, Budget(trials=2), messages)
    attrs = desk.store.storage.get_study_system_attrs(study.id)
    noted = [bool(attrs.get(f"dashboard:{each._trial_id}:note_str:0")) for each in desk.trials(study)]
    assert noted == [False, True]


# -- asking ------------------------------------------------------------------------------------------------------------


def test_recipes_are_the_first_trials(desk):
    recipes = (
        {"attention/kind": "bad", "optimizer/adamw/lr": 0.01},
        {"attention/kind": "good", "attention/good/width": 4},
    )
    study = desk.begin(space=Space(SPACE.params, SPACE.fixed, recipes))
    desk.work(study, Budget(trials=4))
    for row, recipe in zip(desk.trials(study), recipes, strict=False):
        assert recipe.items() <= row.params.items()
        assert "fixed_params" not in row.system_attrs


def test_a_recipe_is_tried_once_however_often_the_study_is_resumed(desk):
    recipe = {"attention/kind": "bad", "model/kind": "other", "optimizer/adamw/lr": 0.0123}
    study = desk.begin(space=Space(SPACE.params, SPACE.fixed, (recipe,)))
    for trials in (1, 2, 3):
        agenda = desk.agenda(study, Budget(trials=trials))
        agenda._reruns_left = list
        with training_is(quick):
            inline.run(agenda, None, lambda: None)
    assert [each.params["optimizer/adamw/lr"] == 0.0123 for each in desk.trials(study)] == [True, False, False]


class Raising(optuna.samplers.RandomSampler):
    def __init__(self, seed, at):
        super().__init__(seed)
        self.at = at

    def infer_relative_search_space(self, study, trial):
        return self._raise("relative", {})

    def sample_independent(self, study, trial, name, distribution):
        return self._raise("independent", super().sample_independent(study, trial, name, distribution))

    def _raise(self, at, value):
        if self.at == at:
            raise RuntimeError("no idea")
        return value


@dataclass(frozen=True)
class BrokenSampler(Random):
    at: str = "build"

    def build(self, seed):
        if self.at == "build":
            raise RuntimeError("no idea")
        return Raising(seed, self.at)


@pytest.mark.parametrize("at", ["build", "relative", "independent"])
def test_where_a_sampler_raises_the_trial_is_drawn_at_random_and_says_so(desk, at):
    recipe = {"optimizer/adamw/lr": 0.0123}
    desk.sampler = BrokenSampler(at=at)
    study = desk.begin(space=Space(SPACE.params, SPACE.fixed, (recipe,)))
    agenda = desk.work(study, Budget(trials=3))
    assert [each.user_attrs["sampler_error"] for each in desk.trials(study)] == ["RuntimeError: no idea"] * 3
    assert [each.state.name for each in desk.trials(study)] == ["COMPLETE"] * 3
    assert desk.trials(study)[0].params["optimizer/adamw/lr"] == 0.0123
    seen = Counter(each.state.name for each in agenda.ledger.mirror.study.get_trials())
    assert seen.keys() <= {"COMPLETE", "FAIL"}, "nothing stays RUNNING there, where it would repel the sampler"


def test_a_space_that_cannot_be_drawn_raises_instead_of_writing_an_empty_row(desk):
    study = desk.begin(space=Space((Param("attention/kind", Choice(), {}),), {}))
    with pytest.raises(ValueError, match="choices"):
        desk.agenda(study).next()
    assert not desk.trials(study)


def test_a_row_is_written_whole_before_anyone_trains(desk):
    study = desk.begin()
    assignment = desk.agenda(study).next()
    (row,) = desk.trials(study)
    assert {**row.params, **SPACE.fixed} == assignment.params
    assert row.state.name == "RUNNING"
    assert [row["attempt"] for row in rows(desk, tables.attempts, study)] == [assignment.attempt] == [1]


def test_each_trial_has_a_seed_of_its_own_that_no_resume_changes(desk):
    study = desk.begin()
    agenda = desk.agenda(study, slots=3)
    first = [agenda.next() for _ in range(3)]
    assert len({each.seed for each in first}) == 3
    again = desk.agenda(study, slots=3)
    adopted = [again.next() for _ in range(3)]
    assert [(a.number, a.seed, a.params) for a in adopted] == [(a.number, a.seed, a.params) for a in first]
    assert [each.attempt for each in adopted] == [2, 2, 2]


def test_a_minimized_study_finds_the_smallest(desk):
    study = desk.begin(direction="minimize")
    agenda = desk.work(study, Budget(trials=5))
    best = {
        number: min(row["value"] for row in agenda.ledger.history.standing["trial", number].reports)
        for number in range(5)
    }
    assert agenda.finalists() == sorted(best, key=best.get)[:3]


def test_values_that_are_no_numbers_never_reach_a_row(desk):
    """NaN would leave the row RUNNING for ever; a training that has nothing to show ends without a value."""
    study = desk.begin()
    desk.work(study, Budget(trials=1), ending("diverged", after=0))
    (row,) = desk.trials(study)
    assert (row.state.name, row.value) == ("PRUNED", None)
    assert all(math.isfinite(each) for each in row.intermediate_values.values())


def test_a_lost_worker_costs_an_attempt_and_no_trial(desk):
    study = desk.begin()
    agenda = desk.agenda(study)
    first = agenda.next()
    for message in list(quick(first, None))[:2]:
        agenda.heard(first.key, message)
    agenda.lost(first.key, "lost", "its process ended")
    agenda.lost(first.key, "lost", "told twice")
    again = agenda.next()
    assert (again.key, again.attempt, again.params) == (first.key, 2, first.params)
    assert again.checkpoints == ("checkpoints/trial-00000/attempt-1/step-0000003",)
    assert [row["kind"] for row in rows(desk, tables.events, study)] == ["lost"]
    assert not agenda.left


def test_what_is_told_of_a_rerun_is_told_of_the_trial_that_is_trained_again(desk):
    study = desk.begin()
    agenda = desk.agenda(study, Budget(trials=3))
    until_killed(agenda, quick, 3 + 3)
    rerun = agenda.next()
    assert rerun.key == ("rerun", 3), "no trial has this number"
    agenda.lost(rerun.key, "lost", "its process ended")
    (event,) = rows(desk, tables.events, study)
    assert (event["kind"], event["trial"]) == ("lost", agenda.ledger.reruns[3]["trial"])


def test_a_trial_that_takes_its_worker_with_it_is_not_tried_for_ever(desk):
    study = desk.begin()
    agenda = desk.agenda(study)
    for attempt in range(1, 6):
        assignment = agenda.next()
        assert (assignment.number, assignment.attempt) == (0, attempt)
        agenda.lost(assignment.key, "lost", "it crashed")
    assert agenda.next().number == 1
    row = desk.trials(study)[0]
    assert row.state.name == "FAIL"
    assert row.user_attrs["reason"] == "its worker went away, the last of 5 times: it crashed"


def test_the_stock_tpe_is_what_proposes_by_default(desk):
    assert Desk.__dataclass_fields__["sampler"].default_factory is Tpe


def test_a_report_names_the_metrics_and_checkpoints_that_it_came_with(desk):
    study = desk.begin()
    ledger, assignment = asked(desk, study)
    ledger.report(assignment, Reported(3, 333, 0.5, {"f": 0.5, "loss": 1.0}, "new", "best", 2.5), out_of_time=False)
    (row,) = rows(desk, tables.reports, study)
    assert (row["seq"], row["attempt"], row["step"], row["share"], row["value"]) == (1, 1, 3, 333, 0.5)
    assert row["metrics"] == {"f": 0.5, "loss": 1.0}
    assert (row["checkpoint"], row["best_checkpoint"], row["seconds"]) == ("new", "best", 2.5)


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        ("diverged", r"No trial ended well; the causes were diverged \(2\)\. See `deepmine-auto trials study`"),
        ("deadline", r"Nothing was learned in \d+ s: no trial reached its first evaluation"),
    ],
)
def test_where_nothing_may_win_it_is_said_why(desk, cause, told):
    from deepmine_auto.concluding import conclude  # which imports torch

    agenda = desk.work(desk.begin(), Budget(trials=2), ending(cause, after=1 if cause == "diverged" else 0))
    with pytest.raises(NothingLearned, match=told):
        conclude(agenda, None, desk.folder / "bundle")

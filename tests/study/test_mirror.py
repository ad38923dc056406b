"""The mirror: what the sampler sees of the rows, and what comes of it."""

import copy
import threading
from collections import Counter
from dataclasses import dataclass, replace

import optuna
import pytest
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import TrialState
from rows import KIND, LR, SPACE, WIDTH, Rows, anything, spaces_of

from deepmine_auto.space import Choice, Float, Param, Space
from deepmine_auto.study import mirror as mirrors
from deepmine_auto.study.mirror import INFEASIBLE, SAMPLER_ERROR
from deepmine_plugins.samplers.auto import Auto
from deepmine_plugins.samplers.gp import Gp
from deepmine_plugins.samplers.nsga2 import Nsga2
from deepmine_plugins.samplers.random import Random
from deepmine_plugins.samplers.tpe import Tpe

PLAIN = ("attention/kind", "attention/a/width", "optimizer/kind", "optimizer/adamw/lr")


def with_kinds(*kinds, fixed=SPACE.fixed):
    """The space with other attentions to choose from."""
    return Space((Param("attention/kind", Choice(*kinds), {}), *SPACE.params[1:]), fixed)


def kinds_shown(rows):
    return [each.params["attention/kind"] for each in rows.shown()]


def worth(row):
    """A value that params decide."""
    params = {name.partition("@")[0]: value for name, value in row.params.items()}
    return (params["attention/kind"] == "b") + params["optimizer/adamw/lr"]


# -- names and spaces --------------------------------------------------------------------------------------------------


def test_a_wider_choice_is_written_under_the_next_name_and_read_as_todays(tmp_path):
    rows = Rows(sampler=Random())
    for _ in range(4):
        rows.end(0.5)
    rows.goes_on(spaces_of(SPACE, (4, with_kinds("a", "b", "c"))))
    for _ in range(8):
        rows.end(0.5)
    written = [{name for name in row.params if name.startswith("attention/kind")} for row in rows.rows.values()]
    assert written == [{"attention/kind"}] * 4 + [{"attention/kind@2"}] * 8
    assert {row.params["attention/kind@2"] for number, row in rows.rows.items() if number > 3} == {"a", "b", "c"}
    assert all({name.partition("@")[0] for name in row.params} <= {*PLAIN} for row in rows.rows.values())
    assert len(rows.shown()) == 12
    assert {*rows.shown()[0].params} <= {*PLAIN}
    assert rows.shown()[0].distributions["attention/kind"].choices == ("a", "b", "c")
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/whole.db")
    for row in rows.rows.values():
        study._storage.create_new_trial(study._study_id, row)


def test_a_row_whose_choice_is_gone_stays_and_is_no_evidence():
    rows = Rows(sampler=Random())
    for _ in range(8):
        rows.end(0.5)
    kinds = kinds_shown(rows)
    rows.goes_on(spaces_of(SPACE, (8, with_kinds("b", "c"))))
    assert kinds_shown(rows) == [each for each in kinds if each == "b"]
    assert 0 < kinds.count("b") < len(kinds) == len(rows.rows)


def test_a_row_of_other_fixed_values_is_no_evidence():
    rows = Rows()
    rows.end(0.5)
    rows.goes_on(spaces_of(SPACE, (1, replace(SPACE, fixed={"training/epochs": 5}))))
    assert rows.shown() == []
    rows.end(0.7)
    assert [each.values for each in rows.shown()] == [[0.7]]


def test_a_range_that_changed_is_still_proposed_together_with_the_others():
    """Optuna draws together what all trials have with one and the same range: an old range would end that for ever."""
    rows = Rows()
    for _ in range(3):
        rows.end(0.5)
    wider = Param(LR.name, Float(1e-5, 1.0, log=True), {})
    rows.goes_on(spaces_of(SPACE, (3, Space((KIND, WIDTH, SPACE.params[2], wider), SPACE.fixed))))
    rows.end(0.5)
    together = IntersectionSearchSpace(include_pruned=True).calculate(rows.live.study)
    assert {*together} == {"attention/kind", "optimizer/kind", "optimizer/adamw/lr"}
    assert (together[LR.name].low, together[LR.name].high) == (1e-5, 1.0)


def test_a_technique_that_is_new_was_used_by_no_row_before():
    use = Param("technique/ema/use", Choice(False, True), {})
    rows = Rows()
    rows.end(0.5)
    rows.goes_on(spaces_of(SPACE, (1, Space((*SPACE.params, use), SPACE.fixed))))
    assert [each.params["technique/ema/use"] for each in rows.shown()] == [False]


def test_a_recipe_is_asked_for_in_its_turn_and_stays_out_of_the_row():
    first, later = ({LR.name: 0.0123}, {LR.name: 0.0456})
    rows = Rows(spaces_of(replace(SPACE, recipes=(first,)), (2, replace(SPACE, recipes=(first, later)))))
    drawn = [rows.end(0.5) for _ in range(4)]
    assert [row.params[LR.name] in (0.0123, 0.0456) for row in drawn] == [True, False, True, False]
    assert drawn[2].params[LR.name] == 0.0456
    assert not any("fixed_params" in row.system_attrs for row in drawn)


def test_a_barred_value_is_replaced_before_what_depends_on_it_is_drawn():
    mirror = Rows(sampler=Random()).live
    drawn = [mirror.ask(number, lambda name, value: "b" if value == "a" else None) for number in range(6)]
    assert [row.params["attention/kind"] for row in drawn] == ["b"] * 6
    assert not any(WIDTH.name in row.params for row in drawn)


# -- ends --------------------------------------------------------------------------------------------------------------


def only(rows):
    (shown,) = rows.shown()
    return shown


@pytest.mark.parametrize("state", ["FAIL", "PRUNED", "COMPLETE"])
def test_what_is_over_a_constraint_is_infeasible_to_the_sampler_however_it_ended(state):
    rows = Rows()
    rows.end(0.5, state=state, **{"latency_ms<=5": 2.0})
    assert (only(rows).state, only(rows).values) == (TrialState.PRUNED, None)
    assert only(rows).constraints == {"latency_ms<=5": 2.0}


def test_what_keeps_its_constraints_is_complete_and_says_so():
    rows = Rows()
    rows.end(0.5, **{"latency_ms<=5": -1.2, INFEASIBLE: 0.0})
    assert (only(rows).state, only(rows).values) == (TrialState.COMPLETE, [0.5])
    assert only(rows).constraints == {"latency_ms<=5": -1.2, INFEASIBLE: 0.0}


def test_a_failure_that_nothing_explains_is_no_evidence():
    rows = Rows()
    rows.end(state="FAIL")
    assert only(rows).state == TrialState.FAIL
    assert not only(rows).constraints


def test_limits_turn_the_sampler_away_from_what_breaks_them():
    rows = Rows()
    for _ in range(60):
        row = rows.ask()
        over = 1.0 if row.params["attention/kind"] == "a" else -1.0
        rows.tell(row.number, 0.5, latency=over)
    kinds = Counter(row.params["attention/kind"] for number, row in rows.rows.items() if number >= 30)
    assert kinds["b"] >= 24


def test_of_a_pruned_trial_the_last_point_is_shown_and_of_a_running_one_all():
    rows = Rows()
    rows.ask()
    for step in (1, 3, 2):
        rows.report(0, step, step / 10)
    assert only(rows).intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
    rows.tell(0, state="PRUNED")
    assert only(rows).intermediate_values == {3: 0.3}


# -- several objectives ------------------------------------------------------------------------------------------------


def test_stock_tpe_raises_where_it_finds_intermediate_values_beside_several_objectives():
    """The reason why the mirror shows none. Were it mended, curves could be shown."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=Tpe(n_startup_trials=2).build(0))
    for _ in range(2):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)
    with pytest.raises(RuntimeError, match="single direction"):
        study.ask().suggest_float("x", 0, 1)


def test_beside_several_objectives_no_curve_is_shown_and_values_are():
    rows = Rows(objectives=2, sampler=Tpe(n_startup_trials=1))
    for number in range(12):
        rows.ask()
        rows.report(number, 1, 0.5)
        if number % 3:
            rows.tell(number, 0.1 * number, 5.0, state="COMPLETE")
        else:
            rows.tell(number, state="PRUNED")
    assert not any(row.user_attrs for row in rows.rows.values()), "no sampler raised"
    assert not any(each.intermediate_values for each in rows.shown())
    assert [each.values for each in rows.shown()][:2] == [None, [0.1, 5.0]]
    assert rows.live.study.directions == list(rows.live.directions)


@pytest.mark.parametrize(
    "sampler", [Tpe(n_startup_trials=3), Random(), Nsga2(population_size=4), Gp(n_startup_trials=3), Auto()]
)
@pytest.mark.parametrize("objectives", [1, 2])
def test_every_sampler_of_ours_proposes_from_the_mirror(sampler, objectives):
    rows = Rows(sampler=sampler, objectives=objectives)
    for number in range(9):
        row = rows.ask()
        rows.report(number, 1, 0.3)
        rows.tell(
            number, *([worth(row)] * objectives if number % 4 else []), state="COMPLETE" if number % 4 else "PRUNED"
        )
    assert [row.user_attrs.get(SAMPLER_ERROR) for row in rows.rows.values()] == [None] * 9


def test_what_a_sampler_notes_of_a_trial_is_kept_with_its_row():
    rows = Rows(sampler=Nsga2(population_size=4))
    for _ in range(6):
        rows.end(0.5)
    generations = [dict(row.system_attrs) for row in rows.rows.values()]
    assert all(generations)
    assert [each.system_attrs for each in rows.shown()] == generations


# -- the same after a restart ------------------------------------------------------------------------------------------


def play(rows, number):
    """One number: ask, and end the trial before the last one, so that two run at a time."""
    rows.ask()
    if number % 5 == 4:
        rows.report(number, 1, 0.4)
    if number:
        before = number - 1
        state = ("COMPLETE", "PRUNED", "FAIL", "COMPLETE")[before % 4]
        values = [worth(rows.rows[before])] * rows.objectives if state == "COMPLETE" else []
        rows.tell(before, *values, state=state, limit=0.2 if before % 7 == 3 else -0.1)


def played(restarts, **more):
    rows = Rows(sampler=Tpe(n_startup_trials=4), **more)
    for number in range(40):
        if number == 20:
            rows.goes_on(spaces_of(SPACE, (20, with_kinds("b", "c", "a"))))
        if restarts:
            rows.live = rows.restarted()
        play(rows, number)
    return [(row.params, row.system_attrs, row.user_attrs) for row in rows.rows.values()]


EVIDENCE = tuple(
    {"number": n, "source": "s", "rank": n / 9,
     "params": {"attention/kind": "b", "optimizer/kind": "adamw", LR.name: 0.01 + n / 1000, "training/epochs": 3}}
    for n in range(9)
)  # fmt: skip


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("evidence", [(), EVIDENCE])
def test_a_mirror_made_of_the_rows_proposes_what_the_one_that_saw_them_come_proposes(monkeypatch, objectives, evidence):
    monkeypatch.setattr("deepmine_auto.study.view.NEWEST", 10)
    monkeypatch.setattr("deepmine_auto.study.view.BEST", 5)
    more = {"objectives": objectives, "evidence": evidence}
    assert played(restarts=True, **more) == played(restarts=False, **more)


def test_a_proposal_is_made_from_the_rows_before_it_alone():
    rows = Rows(sampler=Tpe(n_startup_trials=4))
    for number in range(15):
        play(rows, number)
    earlier = Rows(sampler=rows.sampler)
    earlier.rows = {number: copy.deepcopy(rows.rows[number]) for number in range(10)}
    earlier.constraints = rows.constraints
    wanted = earlier.restarted().ask(10, anything).params
    assert rows.restarted().ask(10, anything).params == wanted
    assert rows.live.ask(10, anything).params == wanted


def test_a_proposal_is_made_again_in_the_space_that_held_then():
    rows = Rows(spaces_of(SPACE, (12, with_kinds("c", "b"))), sampler=Tpe(n_startup_trials=4))
    for _ in range(16):
        row = rows.ask()
        rows.tell(row.number, worth(row))
    for number in (8, 11, 12, 15):
        earlier = Rows(rows.spaces, sampler=rows.sampler)
        earlier.rows = {each: rows.rows[each] for each in range(number)}
        again = earlier.restarted().ask(number, anything)
        assert (again.params, again.user_attrs) == (rows.rows[number].params, {})


# -- duplicates --------------------------------------------------------------------------------------------------------

TINY = Space((KIND, Param("model/depth", Choice(1, 2), {})), {})


def test_no_params_are_proposed_twice_while_others_are_left():
    for seed in range(9):
        rows = Rows(spaces_of(TINY), sampler=Random())
        rows.live.seed = seed
        assert len({tuple(sorted(rows.end(0.5).params.items())) for _ in range(4)}) == 4


def test_params_may_come_again_where_a_space_fixed_other_values():
    rows = Rows(
        spaces_of(replace(TINY, params=(Param("attention/kind", Choice("a"), {}),), fixed={"training/epochs": 3}))
    )
    asked = []
    rows.sampler = Counted(asked)
    rows.goes_on(rows.spaces)
    rows.end(0.5)
    assert len(asked) == 1
    rows.end(0.5)
    assert len(asked) == 1 + 1 + mirrors.ASK_AGAIN, "the same again: accepted when nothing else comes"
    other = Space(rows.spaces.now.params, {"training/epochs": 5})
    rows.goes_on(spaces_of(rows.spaces.now, (2, other)))
    del asked[:]
    rows.end(0.5)
    assert len(asked) == 1


@dataclass(frozen=True)
class Counted(Random):
    asked: list

    def build(self, seed):
        self.asked.append(seed)
        return super().build(seed)


# -- samplers that fail ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failing(Random):
    with_what: BaseException

    def build(self, seed):
        raise self.with_what


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit("no"), TimeoutError("no")])
def test_a_sampler_that_raises_anything_is_replaced_by_chance_for_that_trial(error):
    rows = Rows(sampler=Failing(error))
    row = rows.end(0.5)
    assert row.user_attrs == {SAMPLER_ERROR: f"{type(error).__name__}: no"}
    assert row.params == Rows(sampler=Random()).end(0.5).params


@dataclass(frozen=True)
class Hanging(Random):
    free: threading.Event
    asked: list

    def build(self, seed):
        self.asked.append(seed)
        self.free.wait(60)
        return super().build(seed)


def test_a_sampler_that_hangs_is_not_waited_for_and_after_three_times_asked_no_more(monkeypatch):
    monkeypatch.setattr(mirrors, "SAMPLER_SECONDS", 0.05)
    free, asked = threading.Event(), []
    rows = Rows(sampler=Hanging(free, asked))
    for number in range(5):
        if number == 4:
            rows.live = rows.restarted()
        rows.end(0.5)
    told = [row.user_attrs[SAMPLER_ERROR] for row in rows.rows.values()]
    assert (
        told == ["TimeoutError: no proposal within 0.05 s"] * 3 + ["TimeoutError: no proposal in time in 3 trials"] * 2
    )
    assert len(asked) == 3
    before = copy.deepcopy(rows.rows), len(rows.shown())
    threads = [each for each in threading.enumerate() if each.daemon and each.name.startswith("Thread")]
    free.set()
    for each in threads:
        each.join(10)
    assert (rows.rows, len(rows.shown())) == before, "an answer that comes too late changes nothing"


def test_a_space_that_cannot_be_drawn_raises():
    with pytest.raises(ValueError, match="choices"):
        Rows(spaces_of(Space((Param("attention/kind", Choice(), {}),), {}))).ask()


def test_numbers_whose_hashes_are_equal_are_not_the_same_params():
    """Python has one hash for -1 and -2."""
    marks = [mirrors._mark({"a": each, "kind": "one"}) for each in (-1, -2, -1.0, -2.0, 1, True, 1.0)]
    assert marks[0] == marks[2] != marks[1] == marks[3]
    assert marks[4] == marks[5] == marks[6]

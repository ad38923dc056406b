"""What a sampler is shown: which rows, and which trials of other studies."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import TrialState
from rows import SPACE, Rows, spaces_of

from deepmine_auto.space import Choice, Float, Param, Space
from deepmine_auto.study import view as views
from deepmine_auto.study.view import Given, View
from deepmine_plugins.samplers.random import Random
from deepmine_plugins.samplers.tpe import Tpe

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
X = Space((Param("x", Float(0.0, 1000.0), {}),), {})


def given_of(number, *values, state="COMPLETE"):
    return Given({"x": float(number)}, TrialState[state], list(values) or None, {}, {}, {})


def numbers(shown):
    return [int(each.params["x"]) for each in shown]


@pytest.fixture
def small(monkeypatch):
    """A window of eight rows."""
    monkeypatch.setattr(views, "BEST", 3)
    monkeypatch.setattr(views, "NEWEST", 5)


def test_a_sampler_is_shown_at_most_500_rows():
    assert views.BEST + views.NEWEST == 500


def test_of_many_rows_the_best_and_the_newest_are_shown_in_their_order(small):
    values = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.0, 0.0, 0.0, 0.0, 0.0]
    rows = {number: given_of(number, value) for number, value in enumerate(values)}
    assert numbers(View(X, [UP], ()).trials(rows)) == [1, 3, 5, 6, 7, 8, 9, 10]
    assert numbers(View(X, [DOWN], ()).trials(rows)) == [0, 2, 4, 6, 7, 8, 9, 10]
    del rows[10], rows[9], rows[8]
    assert numbers(View(X, [UP], ()).trials(rows)) == list(range(8))


def test_of_many_rows_those_of_the_front_are_shown_where_there_are_several_objectives(small):
    points = [(0.9, 9.0), (0.5, 9.0), (0.1, 1.0), (0.4, 5.0), (0.1, 5.0)]
    rows = {number: given_of(number, *point) for number, point in enumerate(points + [(0.0, 99.0)] * 5)}
    assert numbers(View(X, [UP, DOWN], ()).trials(rows)) == [0, 2, 3, 5, 6, 7, 8, 9]


def test_of_old_rows_only_complete_ones_are_among_the_best(small):
    rows = {number: given_of(number, state="PRUNED") for number in range(9)}
    rows[2] = given_of(2, 0.5)
    assert numbers(View(X, [UP], ()).trials(rows)) == [2, 4, 5, 6, 7, 8]


def test_a_row_that_changed_is_shown_as_it_is():
    view = View(X, [UP], ())
    assert view.trials({0: given_of(0, state="RUNNING")})[0].state == TrialState.RUNNING
    view.forget(0)
    assert view.trials({0: given_of(0, 0.5)})[0].values == [0.5]


def test_choices_are_compared_at_a_glance_and_as_optuna_compares_them():
    one, other = (View(SPACE, [UP], ())._distributions["attention/kind"] for _ in range(2))
    assert one == other
    assert (
        one
        != View(Space((Param("attention/kind", Choice("b", "a"), {}),), {}), [UP], ())._distributions["attention/kind"]
    )
    assert hash(one) == hash(other)


# -- trials of other studies -------------------------------------------------------------------------------------------


def evidence(count, x=float):
    """So many trials of another study, the first the worst."""
    return [
        {"number": n, "source": "s", "rank": n / count, "params": {"x": float(x(n))}} for n in range(count)
    ]  # fmt: skip


def test_without_rows_of_its_own_a_study_sees_others_by_their_ranks():
    shown = View(X, [UP, DOWN], evidence(3)).trials({})
    assert numbers(shown) == [2, 1, 0]
    assert [each.values for each in shown] == [[2 / 3, -2 / 3], [1 / 3, -1 / 3], [0.0, -0.0]]


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=30), st.integers(1, 40), st.sampled_from([UP, DOWN]))
def test_others_have_values_of_the_study_in_the_order_of_their_ranks_and_never_outdo_it(values, count, way):
    rows = {number: given_of(number, value) for number, value in enumerate(values)}
    view = View(X, [way], evidence(count))
    shown = view.trials(rows)
    others = shown[: len(shown) - len(rows)]
    sign = 1 if way == UP else -1
    lent = [sign * each.values[0] for each in others]
    assert lent == sorted(lent, reverse=True)
    own = sorted((sign * value for value in values), reverse=True)
    assert set(lent) <= set(own[1:])
    assert len(others) == count


def test_with_several_objectives_others_have_the_values_of_own_trials():
    rows = {0: given_of(0, 0.9, 9.0), 1: given_of(1, 0.1, 1.0), 2: given_of(2, 0.05, 2.0)}
    shown = View(X, [UP, DOWN], evidence(4)).trials(rows)
    assert [each.values for each in shown[:4]] == [[0.1, 1.0], [0.05, 2.0], [0.05, 2.0], [0.05, 2.0]]


def test_each_own_trial_takes_the_place_of_another():
    view = View(X, [UP], evidence(300, x=lambda n: n / 4))
    sizes = []
    for own in (0, 1, 40, 99, 100, 150):
        shown = view.trials({number: given_of(number, 0.5) for number in range(own)})
        sizes.append(len(shown) - own)
        ranks = [each.params["x"] for each in shown[: len(shown) - own]]
        if own == 40:
            assert fmean(ranks) == pytest.approx(300 / 4 / 2, rel=0.05), "good and bad ones go alike"
    assert sizes == [100, 99, 60, 1, 0, 0]


def test_running_and_failed_trials_take_no_place():
    view = View(X, [UP], evidence(100, x=lambda n: n))
    rows = {0: given_of(0, state="RUNNING"), 1: given_of(1, state="FAIL"), 2: given_of(2, state="PRUNED")}
    assert len(view.trials(rows)) == 99 + 3


def test_what_todays_space_cannot_say_is_shown_of_no_study():
    narrow = Space((Param("x", Float(0.0, 1.0), {}),), {})
    assert numbers(View(narrow, [UP], evidence(5)).trials({3: given_of(3, 0.5)})) == [1, 0]


def test_others_turn_the_first_proposals_to_what_was_good_and_are_no_rows():
    """Good was attention b; without others, TPE draws its first trials at random."""

    def other(number):
        kind = {"attention/kind": "b"} if number >= 20 else {"attention/kind": "a", "attention/a/width": 1}
        params = {**kind, "optimizer/kind": "adamw", "optimizer/adamw/lr": 0.01, "training/epochs": 3}
        return {"number": number, "source": "s", "rank": number / 40, "params": params}

    def first_kinds(sampler, evidence):
        found = []
        for seed in range(12):
            rows = Rows(spaces_of(SPACE), sampler=sampler, evidence=evidence)
            rows.live.seed = seed
            found.append(rows.ask().params["attention/kind"])
            assert [*rows.live.given] == [0]
        return found

    others = tuple(map(other, range(40)))
    assert first_kinds(Tpe(), others).count("b") >= 10
    assert first_kinds(Tpe(), ()) == first_kinds(Random(), others)

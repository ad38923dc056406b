"""Other pruners and samplers on a recorded study."""

from dataclasses import dataclass, replace
from itertools import permutations
from math import log10
from statistics import fmean

import optuna
import pytest
from fakes import SPACE, STEPS, Desk, ending, quick
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmine_auto import Verdict
from deepmine_auto.audit import record
from deepmine_auto.audit.other_pruners import with_pruner
from deepmine_auto.audit.other_samplers import REPEATS, Table, _expected_best
from deepmine_auto.errors import BadInput
from deepmine_auto.study.budget import Budget
from deepmine_plugins.pruners.asha import Asha
from deepmine_plugins.pruners.none import KeepAll
from deepmine_plugins.samplers.random import Random
from deepmine_plugins.samplers.tpe import Tpe


def searched(folder, pruner=None, trials=12, training=quick, **begun):
    desk = Desk(folder, pruner=pruner or KeepAll())
    study = desk.begin(**begun)
    desk.store.reopen(study.id, {**study.spec, "sampler": "tpe", "pruner": "none"})
    desk.work(study, Budget(trials=trials), training)
    return record.read(desk.store, "study")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study whose curves are all whole."""
    return searched(tmp_path_factory.mktemp("whole"))


@dataclass(frozen=True)
class Stopping(KeepAll):
    """Stops some trials at some shares."""

    at: tuple[tuple[int, int], ...] = ()

    def keep(self, reports, trial, share):
        return Verdict(keep=dict(self.at).get(trial, 9999) > share)


def best_of(found, number):
    return found.history.best_values()[number]


def ranking(found):
    return sorted(range(12), key=lambda each: (-best_of(found, each), each))


# -- pruners -----------------------------------------------------------------------------------------------------------


def test_a_pruner_that_stops_nothing_saves_and_loses_nothing(whole):
    found = with_pruner(whole, KeepAll())
    assert (found.pruner, found.whole, found.stopped) == ("none", 12, {})
    assert (found.saved_steps, found.saved_seconds, found.winner_kept, found.kept, found.regret) == (0, 0, True, 3, 0)


def test_what_is_saved_are_the_steps_after_the_stop(whole):
    worst = ranking(whole)[-2:]
    found = with_pruner(whole, Stopping(at=tuple((each, 333) for each in worst)))
    assert found.stopped == dict.fromkeys(sorted(worst), 333)
    assert found.saved_steps == pytest.approx(2 * (9 - 3) / (12 * 9))
    assert (found.winner_kept, found.kept, found.regret) == (True, 3, 0)


def test_who_stops_the_best_learns_what_it_costs(whole):
    first, second, *_ = ranking(whole)
    found = with_pruner(whole, Stopping(at=((first, 111),)))
    assert (found.winner_kept, found.kept) == (False, 2)
    assert found.regret == pytest.approx(best_of(whole, first) - best_of(whole, second))


def test_what_was_stopped_ranks_by_the_best_that_it_had_reached(whole):
    """As it does among the finalists of a study: nobody comes before it for having ended."""
    first, *_ = ranking(whole)
    found = with_pruner(whole, Stopping(at=((first, 1000),)))
    assert (found.winner_kept, found.regret) == (False, 0)


def test_where_all_are_stopped_the_best_until_then_would_have_won(whole):
    found = with_pruner(whole, Stopping(at=tuple((each, 111) for each in range(12))))
    at_first = {row["number"]: row["value"] for row in whole.rows_by_table["deepmine_reports"]
                if (row["kind"], row["step"]) == ("trial", STEPS[0])}  # fmt: skip
    chosen = min(range(12), key=lambda each: (-at_first[each], each))
    assert found.regret == pytest.approx(best_of(whole, ranking(whole)[0]) - best_of(whole, chosen))
    assert found.saved_steps == pytest.approx(8 / 9)


def test_who_is_stopped_falls_silent_for_the_verdicts_that_follow(whole):
    again = with_pruner(whole, Asha())
    assert again.stopped
    known = [each for each in whole.history.reports if each.share <= again.stopped.get(each.trial, 9999)]
    for number, share in again.stopped.items():
        assert not Asha().keep([each for each in known if each.seq <= _seq(known, number, share)], number, share).keep


def _seq(reports, trial, share):
    return next(each.seq for each in reports if (each.trial, each.share) == (trial, share))


def test_trials_that_were_stopped_are_competitors_and_not_counted(tmp_path):
    found = searched(tmp_path, Asha())
    complete = [each.number for each in found.trials_by_number if each.state.name == "COMPLETE"]
    assert 0 < len(complete) < 12
    outcome = with_pruner(found, Stopping(at=tuple((each, 111) for each in range(12))))
    assert outcome.whole == len(complete)
    assert sorted(outcome.stopped) == complete


def falling(assignment, host):
    """The quick training of what is the better the smaller it is."""
    *reports, end = quick(assignment, host)
    for each in reports:
        yield replace(each, value=1 - each.value, metrics={"f": 1 - each.value})
    yield replace(end, value=1 - end.value)


def test_smaller_is_better_where_the_study_says_so(tmp_path):
    found = searched(tmp_path, direction="minimize", training=falling)
    best = min(range(12), key=lambda each: (best_of(found, each), each))
    second = min(set(range(12)) - {best}, key=lambda each: (best_of(found, each), each))
    outcome = with_pruner(found, Stopping(at=((best, 111),)))
    assert outcome.regret == pytest.approx(best_of(found, second) - best_of(found, best))
    assert outcome.regret >= 0


def test_without_one_whole_curve_nothing_can_be_compared(tmp_path):
    found = searched(tmp_path, trials=3, training=ending("memory", after=1))
    with pytest.raises(BadInput, match=r"No trial of this study ran to its end\. Record one with --pruner none"):
        with_pruner(found, Asha())


# -- samplers ----------------------------------------------------------------------------------------------------------


def test_a_sampler_comes_upon_every_trial_once(whole):
    order = Table(whole).order(Tpe(n_startup_trials=3), 1)
    assert sorted(order) == list(range(12))
    assert order == Table(whole).order(Tpe(n_startup_trials=3), 1), "the same seed, the same order"
    assert order != Table(whole).order(Tpe(n_startup_trials=3), 2)


def test_the_recorded_order_is_that_of_the_trials(whole):
    found = Table(whole).as_recorded()
    values = [best_of(whole, each) for each in range(12)]
    assert found.quarter == max(values[:3])
    assert found.half == max(values[:6])
    assert found.found_after == 1 + values.index(max(values))


@dataclass(frozen=True)
class Knowing(Random):
    """Proposes what the recorded trials are, best first: the nearest trial is then the very one."""

    def build(self, seed):
        class Teller(optuna.samplers.RandomSampler):
            def infer_relative_search_space(self, study, trial):
                return {}

            def sample_independent(self, study, trial, name, distribution):
                return KNOWN["params"][trial.number][name]

        return Teller()


KNOWN = {}


def test_a_proposal_is_answered_by_the_nearest_trial_that_is_left(whole):
    KNOWN["params"] = [whole.trials_by_number[each].params for each in ranking(whole)]
    table = Table(whole)
    assert table.order(Knowing(), 1) == ranking(whole)
    found = table.with_sampler(Knowing())
    best = best_of(whole, ranking(whole)[0])
    assert (found.quarter, found.half, found.found_after) == (pytest.approx(best), pytest.approx(best), 1)


def test_the_best_is_the_smallest_where_the_study_minimizes(tmp_path):
    found = searched(tmp_path, direction="minimize", trials=8)
    values = [best_of(found, each) for each in range(8)]
    recorded, chance = Table(found).as_recorded(), Table(found).by_chance()
    assert (recorded.quarter, recorded.half) == (min(values[:2]), min(values[:4]))
    assert recorded.found_after == 1 + values.index(min(values))
    assert max(values) > chance.quarter > chance.half > min(values)


def test_what_may_not_win_is_not_looked_for(tmp_path):
    found = searched(tmp_path)
    first, second = ranking(found)[:2]
    found.history.trials[first].set_user_attr("cause", "diverged")
    values = Table(found).values
    assert max(values) == values[second] == best_of(found, second)
    assert values[first] == min(values)


def test_means_are_taken_over_several_seeds(whole):
    table = Table(whole)
    seen = []
    table.order = lambda sampler, seed: seen.append(seed) or list(range(12))
    assert table.with_sampler(Random()).found_after == table.as_recorded().found_after
    assert len(set(seen)) == REPEATS


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=6), data=st.data())
def test_the_order_of_chance_is_the_mean_over_all_orders(values, data):
    drawn = data.draw(st.integers(1, len(values)))
    orders = list(permutations(values))
    ranked = sorted(values, reverse=True)
    assert _expected_best(ranked, drawn) == pytest.approx(fmean(max(order[:drawn]) for order in orders))


def test_by_chance_the_best_of_n_is_found_after_half_of_them(whole):
    found = Table(whole).by_chance()
    assert found.found_after == 13 / 2
    values = [best_of(whole, each) for each in range(12)]
    assert min(values) < found.quarter < found.half < max(values)


def test_a_study_without_a_value_has_no_table(tmp_path):
    found = searched(tmp_path, trials=2, training=ending("memory", after=0))
    with pytest.raises(BadInput, match="No trial of this study has a value"):
        Table(found)


def test_distances_count_every_param_once(whole):
    table = Table(whole)
    names = [each.name for each in SPACE.params]
    here = table._place({"attention/kind": "good", "attention/good/width": 2, "optimizer/adamw/lr": 1e-4})
    distances = table._distances(here)
    for distance, params in zip(distances, table.params, strict=True):
        expected = 0.0
        for name in names:
            there, mine = params.get(name), {"attention/kind": "good", "attention/good/width": 2}.get(name)
            if name == "optimizer/adamw/lr":
                expected += (log10(there) + 4) / 3
            elif there is not None or mine is not None:
                expected += there != mine
        assert distance == pytest.approx(expected)

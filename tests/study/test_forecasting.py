"""What a search is expected to take is reckoned from numbers that a test can choose."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepmine_auto.study.budget import FIRST_SHARE
from deepmine_auto.study.forecasting import SIMULATED, Interval, Pruned, Terms, pruned, scaled
from deepmine_plugins.pruners.asha import Asha
from deepmine_plugins.pruners.none import KeepAll
from deepmine_plugins.pruners.pareto_asha import ParetoAsha

WHOLE = Pruned((1.0,))

some = st.floats(0.1, 100.0)
models = st.lists(st.tuples(some, some), min_size=4, max_size=12, unique=True)


# -- from models that were measured to all -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(models, some, some)
def test_costs_that_are_sums_of_shares_are_met_exactly(known, first, second):
    known_NF = np.array(known)
    costs_N = known_NF @ (first, second)
    found = scaled(known_NF, {at: costs_N[at] for at in range(0, len(known), 2)} | {1: costs_N[1]})
    np.testing.assert_allclose(found.expected_N, costs_N, rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(models, st.lists(some, min_size=12, max_size=12))
def test_no_cost_is_expected_below_zero_and_every_interval_is_in_order(known, costs):
    found = scaled(np.array(known), dict(enumerate(costs[: len(known)])))
    assert (found.expected_N >= 0).all()
    assert found.one.low <= found.one.middle <= found.one.high


def test_each_error_is_that_of_a_fit_to_the_others():
    known_NF = np.array([[1.0], [2.0], [4.0]])
    found = scaled(known_NF, {0: 1.0, 1: 2.0, 2: 8.0})
    assert found.ratios_M[2] == pytest.approx(2.0), "the other two say 4, and it was 8"
    assert found.ratios_M[0] < 1.0


def test_one_measurement_has_no_error_that_could_be_known():
    found = scaled(np.array([[1.0], [3.0]]), {0: 2.0})
    assert found.expected_N.tolist() == pytest.approx([2.0, 6.0])
    assert found.ratios_M.tolist() == [1.0]


def test_the_interval_of_one_holds_eight_of_ten_models_times_their_errors():
    found = scaled(np.arange(1.0, 101.0)[:, None], {at: float(at + 1) for at in range(0, 100, 9)})
    assert found.one == pytest.approx((10.9, 50.5, 90.1))


def test_the_spread_of_models_averages_out_and_the_error_does_not():
    exact = scaled(np.arange(1.0, 101.0)[:, None], {at: float(at + 1) for at in range(0, 100, 9)})
    few, many = exact.mean_of(3), exact.mean_of(1000)
    assert many.high - many.low < (few.high - few.low) / 5
    wrong = scaled(np.ones((4, 1)), {0: 1.0, 1: 2.0, 2: 1.0, 3: 2.0}).mean_of(1000)
    assert wrong.high > 1.5 * wrong.low


def test_an_interval_stays_in_order_whatever_follows_from_it():
    assert Interval(1.0, 2.0, 4.0).then(lambda each: -each) == (-4.0, -2.0, -1.0)


# -- what a pruner saves -----------------------------------------------------------------------------------------------


def test_without_a_pruner_every_trial_is_whole():
    assert pruned(KeepAll(), 1, 0).shares == (1.0,) * SIMULATED


@pytest.mark.parametrize("pruner", [Asha(), ParetoAsha()])
@pytest.mark.parametrize("objectives", [1, 2])
def test_a_pruner_stops_trials_at_its_rungs_and_the_first_ones_never(pruner, objectives):
    found = pruned(pruner, objectives, 0)
    assert found.shares[:2] == (1.0, 1.0), "there is nobody to compare them with"
    assert set(found.shares) <= {0.111, 0.333, 1.0}
    assert 1 / 9 < found.tail < 1 / 2


@given(st.lists(st.floats(0.1, 1.0), min_size=2, max_size=20), st.integers(0, 60))
def test_work_and_trials_are_each_others_inverse(shares, trials):
    found = Pruned(tuple(shares))
    assert found.trials(found.work(trials) + 1e-6) == trials
    assert found.trials(max(0.0, found.work(trials) - 1e-6)) == max(0, trials - 1)


# -- from trials to a study --------------------------------------------------------------------------------------------


def test_a_number_of_trials_takes_their_time_over_the_workers_and_then_the_finals():
    found = Terms(20, math.inf, 2, 15.0, WHOLE).course(10.0)
    assert found == (20, 100.0, 9, 50.0, 15.0)
    assert found.whole == 165.0


def test_pruned_trials_take_less():
    half = Pruned((1.0, 0.5, 0.5, 0.5))
    assert Terms(4, math.inf, 1, 0.0, half).course(10.0).search == pytest.approx(25.0)


def test_no_search_is_shorter_than_its_first_trial():
    assert Terms(2, math.inf, 8, 0.0, WHOLE).course(10.0).search == 10.0


@given(st.floats(20, 1e5), st.floats(0.1, 1e4), st.integers(1, 16), st.floats(0, 100))
def test_a_time_budget_is_never_passed_unless_it_is_smaller_than_the_closing(seconds, trial, slots, closing):
    found = Terms(math.inf, seconds, slots, closing, WHOLE).course(trial)
    assert found.whole <= max(seconds, closing) * (1 + 1e-9)
    assert found.search >= seconds - closing - FIRST_SHARE * seconds - 1e-6
    assert found.reruns <= 3 * found.trials
    assert found.trials <= found.search * slots / trial + 1e-6


def test_of_trials_and_time_the_first_that_is_reached_ends_the_search():
    assert Terms(3, 600.0, 1, 10.0, WHOLE).course(10.0)[:2] == (3, 30.0)
    by_time = Terms(1000, 600.0, 1, 10.0, WHOLE).course(10.0)
    assert by_time.trials < 60
    assert by_time.search < 600.0


def test_what_is_kept_for_a_refit_the_search_does_not_have():
    without, with_it = (Terms(1000, 600.0, 1, 10.0, WHOLE, refit).course(10.0) for refit in (0.0, 100.0))
    assert with_it.search == pytest.approx(without.search - 100.0)
    assert with_it.whole == pytest.approx(without.whole)


def test_where_no_trial_fits_none_is_promised():
    found = Terms(math.inf, 30.0, 1, 15.0, WHOLE).course(100.0)
    assert (found.trials, found.reruns, found.finals) == (0, 0, 0.0)
    assert found.whole == pytest.approx(30.0)


@given(st.floats(0.1, 1e3), st.integers(1, 50), st.integers(1, 8))
def test_slower_trials_never_make_more_of_them_unless_no_time_is_kept_for_their_reruns(trial, most, slots):
    terms = Terms(most, 300.0, slots, 15.0, WHOLE)
    assume(terms._search_seconds(2 * trial) <= terms._search_seconds(trial))
    assert terms.course(2 * trial).trials <= terms.course(trial).trials

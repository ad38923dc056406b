"""Fronts are compared with their definition, and with one objective the verdicts are asha's."""

import math

from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto import Report
from deepmine_plugins.pruners.asha import Asha
from deepmine_plugins.pruners.pareto_asha import ParetoAsha, fronts_of

POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12)
VALUES = st.one_of(st.integers(-2, 2).map(float), st.floats(-1, 1), st.just(-math.inf))


def beaten(point, others):
    """Whether another is at least as good in everything and better in something."""
    return any(all(a >= b for a, b in zip(each, point, strict=True)) and each != point for each in others)


@given(POINTS)
def test_a_point_is_on_the_front_after_those_of_all_that_beat_it(points):
    fronts = fronts_of(points)
    for point, front in zip(points, fronts, strict=True):
        above = [at for other, at in zip(points, fronts, strict=True) if beaten(point, [other])]
        assert front == max(above, default=0) + 1


def peeled(points):
    """The fronts by their definition: what nothing left beats is taken away, again and again."""
    fronts, left, front = {}, set(points), 1
    while left:
        best = {each for each in left if not beaten(each, left)}
        fronts |= dict.fromkeys(best, front)
        left, front = left - best, front + 1
    return [fronts[each] for each in points]


@given(st.integers(1, 4).flatmap(lambda objectives: st.lists(st.tuples(*[VALUES] * objectives), max_size=40)))
def test_fronts_are_what_is_peeled_off_one_after_the_other_for_any_number_of_objectives(points):
    """An objective that was no number is held to be as bad as can be."""
    assert fronts_of(points) == peeled(points)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20, unique=True))
def test_with_one_objective_and_no_ties_it_keeps_what_asha_keeps(values):
    reports = [Report(trial, 111, value, trial + 1, (value,)) for trial, value in enumerate(values)]
    for at in range(len(reports)):
        known = reports[: at + 1]
        assert ParetoAsha().keep(known, at, 111).keep == Asha().keep(known, at, 111).keep


def test_a_trial_that_is_worse_in_everything_is_stopped_and_one_that_is_cheapest_goes_on():
    scores = [(0.9, -9.0), (0.8, -1.0), (0.7, -8.0)]
    reports = [Report(trial, 120, values[0], trial + 1, values) for trial, values in enumerate(scores)]
    assert ParetoAsha().keep(reports, 2, 120) == (False, 2, 1, 111)
    cheap = [*reports[:2], Report(2, 120, 0.1, 3, (0.1, -0.5))]
    assert ParetoAsha().keep(cheap, 2, 120) == (True, 1, 1, 111)
    assert not Asha().keep(cheap, 2, 120).keep, "by the first objective alone it would be stopped"

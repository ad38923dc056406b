"""A trial stops where even a good end would leave it behind, and only there."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto import Report, Verdict
from deepmine_plugins.pruners.asha import Asha
from deepmine_plugins.pruners.curve import Curve

SHARES = [*range(100, 1001, 100)]
NEVER = {"first": 899}
"""Successive halving with its one rung where trials are nearly over."""


def curves(*values):
    """One trial after the other, with a report at 100, 200, ... 1000."""
    pairs = [(trial, SHARES[at], each) for trial, curve in enumerate(values) for at, each in enumerate(curve)]
    return [Report(*pair, seq, last=pair[1] == 1000) for seq, pair in enumerate(pairs)]


def rising(end, gain):
    """A whole curve that stands `gain` below its end from its second report on, and lower at its first."""
    return (end - gain - 0.1, *[end - gain] * 8, end)


WHOLE = [rising(0.9, 0.05), rising(0.8, 0.1), rising(0.7, 0.2), rising(0.6, 0.1)]


def test_a_trial_that_could_not_reach_the_third_place_is_stopped():
    reports = curves(*WHOLE, (0.1, 0.49))
    assert Curve(**NEVER).keep(reports, 4, 200) == Verdict(False, pytest.approx(0.69), 0.7)


def test_a_trial_that_could_is_not():
    reports = curves(*WHOLE, (0.1, 0.51))
    assert Curve(**NEVER).keep(reports, 4, 200).keep


def test_less_hope_stops_more():
    reports = curves(*WHOLE, (0.1, 0.59))
    assert Curve(**NEVER).keep(reports, 4, 200).keep
    assert Curve(**NEVER, hope=0.5).keep(reports, 4, 200) == Verdict(False, pytest.approx(0.69), 0.7)


def test_fewer_places_stop_more():
    reports = curves(*WHOLE, (0.1, 0.59))
    assert not Curve(**NEVER, places=1).keep(reports, 4, 200).keep


def test_who_came_to_an_end_by_patience_counts_as_one_who_took_all_steps():
    short = [curve[:9] for curve in WHOLE]
    for last, keep in ((True, False), (False, True)):
        reports = [each._replace(last=last and each.share == 900) for each in curves(*short, (0.1, 0.2))]
        assert Curve(**NEVER).keep(reports, 4, 200).keep == keep


def test_who_ended_before_a_share_gained_nothing_from_it_on_and_does_not_count():
    """Else most that came as far, and still gained, would be outvoted by those that had stopped learning."""
    early = [each._replace(last=each.share == 300) for each in curves(*[(0.5, 0.55, 0.6)] * 9)]
    late = [each._replace(trial=each.trial + 9, seq=each.seq + 50) for each in curves(*WHOLE, (0.1, 0.1, 0.1, 0.51))]
    assert Curve(**NEVER).keep([*early, *late], 13, 400).keep
    worse = [each._replace(value=0.49) if each.trial == 13 else each for each in late]
    assert not Curve(**NEVER).keep([*early, *worse], 13, 400).keep


def test_nobody_is_stopped_before_enough_have_ended():
    reports = curves(*WHOLE[:2], (0.1, 0.2), (0.1, 0.2))
    assert Curve(**NEVER).keep(reports, 3, 200).keep
    assert Curve(**NEVER, eta=2, places=2).keep(reports, 3, 200) == Verdict(False, pytest.approx(0.3), 0.8)


def test_a_dip_stops_nobody():
    reports = curves(*WHOLE, (0.6, 0.6, 0.1))
    assert Curve(**NEVER).keep(reports, 4, 300).keep


def test_a_trial_near_its_end_is_not_stopped():
    reports = curves(*WHOLE, (0.0,) * 9)
    assert Curve(**NEVER).keep(reports, 4, 900).keep


def test_what_halving_stops_is_stopped_by_it():
    reports = curves((0.5,), (0.6,), (0.7,), (0.1,))
    assert Curve(first=100).keep(reports, 3, 100) == Asha(first=100).keep(reports, 3, 100)
    assert not Curve(first=100).keep(reports, 3, 100).keep


VALUES = st.floats(0, 1).map(lambda each: round(each, 2))
CURVES = st.lists(st.lists(VALUES, min_size=1, max_size=10) | st.lists(VALUES, min_size=10, max_size=10), max_size=8)


@given(CURVES)
def test_it_equals_its_definition_and_later_reports_change_nothing(values):
    reports, pruner = curves(*values), Curve()
    for at, judged in enumerate(reports):
        verdict = pruner.keep(reports[: at + 1], judged.trial, judged.share)
        assert pruner.keep(reports, judged.trial, judged.share) == verdict
        steps = judged.share // 100
        ended = [curve for curve in values[: judged.trial] if len(curve) == 10]
        halving = Asha().keep(reports, judged.trial, judged.share).keep
        if not halving or judged.share >= 900 or len(ended) < 3:
            assert verdict.keep == halving
            continue
        gains = sorted(max(each) - max(each[:steps]) for each in ended)
        end = max(values[judged.trial][:steps]) + gains[math.ceil(0.9 * len(gains)) - 1]
        assert verdict.keep == (end >= sorted(map(max, ended))[-3])

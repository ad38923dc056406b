from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto import Report, Verdict
from deepmine_plugins.pruners.median import Median

VALUES = st.floats(0, 1).map(lambda each: round(each, 2))


def curves(*values):
    """One trial after the other, with a report at 100, 200, ..."""
    pairs = [(trial, 100 * (at + 1), each) for trial, curve in enumerate(values) for at, each in enumerate(curve)]
    return [Report(*pair, seq) for seq, pair in enumerate(pairs)]


def test_a_trial_below_the_median_of_the_others_is_stopped():
    reports = curves((0.1, 0.5), (0.1, 0.6), (0.1, 0.6), (0.1, 0.8), (0.1, 0.59))
    assert Median().keep(reports, 4, 200) == Verdict(False, 0.59, 0.6)


def test_best_values_are_compared_so_a_dip_stops_nobody():
    reports = curves((0.8, 0.5), (0.1, 0.6), (0.1, 0.7), (0.1, 0.8), (0.75, 0.1))
    assert Median().keep(reports, 4, 200) == Verdict(True, 0.75, 0.75)


def test_nobody_is_stopped_before_the_warm_up_is_over():
    reports = curves((0.5,), (0.6,), (0.7,), (0.8,), (0.1,))
    assert Median().keep(reports, 4, 100) == Verdict(True)
    assert not Median(warmup=100).keep(reports, 4, 100).keep


def test_nobody_is_stopped_before_enough_others_have_come_as_far():
    reports = curves((0.1, 0.5), (0.1, 0.6), (0.1, 0.7), (0.9,), (0.1, 0.2))
    assert Median().keep(reports, 4, 200) == Verdict(True, 0.2)
    assert not Median(others=3).keep(reports, 4, 200).keep


def test_a_trial_at_its_end_is_not_stopped():
    reports = [Report(trial, 1000, 1.0 - trial / 10, trial) for trial in range(5)]
    assert Median().keep(reports, 4, 1000) == Verdict(True)


@given(st.lists(st.lists(VALUES, min_size=1, max_size=8), min_size=1, max_size=8))
def test_it_equals_its_definition_and_later_reports_change_nothing(values):
    reports = curves(*values)
    for at, judged in enumerate(reports):
        seen = reports[: at + 1]
        verdict = Median().keep(seen, judged.trial, judged.share)
        assert Median().keep(reports, judged.trial, judged.share) == verdict
        steps = judged.share // 100
        others = [max(curve[:steps]) for curve in values[: judged.trial] if len(curve) >= steps]
        own = max(values[judged.trial][:steps])
        may_stop = judged.share >= 200 and len(others) >= 4
        assert verdict.keep == (not may_stop or own >= median(others))

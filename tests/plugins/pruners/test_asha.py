"""Verdicts are compared with an oracle that follows the definition, report by report, and knows no shortcut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto import BadInput, Report, Verdict
from deepmine_plugins.pruners.asha import Asha

ETAS = st.sampled_from((2, 3, 4))
FIRSTS = st.integers(20, 500)
TRIALS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 400), st.sampled_from((0.1, 0.2, 0.3, 0.4, 0.5))), max_size=60
)


def reported(triples):
    """Trials that each come further by some thousandths, one report after the other."""
    shares, reports = {}, []
    for trial, further, value in triples:
        shares[trial] = shares.get(trial, 0) + further
        if shares[trial] <= 1000:
            reports.append(Report(trial, shares[trial], value, seq=2 * len(reports)))
    return reports


def by_definition(eta, first, reports, at):
    """The verdict at reports[at]."""
    judged = reports[at]
    rungs = [first * eta**k for k in range(10) if first * eta**k < 900]
    reached = []
    for rung in rungs:
        firsts = [each for each in reports[: at + 1] if each.trial == judged.trial and each.share >= rung]
        if firsts and firsts[0] == judged:
            reached.append(rung)
    if judged.share >= 900 or not reached:
        return Verdict(keep=True)
    values = []
    for trial in {each.trial for each in reports[: at + 1]}:
        firsts = [each for each in reports[: at + 1] if each.trial == trial and each.share >= reached[-1]]
        values += [each.value for each in firsts[:1]]
    if len(values) < eta:
        return Verdict(keep=True, value=judged.value, rung=reached[-1])
    going_on = sorted(values)[-(len(values) // eta) :]
    return Verdict(judged.value >= going_on[0], judged.value, going_on[0], reached[-1])


@given(eta=ETAS, first=FIRSTS, triples=TRIALS)
def test_the_verdict_is_the_one_of_the_definition(eta, first, triples):
    reports, pruner = reported(triples), Asha(eta=eta, first=first)
    for at, each in enumerate(reports):
        assert pruner.keep(reports[: at + 1], each.trial, each.share) == by_definition(eta, first, reports, at)


@given(eta=ETAS, first=FIRSTS, triples=TRIALS)
def test_later_reports_change_no_earlier_verdict(eta, first, triples):
    reports, pruner = reported(triples), Asha(eta=eta, first=first)
    for at, each in enumerate(reports):
        then = pruner.keep(reports[: at + 1], each.trial, each.share)
        assert pruner.keep(reports, each.trial, each.share) == then


def test_a_report_that_is_made_again_after_a_crash_is_judged_as_the_first_time():
    reports = [Report(trial, 111, value, trial) for trial, value in enumerate((0.9, 0.8, 0.1))]
    again = [*reports, Report(3, 111, 0.95, 3), Report(2, 111, 0.99, 4)]
    assert Asha().keep(again, 2, 111) == Asha().keep(reports, 2, 111) == Verdict(False, 0.1, 0.9, 111)


def test_the_rungs_of_the_default_are_a_ninth_and_a_third():
    assert list(Asha().rungs()) == [111, 333]


@pytest.mark.parametrize(("eta", "rungs"), [(2, [111, 222, 444, 888]), (4, [111, 444])])
def test_rungs_multiply_by_eta_and_end_before_nine_tenths(eta, rungs):
    assert list(Asha(eta=eta).rungs()) == rungs


def test_the_first_trials_go_on_whatever_their_value():
    reports = [Report(0, 111, 0.9, 0), Report(1, 111, 0.1, 1)]
    assert Asha().keep(reports, 1, 111) == Verdict(True, 0.1, None, 111)


def test_a_trial_is_judged_once_a_rung():
    reports = [Report(trial, 111, value, trial) for trial, value in enumerate((0.9, 0.8, 0.1))]
    assert not Asha().keep(reports, 2, 111).keep
    assert Asha().keep([*reports, Report(2, 120, 0.1, 3)], 2, 120) == Verdict(True)


def test_of_several_rungs_passed_at_once_the_highest_counts():
    assert Asha().keep([Report(0, 500, 0.5, 0)], 0, 500).rung == 333


def test_equal_values_go_on_together():
    reports = [Report(trial, 111, 0.5, trial) for trial in range(6)]
    assert Asha().keep(reports, 5, 111).keep


def test_a_trial_at_its_end_is_not_stopped():
    reports = [Report(trial, 1000, value, trial) for trial, value in enumerate((0.9, 0.8, 0.1))]
    assert Asha().keep(reports, 2, 1000) == Verdict(True)


@pytest.mark.parametrize("fields", [{"eta": 1}, {"first": 0}])
def test_fields_that_make_no_rungs_are_refused(fields):
    with pytest.raises(BadInput, match=r"asha has no rungs with eta .* Give eta >= 2, first >= 1"):
        Asha(**fields)

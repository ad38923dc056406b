from deepmine_auto import Report, Verdict
from deepmine_plugins.pruners.none import KeepAll


def test_the_worst_trial_of_many_goes_on():
    reports = [Report(trial, 333, -trial, trial) for trial in range(50)]
    assert KeepAll().keep(reports, 49, 333) == Verdict(keep=True)
    assert list(KeepAll().rungs()) == []

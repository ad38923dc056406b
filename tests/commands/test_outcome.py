"""What is said of the finals beside the winner."""

from types import SimpleNamespace

import pytest

from deepmine_auto.commands.outcome import _finals


@pytest.mark.parametrize(
    ("values", "as_good", "told"),
    [
        ([0.5, 0.7], [28, 29], "mean 0.6000 over 2 other splits; trials 28 and 29 may be as good"),
        ([0.5], [28], "mean 0.5000 over 1 other split; trial 28 may be as good"),
        ([0.5, 0.6, 0.7], [], "mean 0.6000 over 3 other splits"),
    ],
)
def test_the_finals_say_who_may_be_as_good(values, as_good, told):
    assert _finals(SimpleNamespace(as_good=as_good), values) == [("finals", told)]


def test_without_a_rerun_there_were_no_finals():
    assert _finals(SimpleNamespace(as_good=[]), []) == []

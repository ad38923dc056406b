"""Where a study runs when it goes on."""

import pytest

from deepmine_auto.changing import Change
from deepmine_auto.errors import BadInput

BEFORE = {
    "executor": "ray",
    "gpus": 8,
    "gpus_per_trial": 0.5,
    "workers": None,
    "address": "10.0.0.1:6379",
    "insecure_cluster": True,
}


def test_a_study_goes_on_where_it_was_unless_something_is_said():
    assert Change(trials=9).on(BEFORE) == BEFORE
    assert Change(workers=2).on(BEFORE) == {**BEFORE, "workers": 2}


@pytest.mark.parametrize("given", [{"executor": "inline"}, {"executor": "ray"}, {"address": "10.0.0.2:6379"}])
def test_another_place_has_its_own_number_of_workers(given):
    elsewhere = {**BEFORE, "gpus": None, "gpus_per_trial": None, "address": None, "insecure_cluster": False}
    assert Change(**given).on(BEFORE) == {**elsewhere, **given}


def test_a_place_that_there_is_not_is_refused():
    with pytest.raises(BadInput, match=r"'inlin' is no executor\. Did you mean 'inline'"):
        Change(executor="inlin").on(BEFORE)
    with pytest.raises(BadInput, match=r"--workers is 0\. Give a larger number"):
        Change(workers=0).on(BEFORE)

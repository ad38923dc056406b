"""Under which names params stand in rows."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from deepmine_auto.space import Choice, Float, Int
from deepmine_auto.study.names import Names, distribution_of


def written_after(names, each):
    """Write a param with this range, and return the name that it has in the row."""
    now = distribution_of(each)
    name = names.written("x", now)
    names.note({name: now})
    return name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Choice("a", "b"), Choice("a", "b", "c")),
        (Choice("a", "b"), Choice("b", "a")),
        (Choice(False, True), Choice(0, 1)),
        (Int(1, 8), Int(1, 8, log=True)),
        (Int(0, 8), Int(0, 8, step=2)),
        (Float(1.0, 8.0), Float(1.0, 8.0, log=True)),
        (Float(1.0, 8.0), Float(1.0, 8.0, step=0.5)),
        (Int(1, 8), Float(1.0, 8.0)),
        (Int(1, 8), Choice(1, 8)),
    ],
)
def test_a_param_that_optuna_would_refuse_goes_on_under_the_next_name(before, after):
    names = Names()
    asked = [before, before, after, after, before, after]
    assert [written_after(names, each) for each in asked] == ["x", "x", "x@2", "x@2", "x", "x@2"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(Int(1, 8), Int(3, 99)), (Float(1e-4, 1.0, log=True), Float(1e-5, 2.0, log=True)), (Choice(1), Choice(1))],
)
def test_a_changed_range_keeps_its_name(before, after):
    names = Names()
    assert [written_after(names, each) for each in (before, after)] == ["x", "x"]


def test_a_third_set_of_choices_has_the_third_name():
    names = Names()
    assert [written_after(names, Choice(*range(n))) for n in (1, 2, 3, 2)] == ["x", "x@2", "x@3", "x@2"]


def test_optunas_own_storage_takes_these_names_and_refuses_the_plain_one():
    """Were it otherwise, there would be nothing to do here."""
    study = optuna.create_study(storage="sqlite:///:memory:")

    def write(name, each):
        distribution = distribution_of(each)
        row = create_trial(state=TrialState.RUNNING, params={name: each.options[0]}, distributions={name: distribution})
        study._storage.create_new_trial(study._study_id, row)

    write("x", Choice("a", "b"))
    write("x@2", Choice("a", "b", "c"))
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        write("x", Choice("a", "b", "c"))

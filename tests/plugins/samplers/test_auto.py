"""The sampler that chooses: which it chooses, and that it proposes what the chosen one proposes."""

import optuna
import pytest

from deepmine_plugins.samplers.auto import FEW, WIDEST, Auto, Seen, choice, seen_in
from deepmine_plugins.samplers.gp import Gp
from deepmine_plugins.samplers.tpe import Tpe


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        (Seen(0, 0, True), Tpe),
        (Seen(0, 1, True), Gp),
        (Seen(FEW - 1, WIDEST, True), Gp),
        (Seen(FEW, WIDEST, True), Tpe),
        (Seen(15, WIDEST + 1, True), Tpe),
        (Seen(15, 3, False), Tpe),
    ],
)
def test_the_choice_is_the_table_s(seen, chosen):
    assert choice(seen) is chosen


def numbers(trial):
    trial.suggest_int("training/epochs", 3, 3)
    return trial.suggest_float("lr", 1e-4, 1e-1, log=True) + trial.suggest_int("depth", 1, 6)


def options(trial):
    return numbers(trial) + len(trial.suggest_categorical("kind", ("a", "bb")))


def branches(trial):
    return numbers(trial) + (trial.suggest_float("a", 0, 1) if trial.params["depth"] > 3 else 0.0)


def filled(space, trials, objectives=1, sampler=None):
    """A study whose trials are each proposed by a sampler of its own, as the ledger does."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize", "maximize"][:objectives])
    for seed in range(trials):
        study.sampler = (sampler or Auto()).build(seed)
        trial = study.ask()
        value = space(trial)
        study.tell(trial, [value, value % 1][:objectives])
    return study


def asked(study, seed=99):
    study.sampler = Auto().build(seed)
    return study.ask()


@pytest.mark.parametrize(("space", "params", "plain"), [(numbers, 2, True), (options, 3, False), (branches, 3, False)])
def test_the_space_is_read_from_the_trials_and_a_param_of_one_value_is_none(space, params, plain):
    study = filled(space, 9)
    space(asked(study))  # one that runs, of which all params are known, and one that asks
    asked(study)
    assert seen_in(study, study.trials[-1]) == Seen(9, params, plain)


@pytest.mark.parametrize(("space", "chosen"), [(numbers, Gp()), (options, Tpe()), (branches, Tpe())])
@pytest.mark.parametrize("objectives", [1, 2])
def test_it_proposes_what_the_chosen_one_proposes(space, chosen, objectives):
    ours, theirs = (filled(space, 16, objectives, each).trials for each in (Auto(), chosen))
    assert [each.params for each in ours] == [each.params for each in theirs]
    assert {each.user_attrs["sampler"] for each in ours[4:]} == {chosen.name}


def test_nothing_but_the_choice_is_noted():
    trial = filled(options, 3).trials[-1]
    assert (trial.user_attrs, trial.system_attrs) == ({"sampler": "tpe"}, {})

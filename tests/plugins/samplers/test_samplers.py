"""What holds for every sampler: it keeps no state of its own, and it is silent."""

import warnings
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState

from deepmine_plugins.samplers import tpe
from deepmine_plugins.samplers.auto import Auto
from deepmine_plugins.samplers.gp import Gp
from deepmine_plugins.samplers.nsga2 import Nsga2
from deepmine_plugins.samplers.random import Random
from deepmine_plugins.samplers.tpe import Tpe

SAMPLERS = [Tpe(), Random(), Gp(), Nsga2(population_size=6), Auto()]

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda each: each.name)


def new_study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def propose(study, sampler, seed):
    """Draw from a conditional space, by a sampler that is built for this one trial, as the ledger does."""
    study.sampler = sampler.build(seed)
    trial = study.ask()
    kind = trial.suggest_categorical("attention/kind", ("multi_head", "linear", "broken"))
    trial.suggest_float("optimizer/lr", 1e-4, 1e-2, log=True)
    if kind == "linear":
        trial.suggest_float("attention/linear/sharpness", 0.0, 1.0)
    return trial


def fill(study, sampler, trials):
    """Propose and judge; what is broken is pruned with a constraint above zero, as the mirror shows failures."""
    for seed in range(trials):
        trial = propose(study, sampler, seed)
        if trial.params["attention/kind"] == "broken":
            trial.set_constraint("failed", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, -abs(trial.params["optimizer/lr"] - 1e-3))
    return study


@every_sampler
def test_after_a_restart_the_same_seed_and_rows_give_the_same_proposal(sampler):
    study, restarted = fill(new_study(), sampler, 14), new_study()
    restarted.add_trials(study.get_trials())
    for seed in (1, 2):  # the second sees the first one running
        assert propose(study, sampler, seed).params == propose(restarted, sampler, seed).params


@every_sampler
def test_another_seed_gives_another_proposal(sampler):
    study = fill(new_study(), sampler, 12)
    assert propose(study, sampler, 1).params != propose(study, sampler, 2).params


@every_sampler
def test_nothing_is_warned_of_or_logged_on_a_conditional_space(sampler, caplog, request):
    optuna.logging.enable_propagation()
    request.addfinalizer(optuna.logging.disable_propagation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fill(new_study(), sampler, 15)
    assert caplog.text == ""


def miss(study):
    """How far the second half of the trials is from the best learning rate, on average."""
    rates = [each.params["optimizer/lr"] for each in study.get_trials()]
    return sum(abs(each - 1e-3) for each in rates[len(rates) // 2 :]) / (len(rates) // 2)


@pytest.mark.parametrize(("sampler", "trials"), [(Tpe(), 60), (Gp(), 24), (Nsga2(population_size=10), 200)])
def test_a_guided_sampler_comes_closer_to_the_best_learning_rate_than_chance(sampler, trials):
    assert miss(fill(new_study(), sampler, trials)) < 0.7 * miss(fill(new_study(), Random(), trials))


@pytest.mark.parametrize(("sampler", "trials"), [(Tpe(), 60), (Gp(), 24), (Nsga2(population_size=10), 200)])
def test_what_always_fails_is_proposed_less_often_than_by_chance(sampler, trials):
    kinds = [each.params["attention/kind"] for each in fill(new_study(), sampler, trials).get_trials()]
    later = kinds[len(kinds) // 2 :]
    assert later.count("broken") < 0.2 * len(later)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.COMPLETE], ids=lambda each: each.name)
def test_what_is_stopped_or_infeasible_counts_as_the_worst_for_gp(direction, state):
    study = optuna.create_study(direction=direction)
    sign = 1 if direction == "maximize" else -1
    for seed in range(20):
        trial = propose(study, Gp(n_startup_trials=8), seed)
        if trial.params["attention/kind"] == "broken":
            trial.set_constraint("failed", 1.0)
            study.tell(trial, sign if state is TrialState.COMPLETE else None, state=state)
        else:
            study.tell(trial, sign * trial.params["optimizer/lr"])
    assert [each.params["attention/kind"] for each in study.get_trials()[10:]].count("broken") <= 2


def test_a_generation_of_nsga2_has_as_many_complete_trials_as_its_population():
    study = fill(new_study(), Nsga2(population_size=5), 30)
    complete = study.get_trials(states=[TrialState.COMPLETE])
    generations = Counter(each.system_attrs["NSGAIISampler:generation"] for each in complete)
    assert len(generations) > 2
    assert set(list(generations.values())[:-1]) == {5}


@pytest.mark.parametrize("sampler", [Tpe(n_startup_trials=3), Gp(n_startup_trials=3)], ids=lambda each: each.name)
def test_the_first_trials_are_drawn_as_random_search_draws_them(sampler):
    study, chance = new_study(), new_study()
    fill(study, sampler, 5)
    fill(chance, Random(), 5)
    same = [ours.params == theirs.params for ours, theirs in zip(study.get_trials(), chance.get_trials(), strict=True)]
    assert same[:3] == [True] * 3
    assert not same[4]


def proposals_of(build, directions):
    """What it proposes one after the other, some of them pruned, infeasible or still running."""
    study = optuna.create_study(directions=directions)
    for number in range(24):
        trial = propose(study, build, number)
        if number % 7 == 6:
            continue
        if trial.params["attention/kind"] == "broken":
            trial.set_constraint("failed", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        elif len(directions) == 1 and number % 3 == 0:
            trial.report(trial.params["optimizer/lr"], number % 5)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [trial.params["optimizer/lr"] * at for at in range(1, len(directions) + 1)])
    return [each.params for each in study.get_trials()]


@pytest.mark.parametrize("directions", [["maximize"], ["minimize"], ["maximize", "minimize"]])
def test_tpe_sorts_the_trials_once_and_proposes_what_optuna_s_own_does(directions, monkeypatch):
    sortings = []
    split = tpe._split_trials
    monkeypatch.setattr(tpe, "_split_trials", lambda *given: sortings.append(1) or split(*given))

    class Own:
        def build(self, seed):
            return optuna.samplers.TPESampler(multivariate=True, seed=seed)

    assert proposals_of(Tpe(), directions) == proposals_of(Own(), directions)
    assert 0 < len(sortings) <= 24

"""A recorded study, replayed without training: what was decided comes out again, from an exported file alone."""

import json
import re
from dataclasses import dataclass, replace

import optuna
import pytest
from fakes import SPACE, Bomb, Desk, Killed, ending, quick
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmine_auto.audit import record
from deepmine_auto.audit.recording import from_json, to_json
from deepmine_auto.audit.replaying import replay
from deepmine_auto.messages import Reported
from deepmine_auto.objectives import Objective
from deepmine_auto.space import Choice, Float, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.known import ATTRIBUTE
from deepmine_auto.study.setting_aside import SET_ASIDE_AFTER
from deepmine_plugins.pruners.asha import Asha
from deepmine_plugins.samplers import auto
from deepmine_plugins.samplers.auto import Auto
from deepmine_plugins.samplers.nsga2 import Nsga2
from deepmine_plugins.samplers.random import Random
from deepmine_plugins.samplers.tpe import Tpe

EAGER = Tpe(n_startup_trials=3)
"""A sampler that soon looks at what it is told."""


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path, sampler=EAGER)


def given_spec(desk, study, trials=8):
    desk.store.reopen(study.id, {**study.spec, "budget": {"trials": trials}, "sampler": "tpe", "pruner": "asha"})
    return desk.store.study(study.name)


def recorded(desk, name="study"):
    """A study as its exported file has it."""
    return from_json(json.loads(json.dumps(to_json(record.read(desk.store, name)))))


def wrong(desk, name="study", **plugins):
    found = replay(recorded(desk, name), plugins.get("sampler", desk.sampler), plugins.get("pruner", desk.pruner))
    return {each.name: each.wrong for each in found if each.wrong}


def counted(desk, name="study"):
    return {each.name: each.counted for each in replay(recorded(desk, name), desk.sampler, desk.pruner)}


# -- the same plugins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [EAGER, Random(), Nsga2(population_size=3)])
def test_a_study_of_one_worker_is_replayed_exactly(tmp_path, sampler):
    desk = Desk(tmp_path, sampler=sampler)
    study = given_spec(desk, desk.begin(), 12)
    desk.work(study, Budget(trials=12))
    assert wrong(desk) == {}
    found = counted(desk)
    assert found["proposals"] == 12
    assert found["verdicts"] == len(desk.store.rows(tables.verdicts, study.id))


NUMBERS = Space((Param("optimizer/adamw/lr", Float(1e-4, 1e-1, log=True), {}),), {"optimizer/kind": "adamw"})
"""Nothing but a number is searched."""


def test_a_study_whose_sampler_chose_among_others_is_replayed_exactly_and_so_is_its_choice(tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "FEW", 12)
    desk = Desk(tmp_path, sampler=Auto())
    study = given_spec(desk, desk.begin(space=NUMBERS), 14)
    desk.work(study, Budget(trials=14))
    assert [each.user_attrs["sampler"] for each in desk.trials(study)] == ["tpe", *["gp"] * 11, *["tpe"] * 2]
    assert wrong(desk) == {}
    assert counted(desk)["proposals"] == 14
    monkeypatch.setattr(auto, "FEW", 13)
    (told,) = wrong(desk)["proposals"]
    assert re.match(r"trial 12 is proposed otherwise: .*sampler tpe is now gp", told)


def drive(agenda, choose, most=1000):
    """Work on an agenda with its slots, taking the messages of workers in the order that `choose` picks."""
    waiting = {}
    for _ in range(most):
        while len(agenda.running) < agenda.slots and (assignment := agenda.next()):
            waiting[assignment.key] = mixed(assignment)
        if not waiting:
            return
        key = choose(sorted(waiting))
        if not agenda.heard(key, next(waiting[key])):
            del waiting[key]


def mixed(assignment):
    """A training that now and then ends of something else."""
    blamed = {3: ("memory", {}), 5: ("plugin", {"plugin": "technique/ema", "reason": "no"}), 6: ("diverged", {})}
    if assignment.kind == "trial" and assignment.number % 7 in blamed:
        cause, more = blamed[assignment.number % 7]
        return ending(cause, after=assignment.number % 3, **more)(assignment, None)
    return quick(assignment, None)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_study_of_three_workers_killed_and_resumed_is_replayed_exactly(data, tmp_path_factory):
    """Which worker is heard next, and at which transaction the driver is killed, is hypothesis's to choose."""
    desk = Desk(tmp_path_factory.mktemp("several"), sampler=EAGER, fence=Bomb())
    study = given_spec(desk, desk.begin(), 10)
    for _ in range(40):
        desk.fence.left = data.draw(st.integers(5, 200))
        try:
            drive(desk.agenda(study, Budget(trials=10), slots=3), lambda keys: data.draw(st.sampled_from(keys)))
            break
        except Killed:
            desk.fence.left = None
        finally:
            desk.fence.left = None
    assert wrong(desk) == {}
    assert counted(desk)["proposals"] == len(desk.trials(study))


def test_a_sampler_knows_which_trials_had_ended_when_it_was_asked(desk):
    """The same rows, with the order of an end and a proposal told otherwise, are another story."""
    study = given_spec(desk, desk.begin(), 9)
    drive(desk.agenda(study, Budget(trials=9), slots=3), lambda keys: keys[0])
    whole = recorded(desk)
    assert wrong(desk) == {}
    for trial in whole.trials_by_number:
        trial.system_attrs[ATTRIBUTE]["running"] = []
    assert [each.name for each in replay(whole, EAGER, desk.pruner) if each.wrong] == ["proposals"]


WIDER = Space(
    (Param("attention/kind", Choice("good", "bad", "new"), {}), *SPACE.params[1:-1],
     Param("technique/word_dropout/use", Choice(False, True), {})),
    {"training/epochs": 3}, ({"attention/kind": "new", "optimizer/adamw/lr": 0.01},),
)  # fmt: skip
"""The space of the fakes with another attention, another technique, and a recipe."""


def test_a_study_whose_space_was_changed_and_that_began_warm_is_replayed_exactly(desk):
    study = given_spec(desk, desk.begin())
    for number in range(5):
        params = {"attention/kind": "bad", "model/kind": "other", "optimizer/adamw/lr": 0.001 * (1 + number)}
        row = {"number": number, "source": "earlier", "params": params | {"training/epochs": 3}, "rank": number / 5}
        desk.store.add(tables.evidence, study.id, row)
    desk.work(study, Budget(trials=6))
    reopened = {"reopened": len(desk.store.rows(tables.reruns, study.id)), "budget": {"trials": 14}}
    desk.free()
    desk.store.add(tables.spaces, study.id, {"since": 6, "name": "wider", "space": WIDER.to_json()})
    desk.store.reopen(study.id, {**study.spec, **reopened})
    desk.work(desk.store.study("study"), Budget(trials=14))
    assert "attention/kind@2" in desk.trials(study)[-1].params
    assert wrong(desk) == {}
    assert counted(desk)["proposals"] == 14


def bad_raises(assignment, host):
    """The quick training, but of one attention that raises."""
    bad = assignment.params["attention/kind"] == "bad"
    return (ending("plugin", after=0, plugin="attention/bad", reason="no") if bad else quick)(assignment, host)


def test_a_study_of_which_a_plugin_was_set_aside_and_then_mended_is_replayed_exactly(tmp_path):
    desk = Desk(tmp_path, sampler=Random())
    study = given_spec(desk, desk.begin(), 14)
    desk.work(study, Budget(trials=14), bad_raises)
    reopened = {"reopened": len(desk.store.rows(tables.reruns, study.id)), "budget": {"trials": 28}}
    mended = {"kind": "attention", "name": "bad", "since": 14, "distribution": "theirs", "version": "2", "hash": "new"}
    desk.free()
    desk.store.put(tables.plugins, study.id, mended)
    desk.store.reopen(study.id, {**study.spec, **reopened})
    desk.work(desk.store.study("study"), Budget(trials=28))
    bad = [each.number for each in desk.trials(study) if each.params["attention/kind"] == "bad"]
    assert sum(number < 14 for number in bad) == SET_ASIDE_AFTER < len(bad)
    assert wrong(desk) == {}
    assert counted(desk)["proposals"] == 28


def measured(assignment, host):
    """The quick training, with what its model costs; a wide one is over the limit."""
    latency = 10.0 if assignment.params.get("attention/good/width") == 4 else 1.0 + assignment.number / 100
    for message in quick(assignment, host):
        if isinstance(message, Reported):
            message = replace(message, metrics={"f": message.value, "latency_ms": latency})
        yield message


def test_a_study_of_several_objectives_with_a_limit_is_replayed_exactly(desk):
    objectives = [Objective("f", "maximize"), Objective("latency_ms", "minimize")]
    more = {"objectives": ["f", "latency_ms"], "limits": [["latency_ms", 1, 5.0]]}
    spec = {**desk.begin("other").spec, **more}
    (desk.folder / "study").mkdir()
    study = desk.store.create_study("study", objectives, str(desk.folder / "study"), spec)
    desk.work(given_spec(desk, study, 12), Budget(trials=12), measured)
    assert wrong(desk) == {}
    assert counted(desk)["proposals"] == 12


# -- what comes out otherwise ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished study; tests change what they read of it, and never its rows."""
    desk = Desk(tmp_path_factory.mktemp("searched"), sampler=EAGER)
    desk.work(given_spec(desk, desk.begin()), Budget(trials=8))
    return desk


def test_another_sampler_proposes_otherwise_and_every_trial_says_what(searched):
    found = wrong(searched, sampler=Random())
    assert found.keys() == {"proposals"}
    told = found["proposals"][0]
    assert re.match(r"trial \d is proposed otherwise: .* is now ", told)
    assert len(found["proposals"]) < 8, "the first ones are drawn at random by either"


def test_another_pruner_gives_other_verdicts(searched):
    assert wrong(searched, pruner=Asha(eta=2)).keys() == {"verdicts"}


class Following(optuna.samplers.RandomSampler):
    """Proposes a little less than the trial before has; once, at trial `strays`, something else."""

    def __init__(self, strays):
        super().__init__()
        self.strays = strays

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_independent(self, study, trial, name, distribution):
        if not isinstance(distribution, optuna.distributions.FloatDistribution):
            return distribution.choices[0]
        before = study.get_trials()[:-1]
        return 0.05 if trial.number == self.strays else 0.97 * before[-1].params[name] if before else 0.01


@dataclass(frozen=True)
class Follower(Random):
    strays: int = -1

    def build(self, seed):
        return Following(self.strays)


def test_a_proposal_that_came_out_otherwise_does_not_spoil_the_ones_after_it(tmp_path):
    desk = Desk(tmp_path, sampler=Follower())
    desk.work(given_spec(desk, desk.begin()), Budget(trials=8))
    (told,) = wrong(desk, sampler=Follower(strays=3))["proposals"]
    assert re.match(r"trial 3 is proposed otherwise: optimizer/adamw/lr .* is now \(0\.05, ", told)


def test_rows_of_the_first_schema_are_replayed_but_for_their_proposals(searched):
    whole = recorded(searched)
    for trial in whole.trials_by_number:
        del trial.system_attrs[ATTRIBUTE]
    found = {each.name: each for each in replay(whole, EAGER, searched.pruner)}
    assert found["proposals"].counted == 0
    assert found["verdicts"].counted > 0
    assert not [each for each in found.values() if each.wrong]


@dataclass(frozen=True)
class Broken(Random):
    def build(self, seed):
        raise RuntimeError("no idea")


def test_what_was_drawn_at_random_because_a_sampler_raised_is_drawn_again(tmp_path):
    desk = Desk(tmp_path, sampler=Broken())
    study = given_spec(desk, desk.begin())
    desk.work(study, Budget(trials=8))
    assert wrong(desk) == {}
    assert counted(desk)["proposals"] == 8


def test_what_was_drawn_because_a_clock_ran_out_is_not_made_again(searched):
    whole = recorded(searched)
    for trial in whole.trials_by_number[5:]:
        trial.user_attrs["sampler_error"] = "TimeoutError: no proposal within 30 s"
    found = {each.name: each for each in replay(whole, EAGER, searched.pruner)}
    assert found["proposals"].counted == 5

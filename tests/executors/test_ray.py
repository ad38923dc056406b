"""The same study on a real Ray. One Ray for the whole file; a cluster of logical GPUs for the last tests."""

import os
import sys
from pathlib import Path

import pytest
from fakes import Desk, plain_rows
from tiny_texts import PARAMS, kept

from deepmine_auto.errors import BadInput, DeepmineError, StudyHeld
from deepmine_auto.executors import inline
from deepmine_auto.host import the_host
from deepmine_auto.objectives import Objective
from deepmine_auto.space import Choice, Float, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_plugins.pruners.none import KeepAll

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ray_executor = pytest.importorskip("deepmine_auto.executors.ray")
import ray  # noqa: E402
from ray import cloudpickle  # noqa: E402

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file

SPACE = Space(
    (
        Param("optimizer/adamw/lr", Float(1e-4, 1e-2, log=True), {}),
        Param("model/depth", Choice(1, 2), {}),
        Param("technique/ema/use", Choice(False, True), {}),
    ),
    {name: value for name, value in PARAMS.items() if name not in ("optimizer/adamw/lr", "model/depth")}
    | {"training/epochs": 2},
)


@pytest.fixture(scope="module")
def local():
    with ray_executor.started(None, None):
        yield


def study_in(folder: Path, name: str, space: Space = SPACE):
    """A study on tiny texts, ready for real trainings."""
    desk = Desk(folder, pruner=KeepAll())
    kept(folder / "files")
    spec = {"task": "text_classification", "objective": "log_loss", "seed": 3, "space": space.to_json()}
    spec |= {"space_name": "s", "fingerprint": "0"}
    return desk, desk.store.create_study(name, [Objective("log_loss", "minimize")], str(folder / "files"), spec)


def agenda_of(desk, study, trials, slots):
    """An agenda without finals."""
    agenda = Agenda(desk.ledger(study), Budget(trials=trials), slots, lambda: 0.0)
    agenda._reruns_left = list
    return agenda


def on_ray(desk, study, trials, slots=1):
    """Run the trials on Ray."""
    agenda = agenda_of(desk, study, trials, slots)
    ray_executor.run(agenda, ray_executor.Resources(slots), lambda: None)
    assert agenda.done


def test_inline_and_ray_with_one_worker_give_the_same_rows(local, tmp_path):
    (tmp_path / "inline").mkdir()
    (tmp_path / "ray").mkdir()
    here, mine = study_in(tmp_path / "inline", "study")
    inline.run(agenda_of(here, mine, 4, 1), the_host(), lambda: None)
    there, its = study_in(tmp_path / "ray", "study")
    on_ray(there, its, 4)
    rows = plain_rows(here.trials(mine))
    assert len(rows) == 4
    assert plain_rows(there.trials(its)) == rows
    curves = [
        [
            (r["seq"], r["number"], r["step"], r["value"], r["metrics"])
            for r in desk.store.rows(tables.reports, study.id)
        ]
        for desk, study in ((here, mine), (there, its))
    ]
    assert curves[0] == curves[1]


class Counted(ray_executor.Worker):
    """A worker that leaves its process's number in the study's folder, at each assignment."""

    def reset_config(self, config):
        from deepmine_auto.messages import Assignment

        assignment = Assignment.from_json(config["assignment"])
        (Path(assignment.folder) / f"pid-{assignment.number}-{os.getpid()}").touch()
        return super().reset_config(config)


def workers_of(folder):
    """The processes that trained, by the number of each trial."""
    return [each.name.split("-")[2] for each in sorted(folder.glob("pid-*"))]


def test_actors_are_reused_and_a_failing_trial_costs_no_restart(local, tmp_path, monkeypatch):
    """heads 5 do not divide the dim: such a trial fails in the worker, and the worker goes on."""
    monkeypatch.setattr(ray_executor, "Worker", Counted)
    params = (Param("model/heads", Choice(2, 5), {}), Param("optimizer/adamw/lr", Float(1e-4, 1e-2, log=True), {}))
    fixed = {**SPACE.fixed, "model/depth": 1, "training/epochs": 1}
    fixed.pop("model/heads")
    recipes = ({"model/heads": 2}, {"model/heads": 5}, {"model/heads": 2}, {"model/heads": 5}, {"model/heads": 2})
    desk, study = study_in(tmp_path, "study", Space(params, fixed, recipes))
    on_ray(desk, study, 5)
    assert [each.state.name for each in desk.trials(study)] == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    reasons = [each.user_attrs.get("reason", "") for each in desk.trials(study)]
    assert all("5 heads do not divide dim 32" in reasons[at] for at in (1, 3))
    assert len(workers_of(tmp_path / "files")) == 5
    assert len(set(workers_of(tmp_path / "files"))) == 1


def test_two_slots_are_two_workers_for_all_trials(local, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_executor, "Worker", Counted)
    desk, study = study_in(tmp_path, "study")
    on_ray(desk, study, 6, slots=2)
    assert len(desk.trials(study)) == 6
    assert len(workers_of(tmp_path / "files")) == 6
    assert len(set(workers_of(tmp_path / "files"))) == 2


def test_too_few_gpus_are_refused_with_what_there_is_and_what_would_run(local):
    found = int(ray.cluster_resources().get("GPU", 0))
    what = rf"{found + 8} GPUs were asked for, and Ray reports {found}\."
    with pytest.raises(BadInput, match=rf"{what} .*deepmine-auto search --task sentiment"):
        ray_executor.resources_of(found + 8, None, None, "deepmine-auto search --task sentiment")


def test_without_gpus_there_is_a_worker_a_core(local):
    if ray.cluster_resources().get("GPU", 0):
        pytest.skip("there are GPUs")
    cores = int(ray.cluster_resources()["CPU"])
    assert ray_executor.resources_of(None, None, None, "x") == ray_executor.Resources(cores, 0.0)
    assert ray_executor.resources_of(None, None, 1, "x") == ray_executor.Resources(1, 0.0)


def test_a_study_that_must_end_ends_with_its_own_sentence(local, tmp_path):
    desk, study = study_in(tmp_path, "study", Space((), {**SPACE.fixed, "model/depth": 1, "optimizer/kind": "none"}))
    agenda = agenda_of(desk, study, 9, 1)
    with pytest.raises(DeepmineError, match="The last trials all failed: "):
        ray_executor.run(agenda, ray_executor.Resources(1), lambda: None)
    assert len(desk.trials(study)) == 5


def test_a_driver_that_was_taken_over_stops_and_writes_nothing(local, tmp_path):
    desk, study = study_in(tmp_path, "study")
    agenda = agenda_of(desk, study, 4, 1)
    other = Desk(tmp_path)
    taken = []

    def take_over():
        if not taken:
            taken.append(other.ledger(study))

    with pytest.raises(StudyHeld, match="Another process took this study over"):
        ray_executor.run(agenda, ray_executor.Resources(1), take_over)
    assert [each.state.name for each in other.trials(study)] == ["RUNNING"]


def test_more_gpus_a_trial_than_there_are_are_refused(local, monkeypatch):
    """Tune would wait for them for ever."""
    monkeypatch.setattr(ray_executor.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    with pytest.raises(BadInput, match=r"A trial on 2 GPUs never begins on 1\. Give --gpus-per-trial 1 or less"):
        ray_executor.resources_of(None, 2.0, None, "x")


@pytest.mark.parametrize(
    ("gpus", "share", "slots"), [(None, None, 8), (8, None, 8), (2, None, 2), (8, 0.5, 16), (8, 2.0, 4), (0, None, 4)]
)
def test_slots_follow_from_gpus_and_their_shares(monkeypatch, gpus, share, slots):
    monkeypatch.setattr(ray_executor.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 8.0})
    assert ray_executor.resources_of(gpus, share, None, "x").slots == slots
    assert ray_executor.resources_of(gpus, share, 1, "x").slots == 1


def test_a_local_ray_has_the_gpus_that_torch_reports_and_no_more(monkeypatch):
    """Ray would believe any number, and a search on eight GPUs that are not there would train on the CPU unseen."""
    given = {}
    monkeypatch.setattr(ray_executor.ray, "init", lambda **options: given.update(options))
    monkeypatch.setattr(ray_executor.ray, "shutdown", lambda: None)
    for there, asked, expected in [(0, None, 0), (0, 8, 0), (4, None, 4), (4, 2, 2), (4, 8, 4)]:
        monkeypatch.setattr(ray_executor.torch.cuda, "device_count", lambda there=there: there)
        with ray_executor.started(None, asked):
            assert given["num_gpus"] == expected


# -- a cluster of logical GPUs, after the local Ray has ended ----------------------------------------------------------


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    ray.shutdown()
    made = Cluster(initialize_head=True, head_node_args={"num_gpus": 8, "num_cpus": 2})
    yield made
    made.shutdown()


def test_eight_logical_gpus_of_a_cluster_are_eight_workers(cluster, tmp_path):
    with ray_executor.started(cluster.address, 8):
        resources = ray_executor.resources_of(8, None, None, "deepmine-auto search")
        assert (resources.slots, resources.gpus_per_trial) == (8, 1.0)
        with pytest.raises(BadInput, match=r"9 GPUs were asked for, and Ray reports 8\. This runs: .* --gpus 8"):
            ray_executor.resources_of(9, None, None, "deepmine-auto search")
        halves = ray_executor.resources_of(2, 1.0, None, "deepmine-auto search")
        desk, study = study_in(tmp_path, "study")
        agenda = agenda_of(desk, study, 3, halves.slots)
        ray_executor.run(agenda, halves, lambda: None)
        assert [each.state.name for each in desk.trials(study)] == ["COMPLETE"] * 3


def test_a_node_with_another_plugin_is_refused_before_the_first_trial(cluster):
    key = ("attention", "linear")
    cluster.add_node(num_cpus=1)
    with ray_executor.started(cluster.address, None):
        ray_executor.refuse_other_plugins({key: the_host().brought(*key).hash})
        with pytest.raises(BadInput, match=r"The attention 'linear' on node .* is not the driver's\. Install"):
            ray_executor.refuse_other_plugins({key: "another"})


def test_an_address_where_nothing_answers_is_refused():
    ray.shutdown()
    refused = pytest.raises(BadInput, match=r"There is no Ray cluster at '127\.0\.0\.1:1'\. Start one")
    with refused, ray_executor.started("127.0.0.1:1", None):
        pass

"""Existing clusters: who may join them, what their nodes must have in common, and what becomes of a node's trials."""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path

import pytest
from cluster import agenda_of, attempts, cluster, curves, results, study_in

from deepmine_auto.errors import BadInput, UnsafeEnvironment
from deepmine_auto.executors import inline
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment

pytestmark = [pytest.mark.ray, pytest.mark.slow]
import ray  # noqa: E402
from ray import cloudpickle  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from deepmine_auto.executors.ray import access, nodes, resources_of, run, running, started  # noqa: E402
from deepmine_auto.executors.ray.worker import Worker  # noqa: E402

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file

QUICK_TO_NOTICE = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
TOKEN = "a" * 64
KEY = ("attention", "linear")


@pytest.fixture(scope="module", autouse=True)
def _own_token(tmp_path_factory):
    """The clusters' token is none of the user's."""
    with pytest.MonkeyPatch.context() as patched:
        file = tmp_path_factory.mktemp("token") / "token"
        file.write_text(TOKEN)
        patched.setenv("RAY_AUTH_TOKEN_PATH", str(file))
        patched.delenv("RAY_AUTH_TOKEN", raising=False)
        yield


@pytest.fixture(scope="module")
def closed(_own_token):
    """A cluster of two nodes with nine logical GPUs that wants a token."""
    with cluster("token", num_cpus=2, num_gpus=8, _system_config=QUICK_TO_NOTICE) as made:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("DEEPMINE_AUTO_STORAGE", "a password")
            made.add_node(num_cpus=1, num_gpus=1)
        yield made


# -- who may join ----------------------------------------------------------------------------------------------------


def test_a_cluster_that_lets_anybody_in_is_refused_unless_it_is_asked_for():
    """Before and after it a local Ray runs: the mode of one session does not stick to the next."""
    with cluster("disabled", num_cpus=1) as made:
        with started(None, None):
            assert ray.get_runtime_context().gcs_address != made.address
        refused = pytest.raises(
            UnsafeEnvironment, match=r"at .* lets anybody in: .* or join it .* --insecure-cluster\."
        )
        with refused, started(made.address, None):
            pass
        with started(made.address, None, insecure=True):
            assert ray.get_runtime_context().gcs_address == made.address
            assert ray.get(ray.remote(lambda: os.environ["OMP_NUM_THREADS"]).remote()) == "1"
        with started(None, None):
            assert access._client(ray.get_runtime_context().gcs_address, "disabled") is None
    assert access.MODE not in os.environ


@pytest.mark.parametrize("places", [{"RAY_AUTH_TOKEN": "b" * 64}, {"RAY_AUTH_TOKEN_PATH": "/nowhere"}, {}])
def test_a_cluster_that_does_not_accept_our_token_is_refused_at_once(closed, places, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    refused = pytest.raises(BadInput, match=r"does not accept the token of this machine\. Put its token into ~/\.ray")
    with refused, started(closed.address, None):
        pass


def test_auto_is_the_cluster_that_runs_here(closed, monkeypatch):
    """Other tests have theirs at the same time, of which Ray would take any."""
    monkeypatch.setattr(ray._private.services, "find_gcs_addresses", functools.cache(lambda: {closed.address}))
    with started("auto", None):
        assert ray.get_runtime_context().gcs_address == closed.address


def test_workers_know_no_password_even_if_their_cluster_does(closed):
    (node,) = closed.worker_nodes
    with started(closed.address, None):
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        known = ray.remote(lambda: os.environ["DEEPMINE_AUTO_STORAGE"]).options(scheduling_strategy=there)
        assert ray.get(known.remote()) == ""


# -- logical GPUs ----------------------------------------------------------------------------------------------------


class Seen(Worker):
    """A worker that leaves its GPUs and its processes a trial in the study's folder."""

    def reset_config(self, config):
        assignment = Assignment.from_json(config["assignment"])
        gpus = len(ray.get_gpu_ids())
        (Path(assignment.folder) / f"seen-{assignment.number}-{gpus}-{assignment.processes}").touch()
        return super().reset_config(config)


def test_eight_logical_gpus_are_eight_workers(closed):
    with started(closed.address, 8):
        found = resources_of(8, None, None)
        assert (found.slots, found.gpus_per_trial) == (8, 1.0)
        assert resources_of(8, 0.25, None).slots == 32
        with pytest.raises(BadInput, match=r"10 GPUs were asked for, and Ray reports 9\. The same with --gpus 9 runs"):
            resources_of(10, None, None)


@pytest.mark.parametrize(("share", "trials", "gpus", "processes"), [(0.25, 2, 1, 1), (2.0, 1, 2, 2)])
def test_a_trial_has_its_share_of_gpus_and_a_process_for_each(
    closed, tmp_path, monkeypatch, share, trials, gpus, processes
):
    monkeypatch.setattr(running, "Worker", Seen)
    with started(closed.address, 8):
        desk, study = study_in(tmp_path)
        found = resources_of(8, share, trials)
        run(agenda_of(desk, study, trials, found.slots), found, lambda: None)
    assert [each.state.name for each in desk.trials(study)] == ["COMPLETE"] * trials
    seen = sorted(each.name for each in (tmp_path / "files").glob("seen-*"))
    assert seen == [f"seen-{number}-{gpus}-{processes}" for number in range(trials)]


# -- nodes -----------------------------------------------------------------------------------------------------------


def test_a_node_with_another_plugin_is_refused_before_the_first_trial(closed, tmp_path):
    with started(closed.address, None):
        nodes.refuse_unlike({KEY: the_host().brought(*KEY).hash}, tmp_path)
        with pytest.raises(BadInput, match=r"The attention 'linear' on node .* is not the driver's\. Install"):
            nodes.refuse_unlike({KEY: "another"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def blind(asked, file):
    """The answer of a node that has its own folder at the same place."""
    return nodes.Answer({KEY: "same"}, None)


def stale(asked, file):
    """The answer of a node that sees a copy of the folder, as it was before."""
    return nodes.Answer({KEY: "same"}, "older")


def bare(asked, file):
    """What happens on a node where we are not installed."""
    raise ModuleNotFoundError("No module named 'deepmine_auto'")


@pytest.mark.parametrize("answer", [blind, stale])
def test_a_node_that_does_not_see_the_folder_is_refused(closed, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(nodes, "answer", answer)
    with started(closed.address, None), pytest.raises(BadInput, match=rf"does not see {tmp_path}\. Give --output on"):
        nodes.refuse_unlike({KEY: "same"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_us_is_refused(closed, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "answer", bare)
    with started(closed.address, None):
        told = r"The node .* cannot run trials: .*No module named 'deepmine_auto'\. Install"
        with pytest.raises(BadInput, match=told):
            nodes.refuse_unlike({KEY: "same"}, tmp_path)


def test_a_search_asks_every_other_node_before_its_first_trial(closed, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "answer", blind)
    desk, study = study_in(tmp_path)
    with started(closed.address, None), pytest.raises(BadInput, match=r"does not see .*/files\. Give --output"):
        run(agenda_of(desk, study, 1), resources_of(None, None, 1), lambda: None)
    assert desk.trials(study) == []


class Placed(Worker):
    """A worker that leaves the node it is on in the study's folder."""

    def reset_config(self, config):
        self.folder = Path(Assignment.from_json(config["assignment"]).folder)
        (self.folder / f"node-{ray.get_runtime_context().get_node_id()}").touch()
        return super().reset_config(config)

    def step(self):
        time.sleep(0.5)  # so that no trial is over before the node is
        return super().step()


def test_trials_of_a_node_that_is_killed_go_on_elsewhere(closed, tmp_path, monkeypatch):
    """It is the last test on this cluster: one node less."""
    monkeypatch.setattr(running, "Worker", Placed)
    here, mine = study_in(tmp_path / "inline")
    inline.run(agenda_of(here, mine, 3), the_host(), lambda: None)
    (doomed,) = closed.worker_nodes
    killed = []

    def kill():
        if not killed and (tmp_path / "ray" / "files" / f"node-{doomed.node_id}").exists() and len(curves(*there)) > 1:
            killed.append(True)
            closed.remove_node(doomed, allow_graceful=False)

    with started(closed.address, 0):
        there = study_in(tmp_path / "ray")
        agenda = agenda_of(*there, 3, slots=3)
        run(agenda, resources_of(0, None, None), kill)
    assert killed
    lost = [number for number in range(3) if attempts(*there, number) == ["begun", "lost"]]
    assert len(lost) == 1
    assert [each.state.name for each in there[0].trials(there[1])] == ["COMPLETE"] * 3
    by_params = {str(row["params"]): row["values"] for row in results(here, mine)}
    first = results(*there)[0]
    assert by_params[str(first["params"])] == first["values"]

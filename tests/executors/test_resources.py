"""How many trials run at a time, and on what: counted node by node. No Ray is started."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.errors import BadInput
from deepmine_auto.executors import resources
from deepmine_auto.executors.ray import machines
from deepmine_auto.executors.ray.machines import resources_of
from deepmine_auto.executors.resources import Node, Resources, cores_here

EIGHT = [Node(4.0, 8)]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch):
    def have(*there: Node) -> None:
        monkeypatch.setattr(machines, "alive", lambda: list(there))

    return have


@pytest.mark.parametrize(
    ("gpus", "share", "slots"),
    [(None, None, 8), (8, None, 8), (2, None, 2), (8, 0.25, 32), (8, 0.5, 16), (8, 2.0, 4), (3, 2.0, 1), (0, None, 4)],
)
def test_slots_follow_from_gpus_and_their_shares(nodes, gpus, share, slots):
    nodes(*EIGHT)
    assert resources_of(gpus, share, None).slots == slots
    assert resources_of(gpus, share, 1).slots == 1


@pytest.mark.parametrize(("share", "a_gpu"), [(0.4, 2), (0.3, 3), (1 / 3, 3), (0.75, 1)])
def test_a_trial_on_a_share_of_a_gpu_keeps_to_one_gpu(nodes, share, a_gpu):
    nodes(*EIGHT)
    assert resources_of(8, share, None).slots == 8 * a_gpu


def test_a_trial_has_a_process_for_each_of_its_gpus():
    assert [Resources(1, share).processes for share in (0.0, 0.25, 1.0, 2.0, 8.0)] == [1, 1, 1, 2, 8]


def test_without_gpus_there_is_a_worker_a_core_of_every_node(nodes):
    nodes(Node(4.0, 0), Node(2.0, 0))
    assert resources_of(None, None, None) == Resources(6, 0.0, 1.0)
    assert resources_of(None, None, 1) == Resources(1, 0.0, 1.0)


def test_too_few_gpus_are_refused_with_what_there_is_and_what_would_run(nodes):
    nodes(*EIGHT)
    with pytest.raises(BadInput, match=r"9 GPUs were asked for, and Ray reports 8\. The same with --gpus 8 runs\.$"):
        resources_of(9, None, None)
    nodes(Node(4.0, 0))
    with pytest.raises(BadInput, match=r"1 GPUs were asked for, and Ray reports 0\. The same without --gpus runs"):
        resources_of(1, None, None)


def test_shares_that_never_begin_are_refused(nodes):
    """Tune would wait for them for ever."""
    nodes(Node(4.0, 1))
    with pytest.raises(BadInput, match=r"A trial on 2 GPUs never begins on 1\. Give --gpus-per-trial 1 or less"):
        resources_of(None, 2.0, None)
    nodes(Node(4.0, 2), Node(4.0, 2))
    with pytest.raises(BadInput, match=r"A trial on 4 GPUs never begins: no node has more than 2\. .* 2 or less"):
        resources_of(None, 4.0, None)
    with pytest.raises(BadInput, match=r"A trial cannot have 1\.5 GPUs\. Give a whole number, or a share of one"):
        resources_of(None, 1.5, None)


def test_a_share_of_gpus_is_refused_where_none_is_seen_unless_none_is_asked_for(nodes):
    nodes(Node(4.0, 0))
    with pytest.raises(BadInput, match=r"A trial on 0\.5 GPUs never begins: no GPU is seen\. Give --gpus 0 and it"):
        resources_of(None, 0.5, None)
    assert resources_of(0, 0.5, None) == Resources(4, 0.0, 1.0)


def test_a_trial_does_not_span_two_nodes(nodes):
    nodes(Node(8.0, 3), Node(8.0, 3))
    assert resources_of(None, 2.0, None).slots == 2


def test_workers_share_the_cores_of_a_node_with_fewer_cores_than_gpus(nodes):
    nodes(Node(2.0, 8), Node(64.0, 0))
    assert resources_of(None, None, None) == Resources(8, 1.0, 0.25)


@given(
    st.lists(st.builds(Node, st.floats(1, 64), st.integers(0, 8)), min_size=1, max_size=4),
    st.sampled_from([None, 0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0, 4.0]),
)
def test_all_slots_fit_at_once(there, share):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(machines, "alive", lambda: there)
        try:
            found = resources_of(None, share, None)
        except BadInput:
            assert share > max(each.gpus for each in there)
            return
    assert sum(_most(each, found) for each in there) >= found.slots


def _most(node: Node, found: Resources) -> int:
    """How many trials Ray would place on a node: each whole on its CPUs, and on one GPU or on whole GPUs."""
    slack = 1e-6
    cpus = int(node.cpus / found.cpus_per_trial + slack)
    share = found.gpus_per_trial
    if not share:
        return cpus
    gpus = int(node.gpus / share) if share >= 1 else node.gpus * int(1 / share + slack)
    return min(cpus, gpus)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 6),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "900000 100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
    ],
)
def test_cores_are_those_that_this_process_is_bound_to_and_no_more_than_its_container_has(
    files, cores, tmp_path, monkeypatch
):
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(resources, "CONTROL_GROUP", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores_here() == cores

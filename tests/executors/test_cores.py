"""Workers keep to cores of their own, and a core is free again when its worker has ended."""

import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from deepmine_auto.disk import file_lock
from deepmine_auto.errors import BadInput
from deepmine_auto.executors import cores, ray
from deepmine_auto.executors.cores import cores_in_order, keep_to_cores
from deepmine_auto.executors.resources import Resources
from deepmine_auto.planning import request
from deepmine_auto.planning.request import check_workers
from deepmine_auto.searching import workers

pytestmark = pytest.mark.skipif(not cores.can_keep(), reason="this system binds no process to cores")

WORKER = """
import os, sys
from deepmine_auto.executors import cores
cores.CLAIMING_SECONDS = float(sys.argv[2])
cores.keep_to_cores(int(sys.argv[1]))
print(*sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def free():
    """The cores of this machine, of which one test at a time may claim some."""
    here = cores_in_order()
    if len(here) < 2:
        pytest.skip("one core cannot be shared out")
    with file_lock(Path(tempfile.gettempdir()) / "deepmine-auto-tests-of-cores"):
        for each in here:
            claim = cores._claim(each)
            if claim is None:
                pytest.skip("another study keeps to a core of this machine")
            claim.close()
        yield here


@pytest.fixture
def worker():
    """What starts a process that keeps to cores, and tells which it has."""
    started = []

    def start(count, seconds=0.0):
        arguments = [sys.executable, "-c", WORKER, str(count), str(seconds)]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, {int(each) for each in process.stdout.readline().split()}

    yield start
    for process in started:
        process.communicate()


def test_each_worker_has_a_core_of_its_own(free, worker):
    kept = [worker(1)[1] for _ in range(2)]
    assert [len(each) for each in kept] == [1, 1]
    assert kept[0].isdisjoint(kept[1])
    assert kept[0] == {free[0]}, "the first in order comes first"


def test_a_worker_of_several_processes_has_as_many_cores(free, worker):
    assert worker(2)[1] == set(free[:2])


def test_where_cores_are_missing_a_worker_runs_everywhere_and_claims_none(free, worker):
    worker(1)
    assert worker(len(free))[1] == set(free)
    assert len(worker(1)[1]) == 1, "it has not kept what it could not use"


def test_a_core_is_free_again_when_its_worker_was_killed(free, worker):
    first, kept = worker(len(free))
    assert kept == set(free)
    first.kill()
    first.wait()
    assert worker(len(free))[1] == set(free)
    claims = [cores._claim(each) for each in free]
    assert claims == [None] * len(free)


def test_a_worker_waits_for_the_one_whose_place_it_takes(free, worker, monkeypatch):
    first, _ = worker(len(free))
    bound = []
    monkeypatch.setattr(cores.os, "sched_setaffinity", lambda _, kept: bound.append(kept))
    monkeypatch.setattr(cores.time, "sleep", lambda _: first.communicate())
    monkeypatch.setattr(cores, "_held", [])
    keep_to_cores(1)
    assert bound == [{free[0]}]


def test_nobody_is_bound_who_was_not_asked_to_be(monkeypatch):
    monkeypatch.setattr(cores.os, "sched_setaffinity", lambda *_: pytest.fail("bound"))
    keep_to_cores(0)


@pytest.mark.parametrize("asked", [True, False])
def test_a_study_hands_on_whether_its_workers_keep_to_cores(monkeypatch, asked):
    ran = []
    monkeypatch.setattr(ray, "started", lambda *_: nullcontext())
    monkeypatch.setattr(ray, "resources_of", lambda *_: Resources(2, gpus_per_trial=3.0))
    monkeypatch.setattr(ray, "run", lambda _agenda, resources, _tick: ran.append(resources.cores))
    place = {"executor": "ray", "gpus": None, "gpus_per_trial": None, "workers": None, "address": None}
    with workers({**place, "pin_workers": asked}) as on:
        on.run(None, None, None)
    assert ran == [3 if asked else 0], "one a process"


def test_a_system_that_binds_nothing_is_told_with_the_plan(monkeypatch):
    monkeypatch.setattr(request, "can_keep", lambda: False)
    asked = {"executor": "ray", "gpus": None, "gpus_per_trial": None, "workers": None, "pin_workers": True}
    with pytest.raises(BadInput, match=r"This system cannot keep workers to cores\. Leave --pin-workers out"):
        check_workers({**asked, "address": None})
    check_workers({**asked, "address": "10.0.0.1:6379"})  # its nodes may be others


@pytest.mark.parametrize(
    ("told", "order"),
    [
        ({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, [0, 1, 2, 3]),
        ({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, [0, 2, 1, 3]),
        ({0: "", 1: "something"}, [0, 1, 2, 3]),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_the_threads_of_a_core_come_after_all_cores_have_one(tmp_path, monkeypatch, told, order):
    for core, siblings in told.items():
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {3, 2, 1, 0})
    assert cores_in_order() == order

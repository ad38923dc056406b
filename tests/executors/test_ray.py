"""The same study on a real Ray, undisturbed and disturbed. One Ray for the whole file."""

import os
import pickle
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
from cluster import SPACE, agenda_of, attempts, curves, marked, results, study_in, until

from deepmine_auto.disk import file_lock
from deepmine_auto.errors import DeepmineError, StudyHeld
from deepmine_auto.executors import inline
from deepmine_auto.executors.cores import cores_in_order
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment
from deepmine_auto.space import Choice, Float, Param, Space
from deepmine_auto.storage import tables
from deepmine_auto.study import hanging
from deepmine_auto.training.ends import BROKEN, guarded

pytestmark = [pytest.mark.ray, pytest.mark.slow]
import ray  # noqa: E402
import torch  # noqa: E402
from ray import cloudpickle, tune  # noqa: E402

from deepmine_auto.executors.ray import Resources, access, run, running, started  # noqa: E402
from deepmine_auto.executors.ray.feeding import LOW_ON_MEMORY  # noqa: E402
from deepmine_auto.executors.ray.worker import Worker  # noqa: E402

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file

CANARY = "canary-2718281828"
ONE = Resources(1)


@pytest.fixture(scope="module")
def local():
    """A local Ray, begun by a driver that knows a password."""
    os.environ["DEEPMINE_AUTO_STORAGE"] = f"postgresql://me:{CANARY}@host/db"
    try:
        with started(None, None):
            yield
    finally:
        del os.environ["DEEPMINE_AUTO_STORAGE"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Two trials of the study, trained in this process."""
    desk, study = study_in(tmp_path_factory.mktemp("inline"))
    inline.run(agenda_of(desk, study, 2), the_host(), lambda: None)
    return results(desk, study), curves(desk, study)


class Seen(Worker):
    """A worker that leaves its process's number in the study's folder, at each assignment."""

    def reset_config(self, config):
        self.assignment = Assignment.from_json(config["assignment"])
        self.note(f"pid-{self.assignment.number}-{os.getpid()}")
        return super().reset_config(config)

    def note(self, name):
        (Path(self.assignment.folder) / name).touch()


def pids(folder):
    """The processes that trained, in the order of the trials."""
    return [int(each.name.split("-")[2]) for each in sorted((folder / "files").glob("pid-*"))]


# -- the same study --------------------------------------------------------------------------------------------------


def test_inline_and_ray_with_one_worker_give_the_same_rows(local, tmp_path, undisturbed):
    desk, study = study_in(tmp_path)
    run(agenda_of(desk, study, 2), ONE, lambda: None)
    assert len(undisturbed[0]) == 2
    assert (results(desk, study), curves(desk, study)) == undisturbed


def test_actors_are_reused_and_a_failing_trial_costs_no_restart(local, tmp_path, monkeypatch):
    """heads 5 do not divide the dim: such a trial fails in the worker, and the worker goes on."""
    monkeypatch.setattr(running, "Worker", Seen)
    params = (Param("model/heads", Choice(2, 5), {}), Param("optimizer/adamw/lr", Float(1e-4, 1e-2, log=True), {}))
    fixed = {**SPACE.fixed, "model/depth": 1, "training/epochs": 1}
    fixed.pop("model/heads")
    recipes = ({"model/heads": 2}, {"model/heads": 5}, {"model/heads": 2}, {"model/heads": 5}, {"model/heads": 2})
    desk, study = study_in(tmp_path, Space(params, fixed, recipes))
    run(agenda_of(desk, study, 5), ONE, lambda: None)
    assert [each.state.name for each in desk.trials(study)] == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    reasons = [each.user_attrs.get("reason", "") for each in desk.trials(study)]
    assert all("5 heads do not divide dim 32" in reasons[at] for at in (1, 3))
    assert len(pids(tmp_path)) == 5
    assert len(set(pids(tmp_path))) == 1


class Mapping(Seen):
    """A worker that notes when it prepares data, and which prepared files its memory maps."""

    def reset_config(self, config):
        from deepmine_auto.training import prepared

        if not hasattr(prepared, "made"):
            prepared.made = prepared._make
        prepared._make = self.make
        return super().reset_config(config)

    def make(self, *args):
        from deepmine_auto.training import prepared

        self.note(f"made-{os.getpid()}")
        time.sleep(1.0)  # so that both would make it
        prepared.made(*args)

    def step(self):
        message = super().step()
        maps = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/prepared/" in line}
        (Path(self.assignment.folder) / f"maps-{os.getpid()}").write_text("\n".join(sorted(maps)))
        return message


def test_two_slots_are_two_workers_that_map_the_same_data_which_were_prepared_once(local, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "Worker", Mapping)
    desk, study = study_in(tmp_path)
    run(agenda_of(desk, study, 4, slots=2), Resources(2), lambda: None)
    assert len(desk.trials(study)) == 4
    assert len(pids(tmp_path)) == 4
    assert len(set(pids(tmp_path))) == 2
    maps = [each.read_text().splitlines() for each in (tmp_path / "files").glob("maps-*")]
    assert len(maps) == 2
    assert maps[0] == maps[1]
    assert [Path(each).name for each in maps[0]] == ["train.safetensors", "validation.safetensors"]
    assert len(list((tmp_path / "files").glob("made-*"))) == 1


def test_all_workers_are_renewed_after_so_many_trials_each(local, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "Worker", Seen)
    monkeypatch.setattr(running, "TRIALS_A_WORKER", 2)
    desk, study = study_in(tmp_path)
    run(agenda_of(desk, study, 3), ONE, lambda: None)
    assert len(desk.trials(study)) == 3
    first, second, third = pids(tmp_path)
    assert first == second != third


# -- disturbed -------------------------------------------------------------------------------------------------------


def disturbed(folder, disturb, worker=Seen, trials=2):
    """Run a study; after the second report, `disturb` is called once with the process that trains."""
    desk, study = study_in(folder)
    agenda, done = agenda_of(desk, study, trials), []

    def tick():
        if not done and len(curves(desk, study)) == 2:
            done.append(True)
            disturb(pids(folder)[-1])

    run(agenda, ONE, tick)
    assert done
    return desk, study


def test_a_killed_worker_costs_nothing_but_what_its_last_checkpoint_lacks(
    local, tmp_path, monkeypatch, undisturbed, capfd
):
    monkeypatch.setattr(running, "Worker", Seen)
    desk, study = disturbed(tmp_path, lambda pid: os.kill(pid, signal.SIGKILL))
    assert attempts(desk, study, 0) == ["begun", "lost"]
    assert results(desk, study) == undisturbed[0]
    assert dict_of(curves(desk, study)) == dict_of(undisturbed[1])
    assert capfd.readouterr() == ("", ""), "whoever looks on is told by the ledger, not by Ray"


class Broken(Seen):
    """A worker whose GPU breaks after the second report of the first that it ever trains."""

    def step(self):
        if len(list(Path(self.assignment.folder).glob("pid-*"))) == 1 and self.training_iteration == 2:
            self.messages = guarded(partial(self.fail, self.messages), self.assignment, the_host())
        return super().step()

    def fail(self, messages):
        messages.close()
        yield from ()
        raise RuntimeError("CUDA error: device-side assert triggered")


def test_a_worker_whose_gpu_broke_trains_no_more(local, tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(running, "Worker", Broken)
    desk, study = study_in(tmp_path)
    run(agenda_of(desk, study, 2), ONE, lambda: None)
    assert attempts(desk, study, 0) == ["begun", "lost"]
    assert len(set(pids(tmp_path))) == 2
    assert results(desk, study) == undisturbed[0]
    (told,) = [each["text"] for each in desk.store.rows(tables.events, study.id) if each["kind"] == "lost"]
    assert told == f"trial 0 lost its worker: {BROKEN}: CUDA error: device-side assert triggered."


@pytest.fixture
def low(monkeypatch):
    """A list; the next worker that is asked for something while it is not empty has been ended by Ray."""
    get, low = ray.get, []

    def get_unless_low(*args, **options):
        if low:
            low.clear()
            raise ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.")
        return get(*args, **options)

    monkeypatch.setattr(running, "Worker", Seen)
    monkeypatch.setattr(ray, "get", get_unless_low)
    return low


def test_a_worker_that_ray_ends_because_memory_runs_low_is_lost_alone(local, tmp_path, low, undisturbed):
    desk, study = study_in(tmp_path)
    agenda, done = agenda_of(desk, study, 2), []

    def tick():
        if not done and {number for _, number, *_ in curves(desk, study)} == {0, 1}:
            done.append(low.append(True))

    run(agenda, Resources(2), tick)
    assert sorted([attempts(desk, study, 0), attempts(desk, study, 1)]) == [["begun"], ["begun", "lost"]]
    assert results(desk, study) == undisturbed[0]


@pytest.mark.parametrize("known", [True, False])
def test_a_worker_that_ray_ends_because_memory_runs_low_is_lost_like_any_other(
    local, tmp_path, monkeypatch, low, undisturbed, known
):
    """Tune takes the error that Ray tells this by for one that cannot be."""
    if not known:
        monkeypatch.setattr(running, "_one_gone", nullcontext)
    desk, study = disturbed(tmp_path, low.append)
    assert attempts(desk, study, 0) == ["begun", "lost"]
    assert results(desk, study) == undisturbed[0]
    assert dict_of(curves(desk, study)) == dict_of(undisturbed[1])
    told = [each["text"] for each in desk.store.rows(tables.events, study.id) if each["kind"] == "lost"]
    assert told == [f"trial 0 lost its worker: {LOW_ON_MEMORY}"]


def dict_of(reports):
    """The value of each trial at each step. A report that was repeated must have had the same one."""
    found = {}
    for _, number, step, value in reports:
        assert found.setdefault((number, step), value) == value
    return found


def test_a_worker_that_is_told_to_go_saves_first_and_repeats_no_report(local, tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(running, "Worker", Seen)
    desk, study = disturbed(tmp_path, lambda pid: os.kill(pid, signal.SIGTERM))
    assert attempts(desk, study, 0) == ["begun", "preempted"]
    assert (results(desk, study), curves(desk, study)) == undisturbed
    assert len(set(pids(tmp_path))) == 2


class Sleeper(Seen):
    """A worker that falls asleep for ever after its second report, if it is the first attempt at trial 0."""

    def step(self):
        if self.iteration == 2 and self.assignment.key == ("trial", 0) and self.assignment.attempt == 1:
            self.note("asleep")
            time.sleep(1e6)
        return super().step()


def test_a_worker_that_hangs_is_ended_and_its_trial_goes_on_elsewhere(local, tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(running, "Worker", Sleeper)
    asleep = tmp_path / "files" / "asleep"

    def patience(key, standings, spoken):
        return 0.1 if asleep.exists() and len(standings[key].attempts) == 1 else 1e6

    monkeypatch.setattr(hanging, "patience", patience)
    desk, study = study_in(tmp_path)
    run(agenda_of(desk, study, 2), ONE, lambda: None)
    assert attempts(desk, study, 0) == ["begun", "hung"]
    assert results(desk, study) == undisturbed[0]
    hung = pids(tmp_path)[0]
    until(lambda: not Path(f"/proc/{hung}").exists(), "the process that hung has ended")


def test_a_study_that_must_end_ends_with_its_own_sentence(local, tmp_path):
    drawn = (Param("optimizer/none/lr", Float(1e-4, 1e-2, log=True), {}),)
    desk, study = study_in(tmp_path, Space(drawn, {**SPACE.fixed, "model/depth": 1, "optimizer/kind": "none"}))
    with pytest.raises(DeepmineError, match="The last trials all failed: "):
        run(agenda_of(desk, study, 9), ONE, lambda: None)
    assert len(desk.trials(study)) == 5


def test_a_driver_that_was_taken_over_stops_and_writes_nothing(local, tmp_path):
    desk, study = study_in(tmp_path)
    agenda = agenda_of(desk, study, 4)
    other = type(desk)(tmp_path)
    taken = []

    def take_over():
        if not taken:
            taken.append(other.ledger(study))

    with pytest.raises(StudyHeld, match="Another process took this study over"):
        run(agenda, ONE, take_over)
    assert [each.state.name for each in other.trials(study)] == ["RUNNING"]


# -- what is never read, and what is never written -------------------------------------------------------------------


class Poison:
    """Unpickled, it leaves a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_files_of_tune_are_neither_read_nor_left(local, tmp_path, monkeypatch):
    scratch = []
    stock = running._tuner
    monkeypatch.setattr(running, "_tuner", lambda *of: scratch.append(Path(of[2])) or stock(*of))
    desk, study = study_in(tmp_path)
    bitten = tmp_path / "bitten"
    for name in ("tuner.pkl", "trainable.pkl", "searcher-state-1.pkl", "experiment_state-1.json"):
        (tmp_path / "files" / name).write_bytes(pickle.dumps(Poison(bitten)))
    monkeypatch.setattr(tune.Tuner, "restore", lambda *_: pytest.fail("Tuner.restore was called"))
    run(agenda_of(desk, study, 1), ONE, lambda: None)
    assert len(scratch) == 1
    assert not scratch[0].exists()
    assert tmp_path not in scratch[0].parents
    assert not bitten.exists()
    pickle.loads((tmp_path / "files" / "tuner.pkl").read_bytes())
    assert bitten.exists()


def environment():
    """The environment of the process that runs this, as it is and as it began."""
    return dict(os.environ), Path("/proc/self/environ").read_bytes()


def test_a_worker_trains_on_one_thread(local):
    assert ray.get(ray.remote(lambda: torch.get_num_threads()).remote()) == 1


class Pinned(Seen):
    """A worker that leaves in the study's folder which cores it keeps to."""

    def reset_config(self, config):
        begun = super().reset_config(config)
        self.note(f"cores-{os.getpid()}-{'+'.join(map(str, sorted(os.sched_getaffinity(0))))}")
        return begun


@pytest.mark.skipif(len(cores_in_order()) < 2, reason="one core cannot be shared out")
@pytest.mark.parametrize("pinned", [True, False])
def test_each_worker_keeps_to_a_core_of_its_own_where_that_is_asked_for(local, tmp_path, monkeypatch, pinned):
    monkeypatch.setattr(running, "Worker", Pinned)
    desk, study = study_in(tmp_path)
    with file_lock(Path(tempfile.gettempdir()) / "deepmine-auto-tests-of-cores"):
        run(agenda_of(desk, study, 4), Resources(2, pinned=pinned), lambda: None)
    kept = dict(each.name.split("-")[1:] for each in (tmp_path / "files").glob("cores-*"))
    assert len(kept) == 2, "two workers"
    assert len(set(kept.values())) == (2 if pinned else 1)
    assert [("+" in each) for each in kept.values()] == [not pinned] * 2


class Sighted(Seen):
    """A worker that leaves in the study's folder which GPUs it sees."""

    def reset_config(self, config):
        begun = super().reset_config(config)
        self.note(f"sees-{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}")
        return begun


def test_a_worker_without_a_gpu_sees_none(local, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "Worker", Sighted)
    desk, study = study_in(tmp_path)
    run(agenda_of(desk, study, 1), ONE, lambda: None)
    assert [each.name for each in (tmp_path / "files").glob("sees-*")] == ["sees-"]


def test_workers_and_files_of_ray_hold_no_password(local, tmp_path):
    assert CANARY in os.environ["DEEPMINE_AUTO_STORAGE"]
    environment, whole = ray.get(
        ray.remote(lambda: (dict(os.environ), Path("/proc/self/environ").read_bytes())).remote()
    )
    assert not environment.get("DEEPMINE_AUTO_STORAGE")
    assert CANARY.encode() not in whole
    assert marked(CANARY) == [], "nor is it in the environment of anything else that Ray started"
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    files = [each for each in session.rglob("*") if each.is_file() and each.stat().st_size < 1 << 26]
    assert len(files) > 10
    assert [each for each in files if CANARY.encode() in each.read_bytes()] == []


def test_a_local_ray_lets_nobody_in_without_its_token(local):
    address = ray.get_runtime_context().gcs_address
    assert access._client(address, "disabled") is None
    assert access._client(address, "token") is not None

"""Several processes that share a trial's batches: what one would have done, and nothing is left of them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import originals
import pytest
import torch
from alike import CERTAIN, SGD, add_extra_losses, assert_alike, curve, last_weights
from tiny_texts import TECHNIQUES, assignment, kept

from deepmine_auto import DeepmineError
from deepmine_auto.contracts import Mixed
from deepmine_auto.host import the_host
from deepmine_auto.messages import Ended, Reported, Saved
from deepmine_auto.model.assemble import Model
from deepmine_auto.training import loop, parallel, team, trial
from deepmine_auto.training.ends import DeviceBroken
from deepmine_auto.training.team import ASKED, NEVER, Ranks, share

ODD = {**CERTAIN, **SGD, **TECHNIQUES, "training/batch": 3, "training/epochs": 1, "data/class_weights": True}
"""64 rows in batches of 3 and of 2: shares are uneven, and some batches have none for a rank."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def nothing_left():
    """No process of a trial outlives its messages, and no file."""
    yield
    assert multiprocessing.active_children() == []


def run(work):
    return list(trial.messages(work, the_host()))


def alone_and_together(folder, number, **changed):
    """The same trial by one process and by several."""
    one = assignment(folder, number=number, **{**changed, "processes": 1, "halvings": 0})
    return run(one), run(assignment(folder, number=number + 1, **changed))


# -- the same trial ----------------------------------------------------------------------------------------------------


def with_extra_losses(*args):
    """What a rank does, with models that have extra losses."""
    add_extra_losses(pytest.MonkeyPatch())
    parallel._work(*args)


def extra_losses(messages):
    return [each.metrics["loss/far"] for each in messages if isinstance(each, Reported)]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "halvings"), [(2, 0), (3, 1)])
def test_several_processes_give_the_curve_and_the_weights_of_one(folder, monkeypatch, processes, halvings):
    add_extra_losses(monkeypatch)
    monkeypatch.setattr(parallel, "_work", with_extra_losses)
    one, several = alone_and_together(folder, 10 * processes, processes=processes, halvings=halvings, params=ODD)
    assert len(curve(one)) == 5
    assert curve(several) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(one)]
    assert extra_losses(several) == pytest.approx(extra_losses(one), abs=1e-4)
    assert_alike(last_weights(several, folder), last_weights(one, folder))
    assert several[-1].cause == "budget"
    assert several[-1].facts["peak_mb"] < one[-1].facts["peak_mb"]


@pytest.mark.slow
def test_texts_side_by_side_teach_several_processes_what_they_teach_one(folder, tmp_path):
    model = {"model/kind": "pretrained", "model/pretrained/origin": str(originals.bert(tmp_path / "bert"))}
    params = {
        **model, **SGD, "model/pretrained/dropout": 0.0, "data/head_dropout": 0.0, "tuning/kind": "full",
        "data/tokens": "subword", "training/epochs": 1, "training/batch": 8,
    }  # fmt: skip
    one, several = alone_and_together(folder, 70, processes=2, params=params)
    apart = run(assignment(folder, number=72, params={**params, "model/pretrained/packing": False}))
    for each in (several, apart):
        assert curve(each) == [(step, pytest.approx(value, abs=1e-4)) for step, value in curve(one)]
        assert_alike(last_weights(each, folder), last_weights(one, folder))


def add_a_buffer(patch):
    """Let every model have a buffer that its gradients need."""
    build, plain = Model.__init__, Model.forward

    def init(self, *args):
        build(self, *args)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, *args, **options):
        mixed = plain(self, *args, **options)
        return mixed._replace(out=self.scale * mixed.out)

    patch.setattr(Model, "__init__", init)
    patch.setattr(Model, "forward", forward)


def with_buffers_of_their_own(text, place, *others):
    """What a rank does whose buffer is another one before each step, unless it leads."""
    add_a_buffer(pytest.MonkeyPatch())
    plain = loop.take_step

    def take_step(training, *batches):
        training.model.scale.fill_(1.0 + place.number)
        return plain(training, *batches)

    loop.take_step = take_step
    parallel._work(text, place, *others)


@pytest.mark.slow
def test_all_passes_of_a_step_are_made_with_the_leaders_buffers(folder, monkeypatch):
    add_a_buffer(monkeypatch)
    monkeypatch.setattr(parallel, "_work", with_buffers_of_their_own)
    one, several = alone_and_together(folder, 47, processes=2, params={**ODD, "technique/r_drop/use": True})
    assert len(curve(one)) == 5
    assert curve(several) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(one)]
    assert_alike(last_weights(several, folder), last_weights(one, folder))


def often_saved(*args):
    """What a rank does for which a checkpoint is always due."""
    for name in ("BEAT_SECONDS", "SECONDS_BETWEEN_CHECKPOINTS", "WRITING_SHARE"):
        setattr(loop, name, 0.0)
    parallel._work(*args)


@pytest.mark.slow
def test_what_several_left_one_goes_on_with_and_the_other_way_round(folder, monkeypatch):
    work = assignment(folder, number=40, params={**ODD, "training/epochs": 2})
    whole = run(work)
    monkeypatch.setattr(parallel, "asked_to_stop", lambda: True)
    (saved,) = run(replace(work, attempt=2, processes=2))
    assert isinstance(saved, Saved)
    assert saved.step == 2, "asked before they began, they stop after two steps"
    monkeypatch.undo()
    rest = run(replace(work, attempt=3, checkpoints=(saved.checkpoint,)))
    assert curve(rest) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(whole) if step > saved.step]

    middle = next(each for each in whole if each.checkpoint and each.step >= 16)
    rest = run(replace(work, attempt=4, processes=2, checkpoints=(middle.checkpoint,)))
    assert curve(rest) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(whole) if step > middle.step]
    assert_alike(last_weights(rest, folder), last_weights(whole, folder))


@pytest.mark.slow
def test_several_go_on_after_a_checkpoint_between_two_reports(folder, monkeypatch):
    monkeypatch.setattr(parallel, "_work", often_saved)
    found = list(trial.messages(assignment(folder, number=49, processes=2), the_host()))
    saved = [each for each in found if isinstance(each, Saved)]
    assert len(saved) > 1
    assert not any(each.leaves for each in saved)
    assert found[-1].cause == "budget"


@pytest.mark.slow
def test_what_follows_from_judgements_is_the_same_in_a_team_where_the_leader_alone_hears_them(folder):
    params = {**CERTAIN, **SGD, "training/epochs": 3, "technique/checkpoint_soup/use": True}
    one, several = alone_and_together(folder, 45, processes=2, params=params)
    assert curve(several) == [(step, pytest.approx(value, abs=1e-5)) for step, value in curve(one)]
    assert_alike(last_weights(several, folder), last_weights(one, folder))


@pytest.mark.slow
def test_with_dropout_several_processes_learn_too(folder):
    """Their masks are others than those of one, and others for each rank."""
    *reports, end = run(
        assignment(folder, number=50, processes=2, objective="macro_f1", params={"training/epochs": 12})
    )
    assert end.cause == "budget"
    assert max(each.value for each in reports if isinstance(each, Reported)) >= 0.85


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_rank_that_is_killed_ends_the_trial_and_is_named(folder, number):
    messages = trial.messages(assignment(folder, number=60 + number, processes=2), the_host())
    assert isinstance(next(messages), Reported)
    ranks = sorted(multiprocessing.active_children(), key=lambda each: each.pid)
    for each in ranks:  # these reach the whole process group of a worker that is to end: the worker decides
        os.kill(each.pid, signal.SIGTERM)
        os.kill(each.pid, signal.SIGINT)
    assert isinstance(next(messages), Reported)
    os.kill(ranks[number].pid, signal.SIGKILL)
    (end,) = messages
    assert (type(end), end.cause) == (Ended, "lost")
    assert end.reason == f"Rank {number} of 2 (process {ranks[number].pid}) was ended by SIGKILL."
    assert not any(each.is_alive() for each in ranks)


def out_of_memory_in_rank_1(text, place, *others):
    """What a rank does, where the second has too little memory after some steps."""
    plain = loop.take_step

    def take_step(training, *batches):
        if place.number == 1 and training.progress.step == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(training, *batches)

    loop.take_step = take_step
    parallel._work(text, place, *others)


@pytest.mark.slow
def test_what_goes_wrong_in_any_rank_ends_the_trial_with_its_own_cause(folder, monkeypatch):
    monkeypatch.setattr(parallel, "_work", out_of_memory_in_rank_1)
    report, end = run(assignment(folder, number=70, processes=2))
    assert (report.step, end.cause) == (2, "memory")
    assert "CUDA out of memory" in end.reason


def leaving(*args):
    """What a rank does that ends without a word."""
    os._exit(3)


def test_a_rank_that_ends_by_itself_is_named_too(folder, monkeypatch):
    monkeypatch.setattr(parallel, "_work", leaving)
    (end,) = run(assignment(folder, number=71, processes=2))
    assert end.cause == "lost"
    assert "ended with exit code 3." in end.reason


@pytest.mark.slow
def test_whoever_stops_listening_leaves_no_process_and_no_file(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    messages = trial.messages(assignment(folder, number=72, processes=2), the_host())
    assert isinstance(next(messages), Reported)
    assert any(each.name.startswith("deepmine-ranks-") for each in tmp_path.iterdir())
    ranks = multiprocessing.active_children()
    assert len(ranks) == 2
    messages.close()
    assert not any(each.is_alive() for each in ranks)
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("deepmine-ranks-")] == []


PARENT = """
import multiprocessing, sys, time
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment
from deepmine_auto.training import trial
messages = trial.messages(Assignment.from_json(sys.argv[1]), the_host())
next(messages)
print(*(each.pid for each in multiprocessing.active_children()), flush=True)
{after}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "hung"),
    [("time.sleep(600)", False), ("list(messages)", False), ("time.sleep(600)", True)],
    ids=["while they wait", "while they train", "while they hang"],
)
def test_ranks_die_with_their_parent(folder, after, hung):
    work = assignment(folder, number=73, processes=2, params={"training/epochs": 200})
    command = [sys.executable, "-c", PARENT.format(after=after), work.to_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        ranks = [int(each) for each in parent.stdout.readline().split()]
        assert len(ranks) == 2
        assert all(lives(each) for each in ranks)
        for each in ranks if hung else ():
            os.kill(each, signal.SIGSTOP)
        parent.kill()
    for _ in range(600):
        if not any(lives(each) for each in ranks):
            return
        time.sleep(0.1)
    left = [each for each in ranks if lives(each)]
    for each in left:
        os.kill(each, signal.SIGKILL)
    pytest.fail(f"still there: {left}")


def lives(pid):
    """Whether a process runs; one that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- the parts of it, without processes --------------------------------------------------------------------------------


def test_of_a_closed_pipe_nothing_is_heard():
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    assert parallel._received(ours) is None


def test_a_dead_rank_is_told_although_its_pipe_is_held_open(monkeypatch):
    looks = iter(range(3))
    monkeypatch.setattr(parallel, "asked_to_stop", lambda: next(looks) < 0)  # a parent that sees nothing looks on
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=os._exit, args=(3,))
    process.start()
    with ours, theirs:
        heard = parallel._hear([parallel.Rank(process, ours)], Shared())
    assert heard.reason == f"Rank 0 of 1 (process {process.pid}) ended with exit code 3."


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 21])
def test_shares_are_all_rows_once_and_differ_by_one_at_most(size, rows):
    shares = [share(rank, size, rows) for rank in range(size)]
    assert [row for each in shares for row in range(each.start, each.stop)] == list(range(rows))
    counts = [each.stop - each.start for each in shares]
    assert max(counts) - min(counts) <= 1


class Shared:
    value = NEVER


def test_ranks_that_are_asked_to_stop_stop_at_the_same_step_wherever_they_are():
    """The leader is asked between its steps 4 and 5; the other is a step behind it, or already waits in the next."""
    for others in ([4, 5, 6], [5, 6]):
        stop_at = Shared()
        leader, other = (Ranks(rank, 2, torch.device("cpu"), stop_at) for rank in (0, 1))
        assert not leader.stops_at(4)
        before = [other.stops_at(step) for step in others if step < 5]
        stop_at.value = ASKED
        early = other.stops_at(5)
        assert not leader.stops_at(5)
        assert not any([*before, early, other.stops_at(5), other.stops_at(6), leader.stops_at(6)])
        assert leader.stops_at(7)
        assert other.stops_at(7)


def test_ranks_that_stand_at_other_steps_do_not_begin(monkeypatch):
    monkeypatch.setattr(team.dist, "broadcast", lambda said, _: said.copy_(torch.tensor([12, 20])))
    rank = Ranks(1, 2, torch.device("cpu"), Shared())
    assert rank.agree(12, 0) == 20
    with pytest.raises(DeepmineError, match=r"Rank 1 goes on from step 0, and rank 0 from step 12.*same for all"):
        rank.agree(0, 0)


class Copy:
    """What torch makes of a model for several processes, in one."""

    def __init__(self, model, find_unused_parameters):
        self.model = model

    def register_comm_hook(self, state, hook):
        """There is nobody to speak to."""

    def __call__(self, *args):
        return self.model(*args)


def test_buffers_are_sent_before_the_first_pass_of_a_step_alone(monkeypatch):
    """Sent between two passes, they are written to while the graph of the first one needs them; some versions of torch
    then refuse to go back through it."""
    sent = []

    class Noted(Copy):
        def __call__(self, *args):
            sent.append(self.broadcast_buffers)
            return super().__call__(*args)

    monkeypatch.setattr(team, "DistributedDataParallel", Noted)
    monkeypatch.setattr(team.dist, "all_reduce", lambda whole: whole)
    rank = Ranks(0, 2, torch.device("cpu"), Shared())
    forward = rank.over(lambda tokens_BL, keep_BL: Mixed(tokens_BL))
    for step in range(2):
        rank.draw_for(5, step)
        for _ in range(3):
            forward(torch.ones(4, 2), torch.ones(4, 2) > 0)
    assert sent == [True, False, False] * 2


def test_a_rank_knows_the_extra_losses_of_the_batch_and_learns_by_its_part_of_them(monkeypatch):
    """The other rank has here what this one has."""
    monkeypatch.setattr(team, "DistributedDataParallel", Copy)
    monkeypatch.setattr(team.dist, "all_reduce", lambda whole: whole.mul_(2))
    weight = torch.ones((), requires_grad=True)

    def model(tokens_BL, keep_BL):
        return Mixed(tokens_BL, losses={"far": 3.0 * weight})

    forward = Ranks(0, 2, torch.device("cpu"), Shared()).over(model)
    loss = forward(torch.ones(4, 2), torch.ones(4, 2) > 0).losses["far"]
    loss.backward()
    assert (loss.item(), weight.grad.item()) == (3.0, 1.5)


def test_each_rank_but_the_leader_draws_anew_at_each_step():
    def drawn(rank, step):
        torch.manual_seed(9)
        Ranks(rank, 3, torch.device("cpu"), Shared()).draw_for(5, step)
        return torch.rand(1).item()

    leader = torch.rand(1, generator=torch.Generator().manual_seed(9)).item()
    assert drawn(0, 1) == drawn(0, 2) == leader
    assert drawn(1, 1) == drawn(1, 1)
    assert len({leader, drawn(1, 1), drawn(2, 1), drawn(1, 2), drawn(2, 2)}) == 5


def test_a_rank_whose_gpu_is_broken_says_so_and_who_is_to_blame():
    def messages():
        yield "first"
        raise DeviceBroken("CUDA error: an assert", "attention/mine")

    first, end = parallel._with_its_end(messages())
    assert (first, end.cause, end.plugin) == ("first", "plugin", "attention/mine")
    assert "an assert" in end.reason

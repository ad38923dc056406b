"""`distil` teaches the winner's params, compares that with the trial itself, and exports it under its own name."""

import math

import pytest
import torch
from click.testing import CliRunner
from forming_kit import openings
from optuna.trial import TrialState

import deepmine_auto
from deepmine_auto.commands.distil import distil
from deepmine_auto.data import kept
from deepmine_auto.ensemble import distilling
from deepmine_auto.ensemble.distilling import Lesson
from deepmine_auto.ensemble.selecting import NoBetter
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.exporting import study_in, winner_of
from deepmine_auto.host import the_host
from deepmine_auto.refitting import once_more
from deepmine_auto.study.history import History


def teach(study, folder, *, keep=True, **lesson):
    return distilling.distil("small", study.storage, Lesson(**lesson), folder, keep=keep)


@pytest.fixture(scope="module")
def taught(averaged_study, tmp_path_factory):
    before = len(openings(averaged_study))
    told = teach(averaged_study, tmp_path_factory.mktemp("taught") / "distilled")
    assert len(openings(averaged_study)) == before, "the test stays locked"
    return told


def test_the_bundle_scores_what_was_said_and_its_card_says_where_it_comes_from(averaged_study, taught):
    bundle = deepmine_auto.load(taught["folder"])
    rows = kept.rows_of(averaged_study.bundle.parent, kept.SEARCH, "validation")
    found = bundle.task.scores(bundle.outputs(rows.inputs), bundle.prepared.targets(rows))
    assert found["log_loss"] == pytest.approx(taught["value"], abs=1e-5)
    assert bundle.manifest["evidence"] is None
    card = (bundle.folder / "README.md").read_text()
    assert "taught by an ensemble of trials" in card
    assert "without a teacher; the locked test was not opened for these weights" in card
    assert taught["better"] == (taught["value"] < taught["own"])


def test_without_a_teacher_it_is_the_trial_itself_bit_for_bit(averaged_study, tmp_path, monkeypatch):
    monkeypatch.setattr(Lesson, "refuse_wrong", lambda _: None)
    told = teach(averaged_study, tmp_path / "same", alpha=0.0)
    assert told["value"] == told["own"]
    assert not told["better"]


def test_what_is_not_better_is_not_exported_unless_it_is_to_be_kept(averaged_study, tmp_path, monkeypatch):
    monkeypatch.setattr(Lesson, "refuse_wrong", lambda _: None)
    told = r"has log loss 0\.\d+ on the validation rows, and 0\.\d+ without a teacher\. Nothing was exported; --keep"
    with pytest.raises(NoBetter, match=told):
        teach(averaged_study, tmp_path / "none", keep=False, alpha=0.0)
    assert [*tmp_path.iterdir()] == []


class Stopped(History):
    """All trials were stopped when they had learned next to nothing."""

    def __init__(self, *args):
        super().__init__(*args)
        for each in self.trials.values():
            each.state = TrialState.PRUNED

    def best_values(self):
        return dict.fromkeys(self.trials, 9.9)


@pytest.mark.usefixtures("unverified")
def test_a_teacher_has_no_credit_for_the_steps_that_a_stopped_trial_did_not_take(averaged_study, tmp_path, monkeypatch):
    monkeypatch.setattr(Lesson, "refuse_wrong", lambda _: None)
    monkeypatch.setattr(distilling, "History", Stopped)
    told = teach(averaged_study, tmp_path / "whole", alpha=0.0)
    assert told["value"] == told["own"] < 9.9
    assert not told["better"]
    assert told["sentence"].endswith(f"{told['own']:.4f} without a teacher (the search stopped it at 9.9000)")
    assert not [*(averaged_study.bundle.parent / "checkpoints").glob("distilled-*")]


class Halved(History):
    """The batch of each trial did not fit at first."""

    def __init__(self, *args):
        super().__init__(*args)
        for each in self.standing.values():
            each.attempts.append({**each.attempts[-1], "halvings": 1})


def test_a_batch_that_did_not_fit_whole_is_taught_in_parts(averaged_study, monkeypatch):
    store, row = study_in(averaged_study.storage, "small")
    for kind, halvings in ((History, 0), (Halved, 1)):
        monkeypatch.setattr(once_more, "History", kind)
        trial = winner_of(row, store).trial
        assert once_more.assignment_of(row, store, trial, the_host(), "distilled").halvings == halvings


def test_a_training_that_raises_is_a_sentence(averaged_study, tmp_path, monkeypatch):
    def full(_training):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(distilling.Training, "messages", full)
    with pytest.raises(
        DeepmineError, match=r"The training with a teacher did not end well: .*OutOfMemoryError: CUDA out of memory\."
    ):
        teach(averaged_study, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_no_checkpoint_of_it_stays_behind(averaged_study, taught):
    assert not [*(averaged_study.bundle.parent / "checkpoints").glob("distilled-*")]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["smal"], r"'smal' is no study in .*\. Did you mean 'small'\?"),
        (["small", "--members", "1"], r"--members is 1, and an ensemble has two or more"),
        (["small", "--alpha", "0"], r"--alpha is 0\. Give a share above 0, and at most 1\."),
        (["small", "--alpha", "nan"], r"--alpha is nan\. Give a share"),
        (["small", "--temperature", "0"], r"--temperature is 0\. Give a number above 0\."),
        (["small", "--temperature", str(math.inf)], r"--temperature is inf\. Give a number"),
    ],
)
def test_what_cannot_be_taught_is_refused(averaged_study, tmp_path, args, told):
    where = ["--storage", str(averaged_study.storage), "--output", str(tmp_path / "none")]
    with pytest.raises(BadInput, match=told):
        CliRunner().invoke(distil, [*args, *where], catch_exceptions=False)
    assert not (tmp_path / "none").exists()

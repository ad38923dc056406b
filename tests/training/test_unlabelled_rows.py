"""Rows without labels in a training: each step brings some, however its batches are worked off."""

import pytest
import torch
from alike import CERTAIN, SGD, assert_goes_on, assert_learns_the_same
from tiny_texts import assignment, kept, rows

from deepmine_auto.host import the_host
from deepmine_auto.training import measure
from deepmine_auto.training.loop import Training
from deepmine_auto.training.step import OneStep, take_step

LOOSE = [each.rsplit(" ", 1)[0] for each in rows(140).inputs[80:]]
ON = {"technique/pseudo_labels/use": True, "technique/pseudo_labels/sure": 0.6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study", LOOSE)


def test_a_step_brings_rows_without_labels_and_each_of_them_once_an_epoch(folder):
    training = Training(assignment(folder, params=ON), the_host())
    batches = [training.draw()[1] for _ in range(4)]
    drawn = [
        tuple(row[keep].tolist()) for each in batches for row, keep in zip(each.tokens_BL, each.keep_BL, strict=True)
    ]
    assert len(drawn) == len(training.unlabelled) == 60
    known = {tuple(each) for each in training.prepared.encode(LOOSE)}
    assert {*drawn} == known


def test_without_a_file_no_step_brings_any(tmp_path):
    training = Training(assignment(kept(tmp_path / "study")), the_host())
    assert training.unlabelled is None
    assert training.draw()[1] is None


def test_where_nothing_learns_from_them_no_step_brings_any(folder):
    training = Training(assignment(folder), the_host())
    assert training.unlabelled is not None
    assert training.draw()[1] is None


@pytest.mark.parametrize(("params", "counts"), [({}, False), (ON, True)], ids=["not learned from", "learned from"])
def test_the_largest_batch_that_is_worked_off_may_be_one_of_them(tmp_path, params, counts):
    folder = kept(tmp_path / "study", [" ".join(LOOSE[:8])] * 40)
    training = Training(assignment(folder, params=params), the_host())
    longest = measure._longest(training).tokens_BL.shape[1]
    assert (longest > training.train.lengths.max()) == counts


def test_answers_are_those_of_a_prediction(folder):
    params = {**ON, "model/encoder/dropout": 0.5}
    training = Training(assignment(folder, params=params), the_host())
    training.model.train()
    step = OneStep(training, *training.draw())
    one, two = step.answers(step.unlabelled), step.answers(step.unlabelled)
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert all(each.training for each in training.model.modules()), "the training goes on with dropout"
    assert not torch.equal(step.outputs(step.unlabelled), step.outputs(step.unlabelled))


def test_it_changes_what_is_learned(folder):
    still = {**CERTAIN, **SGD}
    plain, with_labels = (Training(assignment(folder, params={**still, **each}), the_host()) for each in ({}, ON))
    for training in (plain, with_labels):
        for _ in range(8):
            take_step(training, *training.draw())
    weights = zip(plain.model.parameters(), with_labels.model.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in weights)


def test_interrupted_it_goes_on_bit_for_bit(folder, monkeypatch):
    assert_goes_on(assignment(folder, number=3, params=ON), monkeypatch)


def test_in_parts_it_learns_the_same(folder):
    work = assignment(folder, number=5, params={**CERTAIN, **SGD, **ON, "training/batch": 25})
    assert_learns_the_same(work, halvings=2)


@pytest.mark.slow
def test_several_processes_learn_the_same(folder):
    work = assignment(folder, number=7, params={**CERTAIN, **SGD, **ON, "training/batch": 25})
    assert_learns_the_same(work, processes=2)

"""Pseudo-labels: what is sure is learned, what is not is left; with a weight that rises."""

import pytest
import torch

from deepmine_auto.testing.technique import OneStep, TechniquePromises, Trial, batch_of, loss_of
from deepmine_plugins.techniques.pseudo_labels import RISE, PseudoLabels


class TestPseudoLabels(TechniquePromises):
    technique = PseudoLabels


def begun(technique):
    """A trial whose weight has risen as far as it will."""
    at_work = Trial(technique)
    at_work.applied.load_state_dict({"done": torch.tensor(100)})
    return at_work


def more(at_work, loose):
    step = OneStep(at_work, batch_of(0), loose)
    return at_work.applied.more_loss(step, step.outputs())


def test_the_model_s_sure_answers_are_learned_as_labels():
    at_work, loose = begun(PseudoLabels(weight=0.5, sure=0.34, share=0.05)), batch_of(7)
    at_work.applied._hidden = lambda batch: batch
    logits_BC = at_work.model(loose.tokens_BL, loose.keep_BL).out
    sure_B, label_B = logits_BC.softmax(-1).max(-1)
    loss_B = torch.stack([loss_of(row[None], label[None]) for row, label in zip(logits_BC, label_B, strict=True)])
    torch.testing.assert_close(more(at_work, loose), 0.5 * (loss_B * (sure_B >= 0.34)).mean())


def test_answers_that_are_not_sure_say_nothing():
    assert more(begun(PseudoLabels(sure=0.98)), batch_of(7)).item() == 0.0


def test_the_weight_rises_from_nothing():
    at_work = Trial(PseudoLabels(weight=0.5, sure=0.34))
    assert more(at_work, batch_of(7)).item() == 0.0
    risen = []
    for _ in range(8):
        at_work.applied.after_step(at_work.model)
        risen.append(at_work.applied._weight())
    assert risen == sorted(risen)
    assert risen[0] == pytest.approx(0.5 / (RISE * 8))
    assert risen[-1] == 0.5


def test_words_are_hidden_and_padding_is_not():
    at_work, loose = begun(PseudoLabels(share=0.4)), batch_of(7)
    hidden = torch.stack([at_work.applied._hidden(loose).tokens_BL == 1 for _ in range(200)]).float().mean(0)
    assert (hidden[~loose.keep_BL] == 0).all()
    assert hidden[loose.keep_BL].mean() == pytest.approx(0.4, abs=0.05)


def test_without_such_rows_it_adds_nothing():
    assert more(begun(PseudoLabels()), None) is None


def test_where_targets_are_no_classes_it_adds_nothing():
    at_work = begun(PseudoLabels())
    step = OneStep(at_work, batch_of(0)._replace(targets=torch.rand(4)), batch_of(7))
    assert at_work.applied.more_loss(step, step.outputs()) is None

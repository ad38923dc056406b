"""Paraphrases: a text is read in other words that there are for it, now and then, and every other text as it stands."""

from collections import Counter

import pytest
import torch

from deepmine_auto import BadInput, Batch
from deepmine_auto.testing.technique import PARAPHRASES, TechniquePromises, Trial, batch_of
from deepmine_plugins.techniques.paraphrases import Paraphrases


class TestParaphrases(TechniquePromises):
    technique = Paraphrases


def texts(batch):
    return [tuple(tokens[keep].tolist()) for tokens, keep in zip(batch.tokens_BL, batch.keep_BL, strict=True)]


def drawn(share, times=400):
    """What many draws of one batch read in the place of each of its texts."""
    at_work = Trial(Paraphrases(share=share))
    read = [texts(at_work.applied.on_batch(batch_of(1))) for _ in range(times)]
    return [Counter(each) for each in zip(*read, strict=True)]


def test_a_text_that_has_other_words_is_read_in_them_as_often_as_asked_for():
    given, (first, second, third, fourth) = texts(batch_of(1)), drawn(0.6)
    assert first.keys() == {given[0], (7, 8)}
    assert first[7, 8] / 400 == pytest.approx(0.6, abs=0.08)
    assert third.keys() == {given[2], *(tuple(each.tolist()) for each in PARAPHRASES[2])}
    assert third[(3,)] / 400 == pytest.approx(0.3, abs=0.08), "each of its paraphrases as often as the other"
    assert second.keys() == {given[1]}
    assert fourth.keys() == {given[3]}


def test_padding_is_as_long_as_the_longest_needs_and_nothing_is_read_there():
    at_work = Trial(Paraphrases(share=0.9))
    for step in range(20):
        changed = at_work.applied.on_batch(batch_of(step))
        assert changed.keep_BL.any(0).all()
        assert (changed.tokens_BL[~changed.keep_BL] == 0).all()
        assert (changed.tokens_BL[changed.keep_BL] > 0).all()


def test_targets_and_rows_stay():
    batch = batch_of(3)
    changed = Trial(Paraphrases(share=0.9)).applied.on_batch(batch)
    assert torch.equal(changed.targets, batch.targets)
    assert torch.equal(changed.rows_B, batch.rows_B)


def test_without_knowing_its_rows_a_batch_is_refused():
    with pytest.raises(BadInput, match=r"hides which rows a batch holds\. Search paraphrases without it"):
        Trial(Paraphrases()).applied.on_batch(Batch(*batch_of(0)[:3]))


class Away:
    """A tensor of a GPU, where each look at a row would be waited for; it counts how often it is fetched."""

    device, fetched = torch.device("cpu"), 0

    def __init__(self, tensor):
        self.tensor = tensor

    def cpu(self):
        self.fetched += 1
        return self.tensor


def test_a_batch_is_fetched_from_a_gpu_as_a_whole():
    batch = batch_of(1)
    away = batch._replace(tokens_BL=Away(batch.tokens_BL), keep_BL=Away(batch.keep_BL))
    changed = Trial(Paraphrases(share=0.5)).applied.on_batch(away)
    assert texts(changed) == texts(Trial(Paraphrases(share=0.5)).applied.on_batch(batch))
    assert (away.tokens_BL.fetched, away.keep_BL.fetched) == (1, 1)

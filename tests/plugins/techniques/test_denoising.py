"""Denoising learns to tell hidden words from the others at hand, and ends."""

import math

import originals
import pytest
import torch
from tiny_texts import rows

from deepmine_auto.contracts import Batch, TrainingFacts
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import build_model
from deepmine_auto.pretrained.files import original_of
from deepmine_auto.testing.technique import TechniquePromises
from deepmine_plugins.tasks.text_classification import OwnTexts
from deepmine_plugins.techniques.denoising import SHARPNESS, Denoising

STEPS = 10


class TestDenoising(TechniquePromises):
    technique = Denoising


def encoder():
    params = {"attention/kind": "multi_head", "model/kind": "encoder", "model/dim": 32, "model/depth": 1,
              "model/heads": 2, "model/encoder/dropout": 0.0}  # fmt: skip
    return OwnTexts(tokens="word").prepare(rows()), params


def pretrained(folder):
    params = {"attention/kind": "multi_head", "model/kind": "pretrained", "model/pretrained/origin": str(folder),
              "model/pretrained/dropout": 0.0, "tuning/kind": "full"}  # fmt: skip
    return OwnTexts().prepare_for(rows(), original_of(str(folder))), params


class Course:
    """A model with denoising beside it, and a batch of tiny texts."""

    def __init__(self, prepared, params, **denoising):
        torch.manual_seed(0)
        self.model = build_model(params, OwnTexts(), prepared, the_host()).train()
        ids = prepared.encode(rows().inputs[:16])
        length = max(map(len, ids))
        self.tokens_BL = torch.tensor([each + [0] * (length - len(each)) for each in ids])
        self.keep_BL = torch.arange(length) < torch.tensor([[len(each)] for each in ids])
        self.facts = TrainingFacts(self.model, prepared, STEPS, torch.Generator(), prepared.unknown, prepared.marks)
        self.applied = Denoising(**denoising).build(self.facts)

    def begin_task(self):
        """Read the first batch of the task."""
        self.applied.on_batch(Batch(self.tokens_BL, self.keep_BL, torch.zeros(len(self.tokens_BL))))
        return self

    def losses(self):
        return self.model(self.tokens_BL, self.keep_BL).losses


@pytest.fixture(params=["encoder", "pretrained"])
def course(request, tmp_path):
    made = encoder() if request.param == "encoder" else pretrained(originals.bert(tmp_path / "bert"))
    return lambda **denoising: Course(*made, **denoising)


def test_the_loss_is_that_of_telling_each_hidden_word_from_the_words_of_the_batch(course):
    at_work = course(share=0.3, weight=0.5).begin_task()
    (guess,), seen = at_work.model.companions, []
    at_work.model.backbone.register_forward_hook(lambda _, args, mixed: seen.append((args[0], mixed.out)))
    found = at_work.losses()["denoising"]
    ((read_BL, out_BLD),) = seen
    words = sorted({*at_work.tokens_BL.flatten().tolist()} - {0, at_work.facts.unknown, *at_work.facts.marks})
    known = torch.nn.functional.normalize(at_work.model.backbone.vectors(torch.tensor(words)), dim=-1)
    of_rows = []
    for row, hidden in enumerate(guess.hidden_BL):
        losses = []
        for at in hidden.nonzero()[:, 0].tolist():
            assert read_BL[row, at] == at_work.facts.unknown
            guessed = SHARPNESS * known @ torch.nn.functional.normalize(out_BLD[row, at], dim=-1)
            losses.append(-guessed.log_softmax(-1)[words.index(int(at_work.tokens_BL[row, at]))])
        of_rows.append(torch.stack(losses).mean() if losses else torch.zeros(()))
    assert 0 < guess.hidden_BL.sum() < at_work.keep_BL.sum()
    torch.testing.assert_close(found, 0.5 * torch.stack(of_rows).mean())


def test_padding_marks_and_what_stands_for_an_unknown_word_are_not_hidden(course):
    at_work = course(share=0.3)
    at_work.tokens_BL[0, 1] = at_work.facts.unknown  # as word dropout does, before a model reads a batch
    (guess,), no_words = at_work.model.companions, torch.tensor([at_work.facts.unknown, *at_work.facts.marks])
    hidden_BL = torch.zeros_like(at_work.keep_BL)
    for _ in range(50):
        at_work.losses()
        hidden_BL |= guess.hidden_BL
    assert (hidden_BL == at_work.keep_BL & ~torch.isin(at_work.tokens_BL, no_words)).all()
    assert not hidden_BL[0, 1]


def test_it_learns_which_words_were_hidden():
    at_work = Course(*encoder(), share=0.3, weight=1.0)
    optimizer = torch.optim.AdamW(at_work.model.parameters(), 1e-2)
    found = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = at_work.losses()["denoising"]
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert sum(found[-5:]) < 0.7 * sum(found[:5])


def test_it_fades_and_ends_and_judging_hides_nothing(course):
    at_work = course(weight=1.0, until=0.4)
    weights = []
    for _ in range(4):
        at_work.begin_task()
        weights.append(at_work.model.companions[0].weight)
        at_work.applied.after_step(at_work.model)
    assert weights == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert at_work.losses() == {}
    again = course(until=0.4)
    again.model.eval()
    assert again.losses() == {}
    again.applied.load_state_dict(at_work.applied.state_dict())
    assert not again.model.companions, "a training that goes on after its end has none"


def test_before_the_task_it_weighs_all_and_fades_after(course):
    at_work = course(weight=0.2, before=0.5)
    assert at_work.applied.before_task() == STEPS // 2
    assert at_work.model.companions[0].weight == 1.0
    again = course(weight=0.2, before=0.5)
    again.applied.load_state_dict(at_work.applied.state_dict())
    assert again.model.companions[0].weight == 1.0, "a training that goes on before its task"
    assert again.begin_task().model.companions[0].weight == 0.2
    assert course().applied.before_task() == 0


def test_a_batch_without_a_hidden_word_adds_nothing():
    at_work = Course(*encoder(), share=0.05)
    (guess,) = at_work.model.companions
    guess.share = 0.0
    loss = at_work.losses()["denoising"]
    assert loss.item() == 0.0
    loss.backward()
    assert all(math.isfinite(float(each.grad.sum())) for each in at_work.model.parameters() if each.grad is not None)


def test_a_batch_of_unknown_words_alone_adds_nothing():
    at_work = Course(*encoder(), share=0.3)
    at_work.tokens_BL[at_work.keep_BL] = at_work.facts.unknown
    assert at_work.losses()["denoising"].item() == 0.0


def test_a_backbone_without_vectors_of_words_is_left_alone():
    prepared, _ = encoder()
    facts = TrainingFacts(torch.nn.Linear(2, 2), prepared, STEPS, torch.Generator())
    assert Denoising().build(facts).state_dict() == {}


def electra(folder):
    """An ELECTRA, whose words have half the width of what it makes of them."""
    from transformers import ElectraConfig, ElectraModel

    sizes = {"embedding_size": 8, "max_position_embeddings": 64, **originals.SIZES}
    config = ElectraConfig(vocab_size=len(originals.WORDS), **sizes)
    return originals._saved(folder, ElectraModel, config, originals.word_pieces())


def test_a_backbone_whose_words_have_another_width_is_left_alone(tmp_path):
    at_work = Course(*pretrained(electra(tmp_path / "electra")))
    assert at_work.model.companions == []
    assert at_work.losses() == {}


def test_a_backbone_of_which_nothing_learns_is_left_alone_and_there_is_no_self_pretraining(tmp_path):
    prepared, params = pretrained(originals.bert(tmp_path / "bert"))
    at_work = Course(prepared, {**params, "tuning/kind": "top_layers", "tuning/top_layers/layers": 0}, before=0.5)
    assert at_work.model.companions == []
    assert at_work.applied.before_task() == 0
    some = Course(prepared, {**params, "tuning/kind": "top_layers", "tuning/top_layers/layers": 1}, before=0.5)
    assert some.applied.before_task() == STEPS // 2


def test_it_works_in_mixed_precision(course):
    at_work = course(share=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = at_work.losses()["denoising"]
    loss.backward()
    assert math.isfinite(loss.item())

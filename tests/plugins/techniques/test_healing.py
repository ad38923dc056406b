"""Healing brings a model with other attention nearer to what it was, and ends."""

import originals
import pytest
import torch
from begun import begun

from deepmine_auto.contracts import Applied, Companion, TrainingFacts
from deepmine_auto.pretrained.parts import blocks_of
from deepmine_auto.testing.technique import STEPS, TechniquePromises, Trial
from deepmine_auto.training.parts import InParts
from deepmine_plugins.techniques.healing import Healing

TEXTS = ["good day", "the cold road of my house", "we were happy with it, and the house was old"]
KINDS = {"bert": originals.bert, "t5": originals.t5, "llama": originals.llama}


class TestHealing(TechniquePromises):
    technique = Healing


class Plain:
    def build(self, facts):
        return Applied()


def test_a_model_that_nobody_operated_on_trains_as_ever():
    assert Trial(Healing()).train(range(STEPS)) == Trial(Plain()).train(range(STEPS))


class Patient:
    """A pretrained model with other attention, on its way through some steps."""

    def __init__(self, folder, kind="sigmoid", steps=10, **healing):
        self.prepared, self.model = begun(folder, **{"attention/kind": kind, "tuning/kind": "full"})
        self.model.train()
        ids = self.prepared.encode(TEXTS)
        length = max(map(len, ids))
        self.tokens_BL = torch.tensor([each + [0] * (length - len(each)) for each in ids])
        self.keep_BL = torch.arange(length) < torch.tensor([[len(each)] for each in ids])
        facts = TrainingFacts(self.model, self.prepared, steps, torch.Generator())
        self.healing = Healing(**healing).build(facts)

    def losses(self, parts=1):
        return InParts(self.model, parts)(self.tokens_BL, self.keep_BL).losses


def untouched(folder):
    return Patient(folder, kind="multi_head")


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_how_far_the_blocks_are_from_those_of_the_model_as_it_was(tmp_path, kind):
    folder = KINDS[kind](tmp_path / kind)
    said = []
    for each in (Patient(folder, weight=1.0), untouched(folder)):
        blocks = blocks_of(each.model.backbone.model)
        for block in blocks:
            block.register_forward_hook(lambda _, __, out: said.append(out))
        each.model.eval()(each.tokens_BL, each.keep_BL)
    patient = Patient(folder, weight=2.0)
    now, then = said[: len(said) // 2], said[len(said) // 2 :]
    expected = []
    for a, b in zip(now, then, strict=True):
        a, b = (each[0] if isinstance(each, tuple) else each for each in (a, b))
        for row, keep in enumerate(patient.keep_BL):
            expected.append((a[row][keep] - b[row][keep]).square().mean() / b[row][keep].var(correction=0))
    torch.testing.assert_close(patient.losses()["healing"], 2.0 * torch.stack(expected).mean())


def test_both_models_read_what_another_companion_made_of_the_text(tmp_path):
    patient, read = Patient(originals.bert(tmp_path / "bert")), []

    class Hides(Companion):
        def on_tokens(self, tokens_BL, keep_BL):
            return torch.ones_like(tokens_BL)

    patient.model.companions.insert(0, Hides())
    for each in (patient.model.backbone, patient.healing.healer.before):
        each.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    patient.losses()
    assert [bool((each == 1).all()) for each in read] == [True, True]


def test_it_is_the_same_in_parts(tmp_path):
    patient = Patient(originals.bert(tmp_path / "bert"))
    torch.testing.assert_close(patient.losses(2)["healing"], patient.losses()["healing"])


def test_training_on_it_alone_brings_the_model_nearer_to_what_it_was(tmp_path):
    patient = Patient(originals.bert(tmp_path / "bert"))
    with torch.no_grad():
        for name, each in patient.model.named_parameters():
            each.add_(5.0 if name.endswith("offset_H") else 0.0)  # a random model hardly attends, and so needs no cure
    optimizer = torch.optim.AdamW(patient.model.parameters(), 1e-3)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = patient.losses()["healing"]
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.5 * found[0]


def test_it_fades_and_ends_and_the_old_model_is_forgotten(tmp_path):
    patient = Patient(originals.bert(tmp_path / "bert"), steps=10, share=0.4, weight=1.0)
    weights = []
    for _ in range(4):
        weights.append(patient.healing.healer.weight)
        patient.healing.after_step(patient.model)
    assert weights == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert patient.healing.healer is None
    assert patient.losses() == {}


def test_judging_and_a_checkpoint_know_nothing_of_the_old_model(tmp_path):
    folder = originals.bert(tmp_path / "bert")
    patient = Patient(folder)
    assert {*patient.model.state_dict()} == {*Patient(folder).model.state_dict()}
    assert not [name for name in patient.model.state_dict() if "before" in name]
    patient.model.eval()
    assert patient.losses() == {}
    assert not patient.healing.healer.said.out, "what is judged is not kept"


def test_a_training_that_goes_on_heals_as_much_as_one_that_was_not_interrupted(tmp_path):
    folder = originals.bert(tmp_path / "bert")
    first, second = Patient(folder, share=0.5), Patient(folder, share=0.5)
    for _ in range(2):
        first.healing.after_step(first.model)
    second.healing.load_state_dict(first.healing.state_dict())
    assert second.healing.healer.weight == first.healing.healer.weight
    for _ in range(3):
        first.healing.after_step(first.model)
    second.healing.load_state_dict(first.healing.state_dict())
    assert second.healing.healer is None


def test_it_works_in_mixed_precision(tmp_path):
    patient = Patient(originals.bert(tmp_path / "bert"))
    with torch.autocast("cpu", torch.bfloat16):
        loss = patient.losses()["healing"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_what_it_holds_is_the_old_model_until_that_is_forgotten(tmp_path):
    patient = Patient(originals.bert(tmp_path / "bert"), steps=10, share=0.1)
    old = sum(each.numel() for each in patient.healing.healer.before.parameters())
    assert sum(each.numel() for each in patient.healing.holds()) == old + 1
    patient.healing.after_step(patient.model)
    assert [*patient.healing.holds()] == [1]

"""What every technique promises. Inherit it, name your class, and pytest runs the promises:

    class TestMyTechnique(TechniquePromises):
        technique = MyTechnique

Shapes: B batch, L length, D dim, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from deepmine_auto.contracts import Batch, Technique, Touches, TrainingFacts
from deepmine_auto.data.rows import Rows
from deepmine_auto.testing.drawing import drawn
from deepmine_auto.training import checkpoint

VOCABULARY, CLASSES, DIM = 12, 3, 4
STEPS = 8
PARAPHRASES = {0: (np.array([7, 8]),), 2: (np.array([3]), np.array([4, 5, 6, 7, 8, 9]))}
"""Other words for two of the four texts of a batch."""


def _vectors() -> np.ndarray:
    """A vector (V, 2) for each word, near that of one other; padding and the unknown word have none."""
    number_V = np.arange(VOCABULARY)
    angle_V = np.deg2rad(number_V // 2 * 60 + number_V % 2 * 5)
    return (np.stack((np.cos(angle_V), np.sin(angle_V)), 1) * (number_V > 1)[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Words:
    """The least that can be prepared: numbers that stand for words."""

    vocabulary: int = VOCABULARY
    outputs: int = CLASSES
    max_len: int = 64
    vectors_VE: np.ndarray | None = field(default_factory=_vectors)

    def encode(self, inputs: Sequence[Any]) -> list[list[int]]:
        """Return the inputs, which are token ids."""
        return [list(each) for each in inputs]

    def targets(self, rows: Rows) -> np.ndarray:
        """Return the labels, which are class numbers."""
        return np.array(rows.labels)

    def save(self, folder: Path) -> None:
        """There is nothing to keep."""


class Classifier(nn.Module):
    """A mean of word vectors, a frozen layer, one score a class; and a buffer of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.table = nn.Embedding(VOCABULARY, DIM, padding_idx=0)
            self.frozen = nn.Linear(DIM, DIM).requires_grad_(False)
            self.to_classes = nn.Linear(DIM, CLASSES)
        self.register_buffer("ids", torch.arange(VOCABULARY))

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor) -> Tensor:
        """Return logits (B, C)."""
        real_BL1 = keep_BL[..., None]
        mean_BD = (self.table(tokens_BL) * real_BL1).sum(1) / real_BL1.sum(1)
        logits_BC: Tensor = self.to_classes(self.frozen(mean_BD))
        return logits_BC


class Trial:
    """A technique at work: a model, and steps whose batches depend on the number of the step alone."""

    def __init__(self, technique: Technique) -> None:
        self.model = Classifier()
        self.generator = torch.Generator().manual_seed(0)
        facts = TrainingFacts(self.model, Words(), STEPS, self.generator, paraphrases=PARAPHRASES)
        self.applied = technique.build(facts)

    def train(self, steps: range) -> list[float]:
        """Take steps of plain gradient descent, with an evaluation after every second, and return their losses."""
        losses = []
        for step in steps:
            losses.append(self._step(batch_of(step)))
            if step % 2:
                self.judge()
        return losses

    def judge(self) -> None:
        """Score the weights that would be judged, on a batch that no step has, and tell the technique."""
        batch = batch_of(STEPS)
        with torch.inference_mode():
            outputs_BC = functional_call(self.model, self.weights(), (batch.tokens_BL, batch.keep_BL))
            score = -loss_of(outputs_BC, batch.targets).item()
        if math.isfinite(score):
            self.applied.judged(score)

    def _step(self, batch: Batch) -> float:
        step = OneStep(self, batch, batch._replace(targets=torch.zeros_like(batch.targets)))
        loss = step.whole_loss()
        self.model.zero_grad()
        step.backward(loss)
        self.applied.after_backward(step)
        with torch.no_grad():
            for each in self.model.parameters():
                if each.grad is not None:
                    each.sub_(0.1 * each.grad)
        self.applied.after_step(self.model)
        return loss.item()

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights that would be judged."""
        evaluated = self.applied.evaluated(self.model)
        return copied(self.model.state_dict() if evaluated is None else evaluated)


class OneStep:
    """A batch, and what a technique may do with it."""

    def __init__(self, trial: Trial, batch: Batch, unlabelled: Batch | None = None) -> None:
        self.trial, self.batch, self.unlabelled = trial, trial.applied.on_batch(batch), unlabelled

    def outputs(self, batch: Batch | None = None) -> Tensor:
        """Return logits (B, C)."""
        read = batch or self.batch
        outputs_BC: Tensor = self.trial.model(read.tokens_BL, read.keep_BL)
        return outputs_BC

    def answers(self, batch: Batch) -> Tensor:
        """Return logits (B, C) without gradient."""
        with torch.no_grad():
            return self.outputs(batch)

    def loss(self, outputs: Tensor) -> Tensor:
        """Return the task's loss, with what the technique makes of it."""
        return self.trial.applied.on_loss(loss_of(outputs, self.batch.targets), outputs, self.batch.targets)

    def backward(self, loss: Tensor) -> None:
        """Add gradients."""
        torch.autograd.backward(loss * self.trial.applied.scale())

    def gradients(self, loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """Return gradients."""
        return list(torch.autograd.grad(loss, list(weights), allow_unused=True))

    def whole_loss(self) -> Tensor:
        """Return the loss of a step, with what the technique adds to it."""
        outputs_BC = self.outputs()
        more = self.trial.applied.more_loss(self, outputs_BC)
        return self.loss(outputs_BC) + (0.0 if more is None else more)


class TechniquePromises:
    """Promises of a technique plugin with its default fields, unless a promise says otherwise."""

    technique: ClassVar[type[Technique]]

    @given(data=st.data())
    @settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
    def test_every_range_can_be_drawn_and_the_loss_stays_finite(self, data: st.DataObject) -> None:
        """Wherever the searched fields are drawn in their ranges."""
        plugin = data.draw(drawn(self.technique))
        losses = Trial(plugin).train(range(STEPS))
        assert np.isfinite(losses).all(), f"{plugin}: {losses}"

    def test_it_declares_what_it_touches(self) -> None:
        """`touches` names at least one of input, weights, loss and judged, and nothing else; none where all that is
        asked for is that batches are worked off in parts."""
        known = set(get_args(Touches))
        assert self.technique.touches or Trial(self.technique()).applied.parts() > 1, f"declare some of {known}"
        assert self.technique.touches <= known

    def test_parts_and_steps_before_the_task_are_whole_numbers_that_stay(self) -> None:
        """`parts` is 1 or more, `before_task` not negative, and both are the same whenever they are asked for."""
        trial = Trial(self.technique())
        first = trial.applied.parts(), trial.applied.before_task()
        trial.train(range(STEPS))
        assert all(isinstance(each, int) for each in first), first
        assert min(first[0] - 1, first[1]) >= 0, first
        assert first == (trial.applied.parts(), trial.applied.before_task())

    def test_the_input_is_touched_only_if_declared(self) -> None:
        """Without `input`, batches pass unchanged."""
        trial = Trial(self.technique())
        changed = [step for step in range(STEPS) if not same(trial.applied.on_batch(batch_of(step)), batch_of(step))]
        assert not changed or "input" in self.technique.touches

    def test_the_loss_is_touched_only_if_declared(self) -> None:
        """Without `loss`, the loss passes unchanged."""
        trial = Trial(self.technique())
        trial.applied.on_batch = lambda batch: batch  # type: ignore[method-assign]
        step = OneStep(trial, batch_of(0))
        changed = not torch.equal(step.whole_loss(), loss_of(step.outputs(), step.batch.targets))
        assert not changed or "loss" in self.technique.touches

    def test_the_gradients_are_touched_only_if_declared(self) -> None:
        """Without `loss` and `weights`, they are those of the loss; and the weights are what they were."""
        trial = Trial(self.technique())
        step = OneStep(trial, batch_of(0))
        step.backward(step.whole_loss())
        before = copied(gradients(trial.model))
        trial.applied.after_backward(step)
        assert same_tensors(gradients(trial.model), before) or self.technique.touches & {"loss", "weights"}
        assert same_weights(trial.model, Classifier()), "after_backward puts the weights back"

    def test_the_weights_are_touched_only_if_declared(self) -> None:
        """Without `weights`, the model stays as it is."""
        trial = Trial(self.technique())
        OneStep(trial, batch_of(0)).whole_loss()
        trial.applied.after_step(trial.model)
        assert same_weights(trial.model, Classifier()) or "weights" in self.technique.touches

    def test_the_model_s_own_weights_are_judged_unless_declared(self) -> None:
        """Without `judged`, so that a search never draws two techniques that would both judge others."""
        trial = Trial(self.technique())
        trial.train(range(STEPS))
        assert trial.applied.evaluated(trial.model) is None or "judged" in self.technique.touches

    def test_what_is_judged_changes_no_training(self) -> None:
        """Several workers train one model, and of them the leader alone judges."""
        told, untold = Trial(self.technique()), Trial(self.technique())
        untold.judge = lambda: None  # type: ignore[method-assign]
        assert told.train(range(STEPS)) == untold.train(range(STEPS))
        assert same_weights(told.model, untold.model)

    def test_what_was_judged_is_what_is_exported(self) -> None:
        """`judged` does not change what `evaluated` says before the next step, nor does a checkpoint in between."""
        trial, again = Trial(self.technique()), Trial(self.technique())
        for step in range(STEPS):
            trial.train(range(step, step + 1))
            before = trial.weights()
            trial.applied.judged(float(step % 3))
            again.model.load_state_dict(copied(trial.model.state_dict()))
            again.applied.load_state_dict(copied(trial.applied.state_dict()))
            assert same_tensors(trial.weights(), before)
            assert same_tensors(again.weights(), before)

    def test_padding_stays_padding_and_no_text_is_emptied(self) -> None:
        """Ids agree with `keep_BL`, and every text keeps a token."""
        trial = Trial(self.technique())
        for step in range(STEPS):
            tokens_BL, keep_BL, *_ = trial.applied.on_batch(batch_of(step))
            assert (tokens_BL[~keep_BL] == 0).all(), "padding has id 0"
            assert ((tokens_BL[keep_BL] > 0) & (tokens_BL[keep_BL] < VOCABULARY)).all(), (
                "a real token has an id in 1..V-1"
            )
            assert keep_BL.any(1).all(), "a text has a token"

    def test_the_batch_that_comes_in_is_not_written_to(self) -> None:
        """Batches may be views of the data, which every epoch reads again."""
        trial, batch = Trial(self.technique()), batch_of(0)
        trial.applied.on_batch(batch)
        assert same(batch, batch_of(0))

    def test_restored_in_the_middle_it_goes_on_bit_for_bit(self, tmp_path: Path) -> None:
        """All its state is in `state_dict`, as tensors; the host restores the model and the generator."""
        trial, again = Trial(self.technique()), Trial(self.technique())
        trial.train(range(STEPS // 2))
        model, generator = copied(trial.model.state_dict()), trial.generator.get_state()
        checkpoint.save(tmp_path / "middle", trial.applied.state_dict(), {})
        losses = trial.train(range(STEPS // 2, STEPS))

        again.model.load_state_dict(model)
        again.generator.set_state(generator)
        again.applied.load_state_dict(checkpoint.load(tmp_path / "middle")[0])
        assert again.train(range(STEPS // 2, STEPS)) == losses
        assert same_tensors(again.weights(), trial.weights())

    def test_chance_comes_from_the_generator_alone(self) -> None:
        """Other seeds of torch change nothing."""
        runs = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            trial = Trial(self.technique())
            runs.append((trial.train(range(STEPS)), trial.weights()))
        assert runs[0][0] == runs[1][0]
        assert same_tensors(runs[0][1], runs[1][1])

    def test_the_judged_weights_fit_the_model(self) -> None:
        """`evaluated` has the names, shapes and dtypes of the model's state dict, and is finite."""
        trial = Trial(self.technique())
        trial.train(range(STEPS))
        state, judged = trial.model.state_dict(), trial.weights()
        kinds = {name: (each.shape, each.dtype) for name, each in judged.items()}
        assert kinds == {name: (each.shape, each.dtype) for name, each in state.items()}
        assert all(each.isfinite().all() for each in judged.values())


def batch_of(step: int) -> Batch:
    """Four texts of 1 to 5 words; ids 2 to 11 are words."""
    generator = torch.Generator().manual_seed(step)
    lengths_B1 = torch.tensor([[1], [3], [4], [5]])
    keep_BL = torch.arange(5) < lengths_B1
    words_BL = torch.randint(2, VOCABULARY, keep_BL.shape, generator=generator)
    return Batch(words_BL * keep_BL, keep_BL, torch.randint(CLASSES, (4,), generator=generator), torch.arange(4))


def loss_of(outputs_BC: Tensor, targets_B: Tensor) -> Tensor:
    """The task's own loss."""
    return nn.functional.cross_entropy(outputs_BC, targets_B)


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal in all parts."""
    pairs = zip(one, other, strict=True)
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state dict."""
    return {name: each.clone() for name, each in state.items()}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients that there are, by name."""
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models hold the same weights, and freeze the same."""
    frozen = [{name: each.requires_grad for name, each in model.named_parameters()} for model in (one, other)]
    return frozen[0] == frozen[1] and same_tensors(one.state_dict(), other.state_dict())

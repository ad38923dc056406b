"""What every technique promises. Inherit it, name your class, and pytest runs the promises:

    class TestMyTechnique(TechniquePromises):
        technique = MyTechnique

Steps are the host's own, on a small model that is built as the host builds its models.

Shapes: B batch, L length, N rows.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import get_total_norm

from deepmine_auto.contracts import Applied, Technique, Touches
from deepmine_auto.testing.drawing import corners, drawn
from deepmine_auto.testing.technique_kit import (
    CLASSES,
    DIM,
    PARAPHRASES,
    STEPS,
    UNEVEN_N,
    VOCABULARY,
    Classifier,
    Trial,
    Watched,
    Words,
    batch_of,
    copied,
    gradients,
    loss_of,
    same,
    same_tensors,
    same_weights,
    sure,
)
from deepmine_auto.training import checkpoint
from deepmine_auto.training.step import OneStep

__all__ = [
    "CLASSES",
    "DIM",
    "PARAPHRASES",
    "STEPS",
    "VOCABULARY",
    "Classifier",
    "OneStep",
    "TechniquePromises",
    "Trial",
    "Words",
    "batch_of",
    "copied",
    "gradients",
    "loss_of",
    "same_tensors",
    "same_weights",
]

HOOKS = sorted(name for name in vars(Applied) if not name.startswith("_"))
SEEN_BY = {"weights": {"weights", "gradients"}, "loss": {"loss", "gradients"}}
"""How it shows that something is touched, where not under its own name alone."""


class TechniquePromises:
    """Promises of a technique plugin with its default fields, unless a promise says otherwise."""

    technique: ClassVar[type[Technique]]
    at_rest: ClassVar[str] = ""
    """Why it changes nothing here, where model or rows do not let it; where a test class says nothing, it should."""

    @given(data=st.data())
    @settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.differing_executors])
    def test_every_range_can_be_drawn_and_the_loss_stays_finite(self, data: st.DataObject) -> None:
        """Wherever the searched fields are drawn in their ranges."""
        plugin = data.draw(drawn(self.technique))
        trial = Trial(plugin)
        losses = trial.train(trial.whole)
        assert np.isfinite(losses).all(), f"{plugin}: {losses}"

    def test_where_each_token_has_an_answer_the_loss_stays_finite_too(self) -> None:
        """Targets are then (B, L or more), and -100 where nothing is asked."""
        if self.technique.one_answer:
            pytest.skip(f"{self.technique.name} is for rows of one answer alone")
        trial = Trial(self.technique(), Classifier(each_token=True))
        losses = trial.train(trial.whole)
        assert np.isfinite(losses).all(), losses

    # -- what it touches -----------------------------------------------------------------------------------------------

    def test_it_declares_what_it_touches(self) -> None:
        """`touches` names at least one of input, weights, loss and judged, and nothing else; none where all that is
        asked for is that batches are worked off in parts."""
        known = set(get_args(Touches))
        assert self.technique.touches or Trial(self.technique()).applied.parts() > 1, f"declare some of {known}"
        assert self.technique.touches <= known

    def test_what_it_declares_it_touches(self) -> None:
        """By its default fields or at an end of all ranges, on a model that is sure of its answers or on one that is
        not: what is declared and never touched may be a method that is never called."""
        self.needs_to_act()
        found: set[str] = set()
        for plugin in dict.fromkeys((self.technique(), *corners(self.technique))):
            for trial in (Watched(plugin), Watched(plugin, sure())):
                trial.train(trial.whole)
                found |= trial.touched
        missing = {each for each in self.technique.touches if not found & SEEN_BY.get(each, {each})}
        assert not missing, f"in {STEPS} steps it touches none of {', '.join(sorted(missing))}"

    def test_it_does_what_a_technique_is_asked_for(self) -> None:
        """What `build` returns has a method of `Applied`, or something is touched all the same: a method whose name is
        misspelt would never be called."""
        self.needs_to_act()
        kind = type(Trial(self.technique()).applied)
        own = [each for each in HOOKS if getattr(kind, each) is not getattr(Applied, each)]
        assert own or self.touched(), f"it has none of {', '.join(HOOKS)}"

    def needs_to_act(self) -> None:
        """Skip a promise that it does something where nothing here lets it."""
        why = "no attention of this model was replaced" if self.technique.heals else self.at_rest
        if why:
            pytest.skip(why)

    def touched(self) -> set[str]:
        """What a whole trial finds to be touched."""
        trial = Watched(self.technique())
        trial.train(trial.whole)
        return trial.touched

    def test_the_input_is_touched_only_if_declared(self) -> None:
        """Without `input`, batches and what the backbone reads of them pass unchanged, and rows are drawn alike."""
        trial = Trial(self.technique())
        changed = [step for step in range(STEPS) if not same(trial.applied.on_batch(batch_of(step)), batch_of(step))]
        assert not (changed or "input" in self.touched()) or "input" in self.technique.touches

    def test_the_loss_is_touched_only_if_declared(self) -> None:
        """Without `loss`, it is that of the same model without the technique, of what was read."""
        assert "loss" not in self.touched() or "loss" in self.technique.touches

    def test_the_gradients_are_touched_only_if_declared(self) -> None:
        """Without `loss` and `weights`, they are those of the loss; and the weights are what they were."""
        assert "gradients" not in self.touched() or self.technique.touches & {"loss", "weights"}
        trial = Watched(self.technique())
        trial.step(trial.before)
        begun, moving, *_ = trial.noted
        assert same_tensors(moving, begun), "after_backward puts the weights back"

    def test_the_weights_are_touched_only_if_declared(self) -> None:
        """Without `weights`, the model stays as it is, and all of it learns at one rate."""
        assert "weights" not in self.touched() or "weights" in self.technique.touches

    def test_the_model_s_own_weights_are_judged_unless_declared(self) -> None:
        """Without `judged`, so that a search never draws two techniques that would both judge others."""
        assert "judged" not in self.touched() or "judged" in self.technique.touches

    # -- what it says of itself ----------------------------------------------------------------------------------------

    def test_parts_and_steps_before_the_task_are_whole_numbers_that_stay(self) -> None:
        """`parts` is 1 or more, `before_task` not negative, and both are the same whenever they are asked for."""
        trial = Trial(self.technique())
        first = trial.applied.parts(), trial.applied.before_task()
        assert all(isinstance(each, int) for each in first), first
        assert min(first[0] - 1, first[1]) >= 0, first
        trial.train(trial.whole)
        assert first == (trial.applied.parts(), trial.applied.before_task())

    def test_the_memory_of_a_step_can_be_foretold(self) -> None:
        """`passes` is a whole number, 1 or more, and `holds` is no less than a checkpoint must hold, in every step."""
        trial = Trial(self.technique())
        for step in trial.whole:
            trial.step(step)
            passes, held = trial.applied.passes(), sum(map(nbytes, trial.applied.holds()))
            assert isinstance(passes, int), passes
            assert passes >= 1
            assert held >= sum(map(nbytes, trial.applied.state_dict().values()))

    def test_rates_are_numbers_for_weights_of_the_model(self) -> None:
        """`rates` has names of weights that there are, and finite numbers, none of them negative."""
        trial = Trial(self.technique())
        rates = trial.applied.rates(trial.model)
        assert rates.keys() <= dict(trial.model.named_parameters()).keys()
        assert all(0.0 <= each < math.inf for each in rates.values()), rates

    def test_odds_are_a_number_for_each_row(self) -> None:
        """Finite ones, none negative and not all zero; or None, where rows are drawn alike."""
        applied = Trial(self.technique()).applied
        answers = [UNEVEN_N] if self.technique.one_answer else [UNEVEN_N, np.stack((UNEVEN_N, UNEVEN_N), 1)]
        for odds_N in [odds for targets in answers if (odds := applied.odds(targets)) is not None]:
            assert odds_N.shape == (len(UNEVEN_N),)
            assert np.isfinite(odds_N).all(), odds_N
            assert 0.0 <= odds_N.min() <= odds_N.max() != 0.0, odds_N

    def test_what_it_scales_it_divides_again(self) -> None:
        """The gradients that move the weights are about as large as those of the loss, and not as it scaled them."""
        trial = Watched(self.technique())
        scale = trial.applied.scale()
        trial.step(trial.before)
        ours, plain = (get_total_norm(gradients(each).values()) for each in (trial.model, trial.untouched))
        assert scale == 1.0 or abs(math.log(ours / plain)) < abs(math.log(scale)) / 2, f"{scale} times as large"

    # -- batches, checkpoints, chance ----------------------------------------------------------------------------------

    def test_what_is_judged_changes_no_training(self) -> None:
        """Several workers train one model, and of them the leader alone judges."""
        told, untold = Trial(self.technique()), Trial(self.technique())
        untold.judge = lambda: None  # type: ignore[method-assign]
        assert told.train(told.whole) == untold.train(told.whole)
        assert same_weights(told.model, untold.model)

    def test_what_was_judged_is_what_is_exported(self) -> None:
        """`judged` does not change what `evaluated` says before the next step, nor does a checkpoint in between."""
        trial, again = Trial(self.technique()), Trial(self.technique())
        for step in trial.whole:
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
            for companion in trial.model.companions:
                tokens_BL = companion.on_tokens(tokens_BL, keep_BL)
            assert (tokens_BL[~keep_BL] == 0).all(), "padding has id 0"
            assert ((tokens_BL[keep_BL] > 0) & (tokens_BL[keep_BL] < VOCABULARY)).all(), (
                "a real token has an id in 1..V-1"
            )
            assert keep_BL.any(1).all(), "a text has a token"

    def test_the_batch_that_comes_in_is_not_written_to(self) -> None:
        """Batches may be views of the data, which every epoch reads again."""
        trial, batch = Trial(self.technique()), batch_of(0)
        changed = trial.applied.on_batch(batch)
        for companion in trial.model.companions:
            companion.on_tokens(changed.tokens_BL, changed.keep_BL)
        assert same(batch, batch_of(0))

    def test_restored_in_the_middle_it_goes_on_bit_for_bit(self, tmp_path: Path) -> None:
        """All its state is in `state_dict`, as tensors; the host restores the model and the generator."""
        trial, again = Trial(self.technique()), Trial(self.technique())
        middle = len(trial.whole) // 2
        trial.train(trial.whole[:middle])
        model, generator = copied(trial.model.state_dict()), trial.generator.get_state()
        checkpoint.save(tmp_path / "middle", trial.applied.state_dict(), {})
        losses = trial.train(trial.whole[middle:])

        again.model.load_state_dict(model)
        again.generator.set_state(generator)
        again.applied.load_state_dict(checkpoint.load(tmp_path / "middle")[0])
        assert again.train(trial.whole[middle:]) == losses
        assert same_tensors(again.weights(), trial.weights())

    def test_chance_comes_from_the_generator_alone(self) -> None:
        """Other seeds of torch change nothing, but for what companions draw."""
        runs = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            trial = Trial(self.technique())
            runs.append((trial.train(trial.whole), trial.weights()))
        assert runs[0][0] == runs[1][0]
        assert same_tensors(runs[0][1], runs[1][1])

    def test_the_judged_weights_fit_the_model(self) -> None:
        """`evaluated` has the names, shapes and dtypes of the model's state dict, and is finite."""
        trial = Trial(self.technique())
        trial.train(trial.whole)
        state, judged = trial.model.state_dict(), trial.weights()
        kinds = {name: (each.shape, each.dtype) for name, each in judged.items()}
        assert kinds == {name: (each.shape, each.dtype) for name, each in state.items()}
        assert all(each.isfinite().all() for each in judged.values())


def nbytes(tensor: Tensor) -> int:
    """The bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()

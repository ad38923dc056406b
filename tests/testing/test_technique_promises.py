"""Each promise has teeth: a technique that breaks it, and nothing but a promise that notices."""

import inspect
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import torch

from deepmine_auto import Applied, Float, Technique
from deepmine_auto.testing.technique import TechniquePromises


class Plain(Technique):
    """Changes nothing; the mutants below each do one wrong thing."""

    name: ClassVar[str] = "plain"
    source: ClassVar[str] = "a test"
    touches = frozenset({"input", "weights", "loss", "judged"})
    Work: ClassVar[type[Applied]] = Applied

    def build(self, facts):
        applied = type(self).Work()
        applied.facts = facts
        return applied

    def __init_subclass__(cls):
        dataclass(frozen=True, kw_only=True)(cls)


class Declares(Plain):
    """Nothing changed, everything declared."""


class DeclaresNothing(Plain):
    touches = frozenset()


class DeclaresNonsense(Plain):
    touches = frozenset({"mood"})


class AsksForPartsAlone(Plain):
    touches = frozenset()

    class Work(Applied):
        def parts(self):
            return 2


COUNTS = "parts_and_steps_before_the_task_are_whole_numbers_that_stay"


def counting(name, first, more=0):
    """A mutant that says `first` when asked how many, and with each step `more`."""

    class Work(Applied):
        steps = 0

        def after_step(self, model):
            self.steps += 1

    setattr(Work, name, lambda self: first + more * self.steps)
    return type("Counting", (Plain,), {"Work": Work})


class Explodes(Plain):
    strength: Annotated[float, Float(0.0, 1e38)] = 0.0

    def build(self, facts):
        applied = Applied()
        applied.on_loss = lambda loss, outputs, targets: loss * (1.0 + self.strength)
        return applied


class TouchesInputInSecret(Plain):
    touches = frozenset({"weights", "loss"})

    class Work(Applied):
        def on_batch(self, batch):
            return batch._replace(tokens_BL=batch.tokens_BL.clamp(max=5))


class TouchesLossInSecret(Plain):
    touches = frozenset({"weights", "input"})

    class Work(Applied):
        def on_loss(self, loss, outputs, targets):
            return 0.9 * loss


class TouchesWeightsInSecret(Plain):
    touches = frozenset({"input", "loss"})

    class Work(Applied):
        @torch.no_grad()
        def after_step(self, model):
            model.to_classes.weight *= 0.9


class FreezesInSecret(Plain):
    touches = frozenset({"input", "loss"})

    def build(self, facts):
        facts.model.to_classes.requires_grad_(False)
        return Applied()


class JudgesOthersInSecret(Plain):
    touches = frozenset({"input", "weights", "loss"})

    class Work(Applied):
        def evaluated(self, model):
            return model.state_dict()


class WritesOnPadding(Plain):
    class Work(Applied):
        def on_batch(self, batch):
            return batch._replace(tokens_BL=batch.tokens_BL.clamp(min=1))


class DropsToPadding(Plain):
    class Work(Applied):
        def on_batch(self, batch):
            return batch._replace(tokens_BL=batch.tokens_BL * (batch.tokens_BL > 4))


class EmptiesTexts(Plain):
    class Work(Applied):
        def on_batch(self, batch):
            keep_BL = batch.keep_BL & (batch.tokens_BL > 6)
            return batch._replace(tokens_BL=batch.tokens_BL * keep_BL, keep_BL=keep_BL)


class WritesIntoTheBatch(Plain):
    class Work(Applied):
        def on_batch(self, batch):
            batch.tokens_BL[batch.tokens_BL > 5] = 1
            return batch


class ForgetsItsState(Plain):
    class Work(Applied):
        step = 0

        def on_loss(self, loss, outputs, targets):
            return loss * (1 + 0.1 * self.step)

        def after_step(self, model):
            self.step += 1


class PlaysDice(Plain):
    class Work(Applied):
        def on_batch(self, batch):
            return batch._replace(
                tokens_BL=torch.where(torch.rand(5) < 0.5, batch.tokens_BL.clamp(max=3), batch.tokens_BL)
            )


class TrainsByWhatItHears(Plain):
    class Work(Applied):
        @torch.no_grad()
        def judged(self, score):
            self.facts.model.to_classes.weight *= 0.9


class ExportsOthersThanWereJudged(Plain):
    class Work(Applied):
        heard = 0.0

        def evaluated(self, model):
            return {**model.state_dict(), "to_classes.bias": model.to_classes.bias.detach() + self.heard}

        def judged(self, score):
            self.heard = score

        def after_step(self, model):
            self.heard = 0.0


class JudgesHalfAModel(Plain):
    class Work(Applied):
        def evaluated(self, model):
            return {"to_classes.weight": model.to_classes.weight}


class JudgesWhatIsNotANumber(Plain):
    class Work(Applied):
        def evaluated(self, model):
            return {**model.state_dict(), "to_classes.bias": torch.full((3,), torch.nan)}


def broken_promises(technique, folder):
    kit = type("TestKit", (TechniquePromises,), {"technique": technique})()
    broken = set()
    for name, promise in inspect.getmembers(kit, inspect.ismethod):
        try:
            promise(folder) if "tmp_path" in inspect.signature(promise).parameters else promise()
        except (AssertionError, RuntimeError):
            broken.add(name.removeprefix("test_"))
    return broken


@pytest.mark.parametrize("technique", [Declares, AsksForPartsAlone])
def test_a_technique_that_does_no_harm_breaks_no_promise(technique, tmp_path):
    assert broken_promises(technique, tmp_path) == set()


@pytest.mark.parametrize(
    ("mutant", "promise"),
    [
        (DeclaresNothing, "it_declares_what_it_touches"),
        (DeclaresNonsense, "it_declares_what_it_touches"),
        (counting("parts", 1.5), COUNTS),
        (counting("parts", 0), COUNTS),
        (counting("parts", 1, 1), COUNTS),
        (counting("before_task", 0.5), COUNTS),
        (counting("before_task", -1), COUNTS),
        (counting("before_task", 0, 1), COUNTS),
        (Explodes, "every_range_can_be_drawn_and_the_loss_stays_finite"),
        (TouchesInputInSecret, "the_input_is_touched_only_if_declared"),
        (TouchesLossInSecret, "the_loss_is_touched_only_if_declared"),
        (TouchesWeightsInSecret, "the_weights_are_touched_only_if_declared"),
        (FreezesInSecret, "the_weights_are_touched_only_if_declared"),
        (JudgesOthersInSecret, "the_model_s_own_weights_are_judged_unless_declared"),
        (WritesOnPadding, "padding_stays_padding_and_no_text_is_emptied"),
        (DropsToPadding, "padding_stays_padding_and_no_text_is_emptied"),
        (EmptiesTexts, "padding_stays_padding_and_no_text_is_emptied"),
        (WritesIntoTheBatch, "the_batch_that_comes_in_is_not_written_to"),
        (ForgetsItsState, "restored_in_the_middle_it_goes_on_bit_for_bit"),
        (PlaysDice, "chance_comes_from_the_generator_alone"),
        (TrainsByWhatItHears, "what_is_judged_changes_no_training"),
        (ExportsOthersThanWereJudged, "what_was_judged_is_what_is_exported"),
        (JudgesHalfAModel, "the_judged_weights_fit_the_model"),
        (JudgesWhatIsNotANumber, "the_judged_weights_fit_the_model"),
    ],
)
def test_a_mutant_breaks_the_promise_made_against_it(mutant, promise, tmp_path):
    assert promise in broken_promises(mutant, tmp_path)

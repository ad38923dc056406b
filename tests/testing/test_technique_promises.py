"""Each promise has teeth: a technique that breaks it, and nothing but a promise that notices."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from deepmine_auto import Applied, Companion, Float, Technique
from deepmine_auto.testing.checks import held, run
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


class DeclaresAll(Plain):
    """Nothing changed, everything declared."""


class DeclaresLoss(DeclaresAll):
    touches = frozenset({"loss"})


class MisspellsItsHook(Plain):
    touches = frozenset({"loss"})

    class Work(Applied):
        def on_losss(self, loss, outputs, targets):
            return 0.9 * loss


class MisspellsOneOfTwo(Plain):
    """It counts steps, and never does what it counts them for."""

    touches = frozenset({"loss"})

    class Work(MisspellsItsHook.Work):
        steps = 0

        def after_step(self, model):
            self.steps += 1


class Whispers(Companion):
    """A companion that reads every third word as the unknown one, and adds to the loss that words are long."""

    def __init__(self, model):
        self.backbone = model.backbone

    def on_tokens(self, tokens_BL, keep_BL):
        return tokens_BL.masked_fill(keep_BL & (torch.rand(tokens_BL.shape) < 0.3), 1)

    def losses(self, tokens_BL, keep_BL, out_BLD):
        return {"long": 0.1 * self.backbone.vectors(tokens_BL[keep_BL]).square().mean()}


class BringsACompanion(Plain):
    """As its contract says that one is put beside the model; with steps before those of the task."""

    touches = frozenset({"input", "loss"})

    class Work(Applied):
        def before_task(self):
            return 3

    def build(self, facts):
        facts.model.companions.append(Whispers(facts.model))
        return super().build(facts)


class BringsACompanionInSecret(BringsACompanion):
    touches = frozenset({"weights"})


class Scales(Plain):
    touches = frozenset({"loss"})

    class Work(Applied):
        def scale(self):
            return 1024.0

        def on_loss(self, loss, outputs, targets):
            return 2.0 * loss


class DividesAgain(Scales):
    class Work(Scales.Work):
        def after_backward(self, step):
            for each in self.facts.model.parameters():
                if each.grad is not None:
                    each.grad /= 1024.0


class PutsALayerIn(Plain):
    touches = frozenset({"weights"})

    def build(self, facts):
        facts.model.head.to_classes = nn.Sequential(nn.LayerNorm(4), facts.model.head.to_classes)
        return super().build(facts)


class PutsALayerInAndChangesTheLossInSecret(PutsALayerIn):
    class Work(Applied):
        def on_loss(self, loss, outputs, targets):
            return 0.9 * loss


class PutsALayerInInSecret(PutsALayerIn):
    touches = frozenset({"input", "loss"})


class TurnsGradientsInSecret(Plain):
    """The loss is what it was, and its gradients are not."""

    touches = frozenset({"input"})

    class Work(Applied):
        def on_loss(self, loss, outputs, targets):
            return 2.0 * loss.detach() - loss


class LeavesWeightsMoved(Plain):
    class Work(Applied):
        @torch.no_grad()
        def after_backward(self, step):
            self.facts.model.head.to_classes.weight += 0.1


class LooksAtRowsAlone(Plain):
    """It takes outputs for those of rows, and says nothing of tokens that have answers of their own."""

    touches = frozenset({"loss"})

    class Work(Applied):
        def on_loss(self, loss, outputs, targets):
            return loss + nn.functional.cross_entropy(outputs, targets)


class LooksAtRowsAloneAndSaysSo(LooksAtRowsAlone):
    one_answer = True


class SlowsInSecret(Plain):
    touches = frozenset({"loss"})

    class Work(Applied):
        def rates(self, model):
            return {"head.to_classes.weight": 0.5}


class SlowsBackwards(Plain):
    touches = frozenset({"weights"})

    class Work(Applied):
        def rates(self, model):
            return {"head.to_classes.weight": -0.5}


class DrawsInSecret(Plain):
    touches = frozenset({"loss"})

    class Work(Applied):
        def odds(self, targets):
            return np.ones(len(targets))


class DrawsNobody(Plain):
    class Work(Applied):
        def odds(self, targets):
            return np.zeros(len(targets))


class DrawsTokens(Plain):
    """It has odds for each answer, where there is one for each token."""

    class Work(Applied):
        def odds(self, targets):
            return np.ones(targets.shape)


class PassesUnseen(Plain):
    class Work(Applied):
        def passes(self):
            return 0


class HoldsUnseen(Plain):
    class Work(Applied):
        def state_dict(self):
            return {"kept": torch.zeros(5)}

        def holds(self):
            return []


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
            model.head.to_classes.weight *= 0.9


class FreezesInSecret(Plain):
    touches = frozenset({"input", "loss"})

    def build(self, facts):
        facts.model.head.to_classes.requires_grad_(False)
        return Applied()


class FreezesLaterInSecret(Plain):
    touches = frozenset({"input", "loss"})

    class Work(Applied):
        def after_step(self, model):
            model.head.to_classes.requires_grad_(False)


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
            self.facts.model.head.to_classes.weight *= 0.9


class ExportsOthersThanWereJudged(Plain):
    class Work(Applied):
        heard = 0.0

        def evaluated(self, model):
            return {**model.state_dict(), "head.to_classes.bias": model.head.to_classes.bias.detach() + self.heard}

        def judged(self, score):
            self.heard = score

        def after_step(self, model):
            self.heard = 0.0


class JudgesHalfAModel(Plain):
    class Work(Applied):
        def evaluated(self, model):
            return {"head.to_classes.weight": model.head.to_classes.weight}


class JudgesWhatIsNotANumber(Plain):
    class Work(Applied):
        def evaluated(self, model):
            return {**model.state_dict(), "head.to_classes.bias": torch.full((3,), torch.nan)}


NEVER_CALLED = {"what_it_declares_it_touches", "it_does_what_a_technique_is_asked_for"}


def kit_for(technique, **told):
    return type("TestKit", (TechniquePromises,), {"technique": technique, **told})


def broken_promises(technique, **told):
    return {each.promise.replace(" ", "_") for each in run(kit_for(technique, **told)) if each.ok is False}


def broken(technique, promise, **told):
    return held(promise, getattr(kit_for(technique, **told)(), f"test_{promise}")).ok is False


HARMLESS = [AsksForPartsAlone, BringsACompanion, DividesAgain, LooksAtRowsAloneAndSaysSo, PutsALayerIn]


@pytest.mark.parametrize("technique", HARMLESS)
def test_a_technique_that_does_no_harm_breaks_no_promise(technique):
    assert broken_promises(technique) == set()


@pytest.mark.parametrize("technique", [DeclaresAll, DeclaresLoss, MisspellsItsHook])
def test_a_technique_that_does_nothing_breaks_the_promises_that_it_does_something(technique):
    assert broken_promises(technique) == NEVER_CALLED


def test_a_technique_that_does_nothing_here_may_say_why():
    assert broken_promises(DeclaresAll, at_rest="its rows are longer") == set()


def test_that_it_is_at_rest_excuses_nothing_else():
    assert broken(TouchesLossInSecret, "the_loss_is_touched_only_if_declared", at_rest="its rows are longer")


def test_what_heals_does_nothing_to_a_model_that_nobody_operated_on():
    assert broken_promises(type("Heals", (DeclaresAll,), {"heals": True})) == set()


@pytest.mark.parametrize(
    ("mutant", "promise"),
    [
        (MisspellsOneOfTwo, "what_it_declares_it_touches"),
        (BringsACompanionInSecret, "the_input_is_touched_only_if_declared"),
        (BringsACompanionInSecret, "the_loss_is_touched_only_if_declared"),
        (PutsALayerInInSecret, "the_weights_are_touched_only_if_declared"),
        (PutsALayerInAndChangesTheLossInSecret, "the_loss_is_touched_only_if_declared"),
        (Scales, "what_it_scales_it_divides_again"),
        (TurnsGradientsInSecret, "the_gradients_are_touched_only_if_declared"),
        (LeavesWeightsMoved, "the_gradients_are_touched_only_if_declared"),
        (LooksAtRowsAlone, "where_each_token_has_an_answer_the_loss_stays_finite_too"),
        (SlowsInSecret, "the_weights_are_touched_only_if_declared"),
        (SlowsBackwards, "rates_are_numbers_for_weights_of_the_model"),
        (DrawsInSecret, "the_input_is_touched_only_if_declared"),
        (DrawsNobody, "odds_are_a_number_for_each_row"),
        (DrawsTokens, "odds_are_a_number_for_each_row"),
        (PassesUnseen, "the_memory_of_a_step_can_be_foretold"),
        (HoldsUnseen, "the_memory_of_a_step_can_be_foretold"),
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
        (FreezesLaterInSecret, "the_weights_are_touched_only_if_declared"),
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
def test_a_mutant_breaks_the_promise_made_against_it(mutant, promise):
    assert broken(mutant, promise)

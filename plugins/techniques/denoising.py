"""Denoising: the model learns to tell which words were hidden, before the task and beside it: it learns from texts, not
from labels alone.

Shapes: B batch, L length, D dim, P hidden tokens, U different tokens of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmine_auto import Applied, Batch, Choice, Companion, Fading, Float, Technique, TrainingFacts

SHARPNESS = 10.0
"""What cosines are multiplied by."""


@dataclass(frozen=True, kw_only=True)
class Denoising(Technique):
    """Hide `share` of the words, and learn by the cross entropy of telling each hidden word from the other words of the
    batch, by the cosine of the backbone's vector with what it knows of the word. First comes self-pretraining, which
    learns this alone, for `before` times as many steps as the task has. In these `weight` times it is added to the
    task's loss; it fades evenly, and is gone after `until` of them. What stands for unknown words, as where
    `word_dropout` put it, is not guessed. A backbone of which nothing learns, without vectors of words, or with ones of
    another width than its own, is left alone.
    """

    name: ClassVar[str] = "denoising"
    source: ClassVar[str] = "arXiv:2310.02980"
    touches = frozenset({"input", "loss"})

    share: Annotated[float, Float(0.05, 0.3)] = 0.15
    weight: Annotated[float, Float(0.05, 1.0, log=True)] = 0.3
    until: Annotated[float, Float(0.3, 1.0)] = 0.7
    before: Annotated[float, Choice(0.0, 0.5, 1.0, 2.0)] = 0.0

    def build(self, facts: TrainingFacts) -> Applied:
        """Put it beside the model."""
        return _Denoising(self, facts) if _can_learn(facts) else Applied()

    def work(self) -> float:
        """Return 1 and the steps before the task."""
        return 1.0 + self.before


def _can_learn(facts: TrainingFacts) -> bool:
    """Whether a backbone learns, and its vectors of words are as wide as those that it makes of a text."""
    backbone: Any = getattr(facts.model, "backbone", None)
    if not hasattr(backbone, "vectors") or not any(each.requires_grad for each in backbone.parameters()):
        return False
    token_1 = torch.tensor([facts.unknown], device=next(facts.model.parameters()).device)
    return bool(backbone.vectors(token_1).shape[-1] == backbone.dim)


class _Denoising(Fading):
    def __init__(self, chosen: Denoising, facts: TrainingFacts) -> None:
        super().__init__(chosen.until, facts.steps)
        model: Any = facts.model
        self.weight, self.companions = chosen.weight, model.companions
        self.first = round(chosen.before * facts.steps)
        self.guess = _Guess(chosen, facts)
        self.companions.append(self.guess)

    def before_task(self) -> int:
        """Return the steps of self-pretraining."""
        return self.first

    def on_batch(self, batch: Batch) -> Batch:
        """Weigh less than the task, and less from step to step."""
        self.guess.weight = self.left * self.weight
        return batch

    def fade(self, left: float) -> None:
        """Hide as ever; hide nothing in the end."""
        if not left and self.guess in self.companions:
            self.companions.remove(self.guess)


class _Guess(Companion):
    def __init__(self, chosen: Denoising, facts: TrainingFacts) -> None:
        self.share, self.weight, self.unknown = chosen.share, 1.0, facts.unknown
        model: Any = facts.model
        self.backbone = model.backbone
        self.no_words = torch.tensor([facts.unknown, *facts.marks])
        self.tokens_BL = self.words_BL = self.hidden_BL = torch.zeros(0)

    def on_tokens(self, tokens_BL: Tensor, keep_BL: Tensor) -> Tensor:
        """Hide some words, but nothing that stands for an unknown one already."""
        self.tokens_BL = tokens_BL
        self.words_BL = keep_BL & ~torch.isin(tokens_BL, self.no_words.to(tokens_BL.device))
        self.hidden_BL = (torch.rand(tokens_BL.shape, device=tokens_BL.device) < self.share) & self.words_BL
        return tokens_BL.masked_fill(self.hidden_BL, self.unknown)

    def losses(self, tokens_BL: Tensor, keep_BL: Tensor, out_BLD: Tensor) -> dict[str, Tensor]:
        """Return the mean over rows of the mean over their hidden words."""
        different_U = self.tokens_BL[self.words_BL].unique()
        which_P = torch.searchsorted(different_U, self.tokens_BL[self.hidden_BL])
        known_UD = F.normalize(self.backbone.vectors(different_U), dim=-1)
        guess_PU = SHARPNESS * F.normalize(out_BLD[self.hidden_BL], dim=-1) @ known_UD.T
        loss_P = F.cross_entropy(guess_PU, which_P, reduction="none")
        loss_BL = loss_P.new_zeros(tokens_BL.shape).masked_scatter(self.hidden_BL, loss_P)
        hidden_B = self.hidden_BL.sum(1).clamp_min(1)
        return {"denoising": self.weight * (loss_BL.sum(1) / hidden_B).mean()}

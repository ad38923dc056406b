"""Synonyms: some words of each training text are replaced by near ones, as word vectors see them.

Shapes: B batch, L length, N words, V vocabulary, R a chunk of it, E dim of a vector, K near words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from deepmine_auto import Applied, BadInput, Batch, Float, Int, Technique, TrainingFacts

CHUNK = 64
"""So many words are compared with all others at a time."""
UNSEEN = -1
"""The number of near words of a word that has not been looked up."""


@dataclass(frozen=True, kw_only=True)
class Synonyms(Technique):
    """Replace each word with probability `share` by one of its `nearest` words whose cosine is above `floor`.

    Word vectors also put opposites near each other, so a high floor keeps more of the meaning. Words without a vector,
    or without a near word, stay. Needs a task with word vectors.
    """

    name: ClassVar[str] = "synonyms"
    source: ClassVar[str] = "arXiv:1907.03752"
    touches = frozenset({"input"})
    one_answer = True
    needs_vectors = True

    share: Annotated[float, Float(0.02, 0.4)] = 0.1
    nearest: Annotated[int, Int(1, 10)] = 5
    floor: Annotated[float, Float(0.5, 0.9)] = 0.7

    def build(self, facts: TrainingFacts) -> Applied:
        """Make what changes the batches; it draws from the trial's generator. Raises BadInput without word vectors."""
        vectors_VE = facts.prepared.vectors_VE
        if vectors_VE is None or not vectors_VE[1:].any():
            raise BadInput("This task has no word vectors to find synonyms by.", "Leave out synonyms.")
        near = _Near(vectors_VE, self.nearest, self.floor, next(facts.model.parameters()).device)
        return _Replaced(self.share, near, facts.generator)


class _Near:
    """The near words of each word, the nearest first, and how many there are; looked up when they are first asked for,
    because a training sees few of the words that have a vector."""

    def __init__(self, vectors_VE: np.ndarray, nearest: int, floor: float, device: torch.device) -> None:
        length_V1 = np.linalg.norm(vectors_VE, axis=1, keepdims=True)
        unit_VE = vectors_VE / np.maximum(length_V1, np.finfo(np.float32).tiny)
        unit_VE[0] = 0.0  # padding is no word, whatever its vector
        self.unit_VE = torch.from_numpy(unit_VE.astype(np.float32)).to(device)
        self.floor = floor
        self.word_VK = torch.zeros(len(unit_VE), min(nearest, len(unit_VE)), dtype=torch.int64, device=device)
        self.count_V = torch.full((len(unit_VE),), UNSEEN, device=device)

    def look_up(self, words_N: Tensor) -> None:
        """See to it that the near words of these are known.

        A word is compared together with those of its chunk, always the same ones, so that its cosines are the same bits
        in a training that was interrupted.
        """
        unseen_N = words_N[self.count_V[words_N] == UNSEEN]
        for chunk in (unseen_N // CHUNK).unique().tolist():
            rows = slice(CHUNK * chunk, CHUNK * (chunk + 1))
            cosine_RV = self.unit_VE[rows] @ self.unit_VE.T
            cosine_RV.diagonal(rows.start).fill_(-1.0)  # a word is no synonym of itself
            best = cosine_RV.topk(self.word_VK.shape[1])
            self.word_VK[rows], self.count_V[rows] = best.indices, (best.values > self.floor).sum(1)


class _Replaced(Applied):
    def __init__(self, share: float, near: _Near, generator: torch.Generator) -> None:
        self.share, self.near = share, near
        self.generator = generator

    def on_batch(self, batch: Batch) -> Batch:
        """Return the batch with other tokens (B, L); padding stays padding."""
        tokens_BL = batch.tokens_BL
        drawn_2BL = torch.rand(2, *tokens_BL.shape, generator=self.generator, device=self.generator.device)
        whether_BL, which_BL = drawn_2BL.to(tokens_BL.device)
        chosen_BL = whether_BL < self.share
        self.near.look_up(tokens_BL[chosen_BL])
        count_BL = self.near.count_V[tokens_BL]
        replaced_BL = chosen_BL & (count_BL > 0)
        near_BL = self.near.word_VK[tokens_BL, (which_BL * count_BL).long()]
        return batch._replace(tokens_BL=torch.where(replaced_BL, near_BL, tokens_BL))

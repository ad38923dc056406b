"""Sequence to sequence with LSTMs and attention between them, as it was before transformers, and often still is.

Shapes: B batch, L length, S source length, T target length, D dim.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from deepmine_auto.contracts import AttentionShape, Mixed, Prepared
from deepmine_auto.model.dropout import TextDropout
from deepmine_auto.model.embedding import TokenEmbedding
from deepmine_auto.model.encoder_decoder import separator_of
from deepmine_auto.model.mask import Mask
from deepmine_auto.model.multi_head import Past, looks_back
from deepmine_auto.model.sides import Sides, sides
from deepmine_auto.model.stack import Attend, StackDesign

LSTMState = tuple[Tensor, Tensor]


class RecurrentPair(nn.Module):
    """A bidirectional LSTM reads the source, another writes the target and looks back at the source in each step.

    Without `feeding`, what was seen joins the output alone (arXiv:1508.04025); with it, the next step reads what the
    last one saw (input feeding, and the place where arXiv:1409.0473 attends). Attention that looks back at where it
    looked before goes step by step in either case.
    """

    def __init__(
        self, prepared: Prepared, attention: Attend, shape: AttentionShape, design: StackDesign, feeding: bool
    ) -> None:
        super().__init__()
        self.dim, self.separator, self.feeding = shape.dim, separator_of(prepared), feeding
        self.embedding = TokenEmbedding(prepared.vocabulary, shape.dim, prepared.vectors_VE, design.train_vectors)
        self.dropout = TextDropout(design.dropout)
        self.reader = nn.LSTM(shape.dim, shape.dim // 2, design.depth, batch_first=True, bidirectional=True)
        self.writer = nn.LSTM(shape.dim * (1 + feeding), shape.dim, design.depth, batch_first=True)
        self.crossing = attention(replace(shape, mode="cross"))
        self.join = nn.Linear(2 * shape.dim, shape.dim)

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor, *, weights: bool = False) -> Mixed:
        """Return out (B, L, D), zero where the source stands; the weights (B, H, T, S) of what looks at the source."""
        both = sides(tokens_BL, keep_BL, self.separator)
        source_BSD, state = self._read(both)
        x_BTD, mask = self.dropout(self.embedding(both.target_BT)), Mask(padding=both.keep_BS)
        write = self._stepwise if self.feeding or looks_back(self.crossing) else self._at_once
        mixed = write(x_BTD, state, source_BSD, mask, weights)
        losses = dict(mixed.losses)
        if looks_back(self.crossing):
            assert mixed.weights is not None
            losses |= self.crossing.alignment_losses(mixed.weights, both.keep_BT)
        out_BLD, shown = both.back(mixed.out, tokens_BL.shape[1]), mixed.weights if weights else None
        return Mixed(out_BLD, shown, losses)

    def _read(self, both: Sides) -> tuple[Tensor, LSTMState]:
        x_BSD = self.dropout(self.embedding(both.source_BS))
        lengths = both.keep_BS.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x_BSD, lengths, batch_first=True, enforce_sorted=False)
        read, states = self.reader(packed)
        source_BSD, _ = nn.utils.rnn.pad_packed_sequence(read, batch_first=True, total_length=x_BSD.shape[1])
        # both directions of a layer, side by side, begin the writer's layer
        hidden, cell = (each.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2) for each in states)
        return source_BSD, (hidden.contiguous(), cell.contiguous())

    def _at_once(self, x_BTD: Tensor, state: LSTMState, source_BSD: Tensor, mask: Mask, weights: bool) -> Mixed:
        written_BTD, _ = self.writer(x_BTD, state)
        return self._joined(written_BTD, source_BSD, mask, weights)

    def _joined(
        self, written_BTD: Tensor, source_BSD: Tensor, mask: Mask, weights: bool, past: Past | None = None
    ) -> Mixed:
        mixed, _ = self.crossing(written_BTD, mask, None, weights=weights, source_BSD=source_BSD, past=past)
        both_BTE = torch.cat((mixed.out, written_BTD), -1)
        joined: Mixed = mixed._replace(out=self.dropout(torch.tanh(self.join(both_BTE))))
        return joined

    def _stepwise(self, x_BTD: Tensor, state: LSTMState, source_BSD: Tensor, mask: Mask, weights: bool) -> Mixed:
        seen_B1D, steps = torch.zeros_like(x_BTD[:, :1]), []
        past = self.crossing.nothing_seen(source_BSD) if looks_back(self.crossing) else None
        for x_B1D in x_BTD.split(1, 1):
            read_B1E = torch.cat((x_B1D, seen_B1D), -1) if self.feeding else x_B1D
            written_B1D, state = self.writer(read_B1E, state)
            steps.append(self._joined(written_B1D, source_BSD, mask, weights, past))
            seen_B1D, seen_BH1S = steps[-1].out, steps[-1].weights
            past = past.then(seen_BH1S) if past is not None and seen_BH1S is not None else None
        maps = [each.weights for each in steps if each.weights is not None]
        losses = {name: torch.stack([each.losses[name] for each in steps]).mean() for name in steps[0].losses}
        out_BTD = torch.cat([each.out for each in steps], 1)
        return Mixed(out_BTD, torch.cat(maps, 2) if maps else None, losses)

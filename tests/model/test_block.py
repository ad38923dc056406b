"""Blocks beside torch's own layers."""

import torch
from torch import nn
from torch.testing import assert_close

from deepmine_auto.contracts import Mixed
from deepmine_auto.model.block import Block, CrossBlock
from deepmine_auto.model.mask import Mask

DIM, HEADS, WIDEN = 8, 2, 3


class Theirs(nn.Module):
    """torch's attention as the token mixing of one of our layers."""

    def __init__(self, attention, causal):
        super().__init__()
        self.attention, self.causal = attention, causal

    def forward(self, x_BLD, mask, state=None, *, weights=False, source_BSD=None):
        read = x_BLD if source_BSD is None else source_BSD
        later = torch.ones(x_BLD.shape[1], read.shape[1]).triu(1).bool() if self.causal else None
        out, _ = self.attention(x_BLD, read, read, attn_mask=later, key_padding_mask=~mask.padding)
        return Mixed(out), state


def norms_and_feed_forward(block, layer, attention_norm, feed_forward_norm):
    """Give a block the weights of one of torch's layers."""
    block.before_mixing.load_state_dict(attention_norm.state_dict())
    block.before_feed_forward.load_state_dict(feed_forward_norm.state_dict())
    block.feed_forward.up.load_state_dict(layer.linear1.state_dict())
    block.feed_forward.down.load_state_dict(layer.linear2.state_dict())


def drawn_anew(layer):
    """The layer with norms that differ: as they begin, none could be told from another."""
    torch.manual_seed(0)
    for each in layer.parameters():
        nn.init.normal_(each, std=0.5)
    return layer


@torch.no_grad()
def test_a_block_equals_the_layer_of_torchs_encoder():
    theirs = drawn_anew(nn.TransformerEncoderLayer(DIM, HEADS, WIDEN * DIM, 0.0, "gelu", 1e-5, True, True).train())
    ours = Block(Theirs(theirs.self_attn, causal=False), DIM, WIDEN, 0.0)
    norms_and_feed_forward(ours, theirs, theirs.norm1, theirs.norm2)
    x_BLD, keep_BL = torch.randn(2, 5, DIM), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    out = ours(x_BLD, Mask(padding=keep_BL))[0].out
    assert_close(out, theirs(x_BLD, src_key_padding_mask=~keep_BL))


@torch.no_grad()
def test_a_block_with_a_source_equals_the_layer_of_torchs_decoder():
    theirs = drawn_anew(nn.TransformerDecoderLayer(DIM, HEADS, WIDEN * DIM, 0.0, "gelu", 1e-5, True, True).train())
    own, crossing = Theirs(theirs.self_attn, causal=True), Theirs(theirs.multihead_attn, causal=False)
    ours = CrossBlock(own, crossing, DIM, WIDEN, 0.0)
    norms_and_feed_forward(ours.own, theirs, theirs.norm1, theirs.norm3)
    ours.before_crossing.load_state_dict(theirs.norm2.state_dict())
    x_BTD, source_BSD = torch.randn(2, 4, DIM), torch.randn(2, 5, DIM)
    keep_BT, keep_BS = torch.ones(2, 4).bool(), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    out = ours(x_BTD, Mask(padding=keep_BT, causal=True), source_BSD, Mask(padding=keep_BS), weights=False).out
    later_TT = torch.ones(4, 4).triu(1).bool()
    expected = theirs(x_BTD, source_BSD, tgt_mask=later_TT, memory_key_padding_mask=~keep_BS)
    assert_close(out, expected)

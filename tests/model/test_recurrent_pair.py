"""Two LSTMs with attention between them, at once or step by step."""

import pytest
import torch
from torch.testing import assert_close

from deepmine_auto.model.guard import Refused
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.model.recurrent import RecurrentPair
from deepmine_auto.model.stack import StackDesign
from deepmine_auto.testing.layers import LATER, SHAPE, SYMBOLS, rows_of_tokens
from deepmine_plugins.attention.additive import Additive
from deepmine_plugins.attention.coverage import Coverage
from deepmine_plugins.attention.location import Location
from deepmine_plugins.attention.talking_heads import TalkingHeads
from deepmine_plugins.backbones.decoder import Decoder
from deepmine_plugins.backbones.encoder import Encoder
from deepmine_plugins.backbones.encoder_decoder import EncoderDecoder

TOKENS_BL, OTHERS_BL, KEEP_BL = rows_of_tokens()
BACK = [Location(), Location(seen="sum"), Coverage(price=1.0)]


def attend(*modifiers):
    return lambda shape: token_mixer(Additive(width=16), modifiers, shape)


def pair_of(*modifiers, feeding=False, moved=True):
    """Modifiers are moved from their start, at which those that look back do nothing."""
    torch.manual_seed(0)
    pair = RecurrentPair(SYMBOLS, attend(*modifiers), SHAPE, StackDesign(depth=2), feeding).double().eval()
    if moved:
        with torch.no_grad():
            for each in pair.crossing.modifiers.parameters():
                each.add_(torch.randn_like(each))
    return pair


@torch.no_grad()
def test_steps_that_look_back_at_nothing_are_those_taken_at_once():
    stepwise, at_once = pair_of(Location(), moved=False), pair_of()
    at_once.load_state_dict(stepwise.state_dict(), strict=False)
    found, expected = (each(TOKENS_BL, KEEP_BL, weights=True) for each in (stepwise, at_once))
    assert_close(found.out, expected.out)
    assert_close(found.weights, expected.weights)


@torch.no_grad()
@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("modifier", BACK)
def test_looking_back_changes_what_is_seen(modifier, feeding):
    back, plain = pair_of(modifier, feeding=feeding), pair_of(feeding=feeding)
    plain.load_state_dict(back.state_dict(), strict=False)
    found, expected = (each(TOKENS_BL, KEEP_BL, weights=True).weights for each in (back, plain))
    assert_close(found[:, :, 0], expected[:, :, 0])
    assert ((found - expected)[:, :, 1:].abs().amax((0, 1, 3)) > 1e-6).all()


@torch.no_grad()
@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("modifier", BACK)
def test_no_row_learns_of_another_and_no_step_of_a_later_one(modifier, feeding):
    pair = pair_of(modifier, feeding=feeding)
    together, others = (pair(each, KEEP_BL).out for each in (TOKENS_BL, OTHERS_BL))
    for row, later in enumerate(LATER):
        alone = pair(TOKENS_BL[row : row + 1], KEEP_BL[row : row + 1]).out
        assert_close(together[row : row + 1], alone)
        assert_close(together[row, :later], others[row, :later])


@torch.no_grad()
@pytest.mark.parametrize("modifier", BACK)
def test_a_batch_leaves_nothing_behind(modifier):
    pair = pair_of(modifier)
    before = pair(TOKENS_BL, KEEP_BL).out
    pair(OTHERS_BL, KEEP_BL)
    assert torch.equal(pair(TOKENS_BL, KEEP_BL).out, before)


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("modifier", BACK)
def test_what_looks_back_learns(modifier, feeding):
    pair = pair_of(modifier, feeding=feeding)
    pair(TOKENS_BL, KEEP_BL).out.square().sum().backward()
    for name, each in pair.crossing.modifiers.named_parameters():
        assert each.grad.abs().max() > 0.0, name


@torch.no_grad()
@pytest.mark.parametrize("feeding", [False, True])
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_rows(feeding):
    pair = pair_of(Coverage(price=1.0), feeding=feeding)
    together = pair(TOKENS_BL, KEEP_BL).losses["coverage"]
    alone = [pair(TOKENS_BL[[row]], KEEP_BL[[row]]).losses["coverage"] for row in range(2)]
    assert_close(together, sum(alone) / 2)
    assert 0.0 < float(together) < 1.0


@torch.no_grad()
@pytest.mark.parametrize("modifier", [Coverage(), TalkingHeads()])
@pytest.mark.parametrize("feeding", [False, True])
def test_weights_come_only_when_asked_for(modifier, feeding):
    pair = pair_of(modifier, feeding=feeding)
    assert pair(TOKENS_BL, KEEP_BL).weights is None
    shown = pair(TOKENS_BL, KEEP_BL, weights=True).weights
    assert shown.shape == (2, SHAPE.heads, 8, 6)
    if isinstance(modifier, Coverage):
        assert_close(shown.sum(-1), torch.ones_like(shown[..., 0]))


def halved(lstm):
    """As a GPU computes it in mixed precision."""
    forward = lstm.forward

    def run(x, state=None):
        with torch.autocast("cpu", enabled=False):
            out, state = forward(x.float(), state)
        return out.to(torch.bfloat16), state

    lstm.forward = run


@torch.no_grad()
@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("modifier", [TalkingHeads(), Coverage()])
def test_what_lstms_write_in_half_floats_is_attended_to_in_mixed_precision(modifier, feeding):
    pair = pair_of(modifier, feeding=feeding).float()
    expected = pair(TOKENS_BL, KEEP_BL).out
    halved(pair.reader)
    halved(pair.writer)
    with torch.autocast("cpu", torch.bfloat16):
        found = pair(TOKENS_BL, KEEP_BL).out
    assert (found - expected).abs().mean() < 0.2 * expected.abs().mean()


@pytest.mark.parametrize("backbone", [Encoder, Decoder, EncoderDecoder])
@pytest.mark.parametrize("modifier", BACK[1:])
def test_a_model_that_takes_all_steps_at_once_refuses_what_looks_back(backbone, modifier):
    with pytest.raises(Refused, match=rf"'{modifier.name}' cannot be used in \w+ mode\. It declares: cross"):
        backbone().build(SYMBOLS, attend(modifier))

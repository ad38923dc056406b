"""Variants that leave out most pairs of tokens: each equals its pattern in plain loops, and never computes the rest."""

import math
from dataclasses import replace

import oracles
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from deepmine_auto import AttentionShape, Mask
from deepmine_auto.errors import BadInput
from deepmine_auto.model.blocks import SparseSoftmax
from deepmine_auto.model.softmax import FusedSoftmax, fused_softmax
from deepmine_auto.testing.attention import AttentionPromises
from deepmine_plugins.attention.bigbird import BigBird
from deepmine_plugins.attention.dilated import Dilated
from deepmine_plugins.attention.global_window import GlobalWindow
from deepmine_plugins.attention.moba import MoBA
from deepmine_plugins.attention.strided import Strided

SHAPE = AttentionShape(dim=8, heads=2, kv_heads=2)
SOURCE = 150


class TestGlobalWindow(AttentionPromises):
    variant = GlobalWindow


class TestBigBird(AttentionPromises):
    variant = BigBird


class TestStrided(AttentionPromises):
    variant = Strided


class TestMoBA(AttentionPromises):
    variant = MoBA


class TestDilated(AttentionPromises):
    variant = Dilated


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def inputs(length: int, source: int = SOURCE) -> tuple[Tensor, Tensor, Tensor]:
    return numbers(1, 2, length, 4), *numbers(2, 1, 2, source, 4)


def mixed(variant, q: Tensor, k: Tensor, v: Tensor, mask: Mask, shape: AttentionShape = SHAPE) -> Tensor:
    return variant.build(shape)(q, k, v, mask, weights=False).out


def weights(variant, length: int, mask: Mask, shape: AttentionShape = SHAPE) -> Tensor:
    return variant.build(shape)(*inputs(length, length), mask, weights=True).weights


def by_loops(q: Tensor, k: Tensor, v: Tensor, mask: Mask, pattern) -> Tensor:
    """One row; `pattern(head, i, j)` says whether a query at position i sees a key at position j."""
    lead = k.shape[2] - q.shape[2]
    real = [True] * k.shape[2] if mask.padding is None else mask.padding[0].tolist()
    left, right = mask.window or (10**9, 10**9)

    def mixed_for(h: int, i: int, q_K: list[float], k_SK: list[list[float]], v_SK: list[list[float]]) -> list[float]:
        seen = [j for j in range(len(k_SK)) if real[j] and i - left <= j <= i + right and pattern(h, i, j)]
        seen = [j for j in seen if j <= i or not mask.causal]
        scores = [sum(a * b for a, b in zip(q_K, k_SK[j], strict=True)) / math.sqrt(len(q_K)) for j in seen]
        weights = oracles.softmax(scores) if seen else []
        return [sum(w * v_SK[j][x] for w, j in zip(weights, seen, strict=True)) for x in range(len(q_K))]

    heads = zip(q[0].tolist(), k[0].tolist(), v[0].tolist(), strict=True)
    out = [[mixed_for(h, i + lead, q_LK[i], k_SK, v_SK) for i in range(len(q_LK))]
           for h, (q_LK, k_SK, v_SK) in enumerate(heads)]  # fmt: skip
    return torch.tensor(out, dtype=torch.float64)[None]


PADDING = torch.arange(SOURCE)[None] % 7 != 0
every_mask = pytest.mark.parametrize(
    "mask", [Mask(), Mask(padding=PADDING), Mask(padding=PADDING, window=(3, 40))], ids=str
)
every_length = pytest.mark.parametrize("length", [1, 90, SOURCE, 340])
both_modes = pytest.mark.parametrize("causal", [False, True])


# -- patterns


@both_modes
@every_mask
@every_length
def test_a_window_with_global_tokens_equals_its_loops(causal, mask, length):
    def pattern(h, i, j):
        return abs(i - j) <= 16 or j < 2 or (i < 2 and not causal)

    q, k, v = inputs(length)
    mask = replace(mask, causal=causal)
    assert_close(mixed(GlobalWindow(window=16, first=2), q, k, v, mask), by_loops(q, k, v, mask, pattern))


@both_modes
@every_mask
@every_length
def test_strided_attention_equals_its_loops(causal, mask, length):
    def pattern(h, i, j):
        return i // 32 == j // 32 or j % 32 >= 28

    q, k, v = inputs(length)
    mask = replace(mask, causal=causal)
    assert_close(mixed(Strided(block=32, columns=4), q, k, v, mask), by_loops(q, k, v, mask, pattern))


@both_modes
@every_mask
@every_length
def test_dilated_attention_equals_its_loops(causal, mask, length):
    def pattern(h, i, j):
        return abs(i - j) <= 16 if h == 0 else (i - j) % 4 == 0 and abs(i - j) <= 64

    q, k, v = inputs(length)
    mask = replace(mask, causal=causal)
    assert_close(mixed(Dilated(window=16, dilation=4), q, k, v, mask), by_loops(q, k, v, mask, pattern))


@every_mask
@pytest.mark.parametrize("length", [SOURCE, 90, 340])
def test_bigbird_equals_loops_over_the_blocks_that_its_weights_show(mask, length):
    variant, (q, k, v) = BigBird(block=16, random=2), inputs(length)
    seen = variant.build(SHAPE).narrowed(q, k, Mask()).dense.tolist()
    found = by_loops(q, k, v, mask, lambda h, i, j: seen[i - SOURCE + length][j])
    assert_close(mixed(variant, q, k, v, mask), found)


def of_moba(q: Tensor, k: Tensor, mask: Mask, block: int, top: int):
    """The pattern of one row, by the words of the paper: an own block, and the best of those before it."""
    lead = k.shape[2] - q.shape[2]

    def mean(h: int, m: int) -> Tensor | None:
        real = [j for j in range(m * block, (m + 1) * block) if mask.padding is None or mask.padding[0, j]]
        return k[0, h, real].mean(0) if real else None

    means = {(h, m): mean(h, m) for h in range(k.shape[1]) for m in range(k.shape[2] // block)}

    def taken(h: int, i: int) -> set[int]:
        likes = {m: float(q[0, h, i - lead] @ means[h, m]) for m in range(i // block) if means[h, m] is not None}
        return {i // block, *sorted(likes, key=likes.__getitem__)[-top:]}

    found = {(h, i + lead): taken(h, i + lead) for h in range(q.shape[1]) for i in range(q.shape[2])}
    return lambda h, i, j: j // block in found[h, i]


@pytest.mark.parametrize(
    "mask", [Mask(), Mask(padding=PADDING), Mask(padding=torch.arange(SOURCE)[None] > 40)], ids=str
)
@every_length
def test_moba_equals_its_loops(mask, length):
    q, k, v = inputs(length)
    mask = replace(mask, causal=True)
    found = mixed(MoBA(block=32, top=2), q, k, v, mask)
    assert_close(found, by_loops(q, k, v, mask, of_moba(q, k, mask, 32, 2)))


def test_a_window_with_global_tokens_equals_longformer():
    torch.manual_seed(0)
    config = LongformerConfig(
        hidden_size=8, num_attention_heads=2, attention_window=[32], attention_probs_dropout_prob=0.0
    )
    theirs = LongformerSelfAttention(config, 0).double().eval()
    for name in ("query", "key", "value"):
        getattr(theirs, f"{name}_global").load_state_dict(getattr(theirs, name).state_dict())
    x_BLD, is_global, padding = numbers(1, 160, 8), torch.arange(160)[None] < 4, torch.arange(160)[None] < 140
    marks = torch.zeros(1, 160, dtype=torch.float64).masked_fill(is_global, 1e4).masked_fill(~padding, -1e4)
    expected = theirs(
        x_BLD, marks, is_index_masked=~padding, is_index_global_attn=is_global, is_global_attn=True
    )[0]  # fmt: skip
    q, k, v = (each(x_BLD).unflatten(-1, (2, 4)).transpose(1, 2) for each in (theirs.query, theirs.key, theirs.value))
    found = mixed(GlobalWindow(window=16, first=4), q, k, v, Mask(padding=padding)).transpose(1, 2).flatten(2)
    assert_close(found[:, :140], expected[:, :140], rtol=1e-5, atol=1e-6)  # their softmax is in float32


# -- invariants


@both_modes
@pytest.mark.parametrize(
    ("variant", "length"),
    [
        (GlobalWindow(window=200), 201),
        (Strided(block=128), 128),
        (BigBird(block=32, random=4), 96),
        (MoBA(block=32, top=4), 160),
        (Dilated(window=200), 1),
    ],
    ids=repr,
)
def test_where_nothing_is_left_out_it_is_softmax(variant, length, causal):
    if ("causal" if causal else "bidirectional") not in variant.caps.modes:
        return
    q, k, v = inputs(length, length)
    assert_close(mixed(variant, q, k, v, Mask(causal=causal)), fused_softmax(q, k, v, Mask(causal=causal)))
    assert (weights(variant, length, Mask(causal=causal)) > 0).sum() == 2 * (
        length * (length + 1) // 2 if causal else length**2
    )


def test_the_row_and_the_column_of_a_global_token_are_dense():
    found = weights(GlobalWindow(window=16, first=2), SOURCE, Mask())
    assert (found[:, :, :2] > 0).all()
    assert (found[..., :2] > 0).all()
    assert (found[:, :, 40, 60:] == 0).all()


@pytest.mark.parametrize("random", [1, 5])
def test_a_block_of_bigbird_sees_itself_its_neighbours_the_first_and_so_many_others(random):
    longest = replace(SHAPE, max_len=20 * 16)
    found = weights(BigBird(block=16, random=random), 20 * 16, Mask(), longest)[0, 0] > 0
    blocks_NM = found.unflatten(0, (20, 16)).unflatten(-1, (20, 16)).all(-1).all(1)
    assert torch.equal(blocks_NM.repeat_interleave(16, 0).repeat_interleave(16, 1), found), "blocks are whole"
    assert blocks_NM[0].all()
    assert blocks_NM[:, 0].all()
    for n in range(1, 20):
        assert blocks_NM[n, max(0, n - 1) : n + 2].all()
        others = {*range(20)} - {0, n - 1, n, n + 1}
        assert blocks_NM[n, sorted(others)].sum() == random


@pytest.mark.parametrize("length", [30, 100, 310, 900])
def test_a_longer_batch_moves_no_random_block(length):
    module = BigBird(block=16, random=3).build(replace(SHAPE, max_len=1000))
    whole, part = (module._chosen(each) for each in (1000, length))
    assert torch.equal(part, whole[: len(part)])
    others = (whole >= 0).sum(-1)
    assert (others == 3).all(), "a text as long as may be has them all"


def test_the_seed_and_the_layer_choose_the_random_blocks():
    def seen(variant: BigBird, layer: int = 0) -> Tensor:
        return weights(variant, 320, Mask(), replace(SHAPE, layer=layer)) > 0

    first = seen(BigBird(block=16, seed=1))
    state = torch.get_rng_state()
    assert torch.equal(seen(BigBird(block=16, seed=1)), first)
    assert torch.equal(torch.get_rng_state(), state), "the random blocks use up no randomness of others"
    assert not torch.equal(seen(BigBird(block=16, seed=2)), first)
    assert not torch.equal(seen(BigBird(block=16, seed=1), layer=1), first)


def test_the_seed_of_bigbird_is_not_searched():
    from deepmine_auto.space import ranges

    assert set(ranges(BigBird)) == {"block", "random"}


def test_without_columns_blocks_never_hear_of_each_other():
    found = weights(Strided(block=32, columns=0), 128, Mask())[0, 0] > 0
    assert torch.equal(found, torch.block_diag(*[torch.ones(32, 32)] * 4).bool())
    q, k, v = inputs(128, 128)
    apart = torch.cat(
        [fused_softmax(*(x[:, :, at : at + 32] for x in (q, k, v)), Mask()) for at in range(0, 128, 32)], 2
    )
    assert_close(mixed(Strided(block=32, columns=0), q, k, v, Mask()), apart)


def test_moba_always_takes_the_own_block_and_never_one_that_is_not_wholly_past():
    q, k, _ = inputs(SOURCE)
    k[:, :, 64:96] = 100.0 * q[:, :, :1].sign()  # a block that the first query would like best of all
    taken = MoBA(block=32, top=2).build(SHAPE).taken(q, k, Mask(causal=True))
    own = torch.arange(SOURCE) // 32
    assert (taken[..., 0] == own).all()
    assert (taken[..., 1:] < own[:, None]).all()
    assert (taken[:, :, :32, 1:] == -1).all(), "no block is past"
    assert ((taken[:, :, 32:64, 1:] >= 0).sum(-1) == 1).all(), "one block is past"


def test_moba_takes_no_block_of_padding_alone():
    q, k, _ = inputs(SOURCE)
    padding = (torch.arange(SOURCE)[None] < 32) | (torch.arange(SOURCE)[None] >= 64)
    taken = MoBA(block=32, top=4).build(SHAPE).taken(q, k, Mask(causal=True, padding=padding))
    assert (taken[..., 1:] != 1).all()
    assert (taken[:, :, 64:, 1:] == 0).any(-1).all()


def test_the_gradient_of_moba_by_tiles_is_that_of_the_function():
    q, k, v = (each.requires_grad_() for each in inputs(110, 110))
    module = MoBA(block=16, top=2).build(SHAPE)
    mask = Mask(causal=True, padding=torch.arange(110)[None] > 40)  # the first rows see nothing
    assert torch.autograd.gradcheck(lambda *qkv: module(*qkv, mask, weights=False).out, (q, k, v), fast_mode=True)


def test_dilated_attention_refuses_heads_without_pairs():
    with pytest.raises(BadInput, match="pairs heads, and a layer has 3"):
        Dilated().build(AttentionShape(dim=12, heads=3, kv_heads=3))


def test_a_pattern_that_says_nothing_is_softmax():
    module, (q, k, v) = SparseSoftmax(block=16, whole=0), inputs(40, 40)
    for causal in (False, True):
        expected = fused_softmax(q, k, v, Mask(causal=causal))
        assert_close(module(q, k, v, Mask(causal=causal)).out, expected)
        assert_close(
            module._by_blocks(q, k, v, Mask(causal=causal), module.reads(torch.arange(3), 40, causal)), expected
        )


@both_modes
@pytest.mark.parametrize("source", [1, 60, 200])
@pytest.mark.parametrize(
    "variant",
    [GlobalWindow(window=16, first=8), BigBird(block=16, random=5), Strided(block=32, columns=16)],
    ids=lambda each: each.name,
)
def test_a_block_reads_each_key_that_its_queries_see_and_none_twice(variant, source, causal):
    module, position_S = variant.build(SHAPE), torch.arange(source)
    seen_LS = module.pattern(source, position_S.device)(position_S[:, None], position_S)
    for n, read_W in enumerate(module.reads(torch.arange(-(-source // module.block)), source, causal).tolist()):
        read = [j for j in read_W if 0 <= j < source]
        queries = [*range(n * module.block, min(source, (n + 1) * module.block))]
        needed = {j for i in queries for j in range(source) if seen_LS[i, j] and not (causal and j > i)}
        assert len({*read}) == len(read)
        assert needed <= {*read}


# -- what is never computed

FAR = 4096
SPARSE = [GlobalWindow(window=16), BigBird(block=16), Strided(block=64, columns=4), MoBA(), Dilated(window=16)]
every_sparse = pytest.mark.parametrize("variant", SPARSE, ids=lambda each: each.name)


def mask_of(variant) -> Mask:
    return Mask(causal="bidirectional" not in variant.caps.modes)


def operations(variant, length: int, mask: Mask, *, backward: bool = False) -> int:
    q, k, v = torch.randn(3, 1, 2, length, 8, requires_grad=backward)
    # the counter knows the products of the plain kernel, not the fused one
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = variant.build(replace(SHAPE, dim=16))(q, k, v, mask, weights=False).out
        if backward:
            out.sum().backward()
    return counter.get_total_flops()


@both_modes
@pytest.mark.parametrize("variant", [each for each in SPARSE if each.caps.scaling == 1.0], ids=lambda each: each.name)
def test_four_times_the_length_takes_four_times_the_operations(variant, causal):
    small, large = (operations(variant, length, Mask(causal=causal), backward=True) for length in (FAR // 4, FAR))
    assert math.log2(large / small) / 2 == pytest.approx(1.0, abs=0.05)


@every_sparse
def test_the_operations_are_those_that_cost_declares(variant):
    declared = variant.cost(replace(SHAPE, dim=16), FAR).flops
    assert operations(variant, FAR, mask_of(variant)) == pytest.approx(declared, rel=0.2)
    assert declared < 0.2 * 4 * FAR**2 * 16


def test_where_attention_is_causal_the_first_tokens_take_no_row_of_their_own():
    keys_of_a_block = 4 + 16 + 64
    found = operations(GlobalWindow(window=16, first=4), FAR, Mask(causal=True))
    assert found == 4 * FAR * keys_of_a_block * 16


class LargestTensor(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else [out]:
            self.numbers = max(self.numbers, each.numel() if isinstance(each, Tensor) else 0)
        return out


@every_sparse
def test_no_tensor_is_as_large_as_the_pairs_of_tokens(variant):
    q, k, v = torch.randn(3, 1, 2, FAR, 8, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), LargestTensor() as largest:
        variant.build(SHAPE)(q, k, v, mask_of(variant), weights=False).out.sum().backward()
    assert largest.numbers < 0.25 * 2 * FAR**2


@pytest.mark.parametrize("variant", SPARSE[:-1], ids=lambda each: each.name)
def test_a_short_input_costs_what_softmax_costs_and_needs_no_pattern(variant, monkeypatch):
    monkeypatch.setattr(type(variant.build(SHAPE)), "narrowed", None)

    class Softmax:
        def build(self, shape):
            return FusedSoftmax()

    length = {"global_window": 17, "bigbird": 48, "strided": 64, "moba": 128}[variant.name]
    assert operations(variant, length, mask_of(variant)) == operations(Softmax(), length, mask_of(variant))

"""FlexAttention computes what blocks compute. There is no GPU here: it runs on the CPU, uncompiled and without
gradients, which is all that it can do there."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from deepmine_auto import AttentionShape, Mask
from deepmine_auto.model import blocks, flex
from deepmine_auto.model.blocks import SparseSoftmax, WindowSoftmax
from deepmine_auto.model.multi_head import token_mixer
from deepmine_plugins.attention.bigbird import BigBird
from deepmine_plugins.attention.dilated import Dilated
from deepmine_plugins.attention.global_window import GlobalWindow
from deepmine_plugins.attention.multi_head import MultiHead
from deepmine_plugins.attention.sink import Sink
from deepmine_plugins.attention.sliding_window import SlidingWindow
from deepmine_plugins.attention.soft_cap import SoftCap
from deepmine_plugins.attention.strided import Strided
from deepmine_plugins.attention.talking_heads import TalkingHeads

SHAPE = AttentionShape(dim=64, heads=4, kv_heads=2)
LENGTH = 300
PADDING = torch.arange(LENGTH) < torch.tensor([[LENGTH], [200]])
VARIANTS = [
    SlidingWindow(window=16),
    GlobalWindow(window=16, first=4),
    BigBird(block=16),
    Strided(block=32),
    Dilated(window=16),
]
SAID = "FlexAttention.*materializes|flex_attention called without torch.compile"


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(length: int = LENGTH, source: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    return numbers(2, 4, length, 16), numbers(2, 2, source, 16, seed=1), numbers(2, 2, source, 16, seed=2)


@pytest.fixture
def calls(monkeypatch):
    """FlexAttention on the CPU, and how often it was called."""
    found = []

    def counted(*args, **named):
        found.append(named)
        return flex_attention(*args, **named)

    monkeypatch.setattr(flex, "DEVICES", {"cpu"})
    monkeypatch.setattr(flex, "LEAST_LENGTH", 2)
    monkeypatch.setattr(flex, "kernel", lambda: counted)
    return found


@pytest.fixture
def found_blocks(monkeypatch):
    """The lengths for which blocks were found, while none of other tests are kept."""
    found = []
    monkeypatch.setattr(flex, "blocks_of", lambda *args, made=flex.blocks_of: found.append(args[1]) or made(*args))
    monkeypatch.setattr(blocks, "_block_masks", {})
    return found


@pytest.mark.filterwarnings(f"ignore:{SAID}")
@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda each: each.name)
@pytest.mark.parametrize(
    "mask",
    [Mask(), Mask(padding=PADDING), Mask(causal=True), Mask(causal=True, padding=PADDING, window=(9, 40))],
    ids=["all", "padding", "causal", "causal-padding-window"],
)
@pytest.mark.parametrize("length", [LENGTH, 130])
def test_it_equals_the_definition(calls, variant, mask, length):
    if not mask.features <= variant.caps.masks:
        pytest.skip(f"{variant.name} does not declare {', '.join(sorted(mask.features - variant.caps.masks))}")
    module, (q, k, v) = variant.build(SHAPE), inputs(length)
    expected = module(q, k, v, mask, weights=True).out
    assert not calls
    assert_close(module(q, k, v, mask, weights=False).out, expected)
    assert calls


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@torch.no_grad()
def test_one_compiled_program_serves_all_lengths(calls, monkeypatch):
    """On the CPU the other half of the compiler is not that of CUDA; what it compiles anew for is the same."""
    compiled, module, programs = (
        torch.compile(flex_attention, fullgraph=True),
        SlidingWindow(window=16).build(SHAPE),
        [],
    )
    monkeypatch.setattr(flex, "kernel", lambda: compiled)
    counters.clear()
    for length in (300, 260, 411, 512, 333):
        mask = Mask(padding=torch.arange(length) < torch.tensor([[length], [length // 2]]))
        out = module(*inputs(length, length), mask, weights=False).out
        assert_close(out, module(*inputs(length, length), mask, weights=True).out)
        programs.append(counters["stats"]["unique_graphs"])
    assert programs[2:] == [programs[2]] * 3


@pytest.mark.parametrize("variant", VARIANTS[:4], ids=lambda each: each.name)
def test_a_pattern_is_what_a_kernel_can_compute_for_each_pair(variant):
    """A reduction, say, compiles nowhere."""
    pattern = variant.build(SHAPE)._seen(LENGTH, LENGTH, Mask(causal=True), torch.device("cpu"))
    traced = make_fx(pattern)(torch.tensor([3]), torch.tensor([4]))
    called = [each.target for each in traced.graph.nodes if each.op == "call_function"]
    assert called
    alike = (torch.ops.aten.index.Tensor, torch.ops.aten.floor_divide.default)
    for each in called:
        assert torch.Tag.pointwise in each.tags or each in alike, each


@pytest.mark.filterwarnings(f"ignore:{SAID}")
@torch.no_grad()
def test_rows_that_see_nothing_are_zero(calls):
    module, nothing = SlidingWindow(window=16).build(SHAPE), torch.zeros(2, LENGTH, dtype=torch.bool)
    assert module(*inputs(), Mask(padding=nothing), weights=False).out.count_nonzero() == 0


@pytest.mark.filterwarnings(f"ignore:{SAID}")
@torch.no_grad()
def test_blocks_are_found_once_a_length_and_few_are_kept(calls, found_blocks, monkeypatch):
    module = SlidingWindow(window=16).build(SHAPE)
    monkeypatch.setattr(blocks, "MOST_BLOCK_MASKS", 4)
    for padding in (None, PADDING, ~PADDING):
        module(*inputs(), Mask(padding=padding), weights=False)
    module(*inputs(), Mask(causal=True), weights=False)
    assert found_blocks == [LENGTH, LENGTH], "one for each pattern, whatever is padded"
    for length in range(100, 105):
        module(*inputs(length, length), Mask(), weights=False)
    assert len(blocks._block_masks) <= 4


@pytest.mark.parametrize("variant", VARIANTS[:4], ids=lambda each: each.name)
def test_layers_of_one_pattern_share_their_blocks(variant, found_blocks):
    q, k, _ = inputs()
    one, other = (variant.build(SHAPE)._blocks(q, k, Mask()) for _ in range(2))
    assert one is other
    assert found_blocks == [LENGTH]


class EveryOther(WindowSoftmax):
    """A window of which a part alone is seen, and which does not say so by `alike`."""

    def __init__(self, part):
        super().__init__(16)
        self.part = part

    def pattern(self, source, device):
        near, part = super().pattern(source, device), self.part
        return lambda i, j: near(i, j) & (j % part == 0)


def test_layers_of_other_patterns_do_not(found_blocks):
    q, k, _ = inputs()
    others = [
        SlidingWindow(window=17),
        GlobalWindow(window=16),
        GlobalWindow(window=16, first=2),
        BigBird(block=16, seed=1),
        BigBird(block=16, random=2),
        BigBird(block=32),
        Strided(block=64),
        Strided(block=32, columns=4),
    ]
    modules = [each.build(SHAPE) for each in (*VARIANTS[:4], *others)]
    modules.append(BigBird(block=16).build(replace(SHAPE, max_len=4096)))
    modules += [EveryOther(2), EveryOther(3), SparseSoftmax(block=16, whole=0)]
    found = [each._blocks(q, k, Mask()) for each in modules]
    assert len({*map(id, found)}) == len(modules) == len(found_blocks)


def tensors_of(thing):
    """All that a block mask holds, in its fields and in what its pattern has closed over."""
    if isinstance(thing, Tensor):
        return [thing]
    held = [each.cell_contents for each in getattr(thing, "__closure__", None) or ()]
    held += vars(thing).values() if isinstance(thing, BlockMask) else ()
    return [found for each in held for found in tensors_of(each)]


@pytest.mark.parametrize("variant", VARIANTS[:4], ids=lambda each: each.name)
def test_blocks_that_judging_found_can_be_trained_with(variant):
    module, (q, k, _) = variant.build(SHAPE), inputs()
    flex.bands.cache_clear()
    with torch.inference_mode():
        found = (module._blocks(q, k, Mask()), flex.bands(LENGTH, LENGTH, True, None, q.device))
    held = [tensors_of(each) for each in found]
    assert len(held[0]) > len(held[1]) or variant.name != "bigbird", "the pattern is a table"
    assert all(held)
    assert not [each for each in (*held[0], *held[1]) if each.is_inference()]


@pytest.mark.parametrize("variant", VARIANTS[:4], ids=lambda each: each.name)
@pytest.mark.parametrize(("length", "source"), [(300, 300), (130, 300), (256, 256), (7, 129)])
@pytest.mark.parametrize("causal", [False, True])
def test_blocks_are_those_that_torch_finds(variant, length, source, causal):
    device, first = torch.device("cpu"), source - length
    pattern = variant.build(SHAPE)._seen(length, source, Mask(causal=causal), device)
    expected = create_block_mask(lambda _b, _h, i, j: pattern(i + first, j), None, None, length, source, device="cpu")
    for one, other in zip(flex.blocks_of(pattern, length, source, device).as_tuple(), expected.as_tuple(), strict=True):
        if isinstance(other, Tensor):
            assert_close(one, other, rtol=0, atol=0)
        elif not callable(other):
            assert one == other


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, out.numel() if isinstance(out, Tensor) else 0)
        return out


def test_blocks_are_found_without_a_tensor_of_all_pairs():
    length, pattern = 4096, SlidingWindow(window=16).build(SHAPE).pattern(4096, torch.device("cpu"))
    with Largest() as largest:
        flex.blocks_of(pattern, length, length, torch.device("cpu"))
    assert 0 < largest.numbers <= flex.BLOCK * length


def test_a_pattern_says_all_where_a_variant_says_nothing():
    everything = SparseSoftmax(block=16, whole=0).pattern(9, torch.device("cpu"))
    assert everything(torch.arange(9)[:, None], torch.arange(9)).all()


# -- score by score


def capped(*others):
    """Softmax attention with a low cap, which changes every score."""
    return token_mixer(MultiHead(), [SoftCap(cap=0.5), *others], SHAPE)


@pytest.mark.filterwarnings(f"ignore:{SAID}")
@torch.no_grad()
@pytest.mark.parametrize(
    "mask",
    [Mask(), Mask(padding=PADDING), Mask(causal=True), Mask(causal=True, padding=PADDING, window=(9, 40))],
    ids=["all", "padding", "causal", "causal-padding-window"],
)
def test_what_changes_each_score_by_itself_keeps_the_kernel(calls, mask):
    mixing, x_BLD = capped(), numbers(2, LENGTH, 64)
    expected = mixing(x_BLD, mask, weights=True)[0]
    assert not calls
    assert expected.weights is not None
    assert_close(mixing(x_BLD, mask)[0].out, expected.out)
    assert len(calls) == 1
    plain = token_mixer(MultiHead(), [], SHAPE)
    plain.load_state_dict(mixing.state_dict(), strict=False)
    assert not torch.allclose(plain(x_BLD, mask)[0].out, expected.out), "the cap is felt"


@pytest.mark.filterwarnings(f"ignore:{SAID}")
@torch.no_grad()
def test_what_needs_all_scores_at_once_does_not(calls):
    capped(TalkingHeads())(numbers(2, LENGTH, 64), Mask())
    token_mixer(Sink(), [SoftCap(cap=0.5)], SHAPE)(numbers(2, LENGTH, 64), Mask())
    assert not calls


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@torch.no_grad()
def test_a_change_of_scores_compiles(calls, monkeypatch):
    monkeypatch.setattr(flex, "kernel", lambda: torch.compile(flex_attention, fullgraph=True))
    mixing, x_BLD, mask = capped(), numbers(2, LENGTH, 64), Mask(causal=True, padding=PADDING)
    assert_close(mixing(x_BLD, mask)[0].out, mixing(x_BLD, mask, weights=True)[0].out)


@torch.no_grad()
def test_the_blocks_of_a_length_are_found_once():
    flex.bands.cache_clear()
    found = [flex.bands(LENGTH, LENGTH, True, None, torch.device("cpu")) for _ in range(2)]
    assert found[0] is found[1] is not None
    assert flex.bands(LENGTH, LENGTH, False, None, torch.device("cpu")) is None


# -- when


def test_it_serves_long_inputs_of_a_gpu_alone(calls):
    q, _, v = inputs()
    assert flex.serves(q, v, Mask(padding=PADDING, causal=True, window=(3, 3)))
    assert not flex.serves(q[:, :, :1], v, Mask()), "one step of decoding"
    assert not flex.serves(q, v, Mask(bias=torch.zeros(1)))
    assert not flex.serves(q, v, Mask(dense=torch.ones(1, dtype=torch.bool)))
    assert not flex.serves(q.double(), v.double(), Mask())
    assert not flex.serves(q[..., :8], v[..., :8], Mask())


@pytest.mark.filterwarnings(f"ignore:{SAID}")
@torch.no_grad()
def test_in_mixed_precision_all_is_of_the_type_of_the_values(calls):
    module, (q, k, v) = SlidingWindow(window=16).build(SHAPE), inputs()
    assert module(q, k, v.bfloat16(), Mask(), weights=False).out.dtype == torch.bfloat16
    assert calls


def test_it_does_not_serve_a_cpu():
    q, _, v = inputs(flex.LEAST_LENGTH, flex.LEAST_LENGTH)
    assert not flex.serves(q, v, Mask())


@pytest.mark.parametrize("judging", [torch.inference_mode, torch.no_grad])
def test_it_is_tried_out_with_gradients_although_judging_asks_first(monkeypatch, judging):
    monkeypatch.setattr(flex, "DEVICES", {"cpu"})
    monkeypatch.setattr(torch, "compile", lambda *_, **__: torch.lerp)
    with judging():
        assert flex.kernel.__wrapped__() is torch.lerp


def test_where_it_does_not_compile_blocks_go_on_and_it_is_said_once(monkeypatch):
    def compile(*_, **__):
        def run(*_):
            raise RuntimeError("Cannot find a working triton installation.\nSee there.")

        return run

    monkeypatch.setattr(flex, "DEVICES", {"cpu"})
    monkeypatch.setattr(flex, "kernel", flex.kernel.__wrapped__)
    monkeypatch.setattr(torch, "compile", compile)
    q, _, v = inputs(flex.LEAST_LENGTH, flex.LEAST_LENGTH)
    with pytest.warns(UserWarning, match=r"does not compile here \(RuntimeError: Cannot find a working triton inst"):
        assert not flex.serves(q, v, Mask())


# -- when torch compiles no more


@pytest.fixture
def spent(calls, monkeypatch):
    """A kernel that torch does not compile once more, and how often it was asked."""
    asked = []

    def refusing(*_, **__):
        asked.append(1)
        raise FailOnRecompileLimitHit("Hard failure due to fullgraph=True")

    monkeypatch.setattr(flex, "_spent", False)
    monkeypatch.setattr(flex, "kernel", lambda: refusing)
    return asked


REFUSED = "FlexAttention is compiled as often as torch allows"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda each: each.name)
def test_where_torch_compiles_no_more_blocks_of_our_own_go_on(variant, spent):
    module, (q, k, v), mask = variant.build(SHAPE), inputs(), Mask(padding=PADDING)
    expected = module(q, k, v, mask, weights=True).out
    with pytest.warns(UserWarning, match=REFUSED):
        assert_close(module(q.requires_grad_(), k, v, mask, weights=False).out, expected)
    assert not flex.serves(q, v, mask)
    module(q, k, v, mask, weights=False).out.sum().backward()
    assert len(spent) == 1


@pytest.mark.filterwarnings(f"ignore:{SAID}")
@torch.no_grad()
def test_where_torch_compiles_no_more_changes_of_scores_go_on(spent):
    mixing, x_BLD, mask = capped(), numbers(2, LENGTH, 64), Mask(causal=True, padding=PADDING)
    expected = mixing(x_BLD, mask, weights=True)[0].out
    with pytest.warns(UserWarning, match=REFUSED):
        assert_close(mixing(x_BLD, mask)[0].out, expected)
    assert_close(mixing(x_BLD, mask)[0].out, expected)
    assert len(spent) == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@torch.no_grad()
def test_what_torch_raises_at_its_limit_is_what_is_caught(calls, monkeypatch):
    compiled, module = torch.compile(flex_attention, fullgraph=True), Strided(block=32).build(SHAPE)
    monkeypatch.setattr(flex, "_spent", False)
    monkeypatch.setattr(flex, "MOST_COMPILED", 1)
    monkeypatch.setattr(flex, "kernel", lambda: compiled)
    torch._dynamo.reset()
    SlidingWindow(window=16).build(SHAPE)(*inputs(), Mask(), weights=False)
    with pytest.warns(UserWarning, match=REFUSED):
        found = module(*inputs(), Mask(), weights=False).out
    assert_close(found, module(*inputs(), Mask(), weights=True).out)

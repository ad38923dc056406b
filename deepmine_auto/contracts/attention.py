"""Attention variants: cores, modifiers and mixers, what they declare and what their modules return.

Shapes: B batch, L length, S source length (keys), D dim, H heads, G key-value heads, K dim of one head.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from deepmine_auto.contracts.plugin import Plugin

if TYPE_CHECKING:
    from torch import Tensor, nn

Mode = Literal["bidirectional", "causal", "cross"]
MaskFeature = Literal["padding", "causal", "window", "bias", "dense"]


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What a variant can do. The host enforces modes, masks, decoding, max_len, devices and dtypes; of these the first
    three refuse by default, and the others allow what most variants can. The rest is what a search goes by, and what
    the promises hold a variant to.

    modes, masks: any other is refused where a layer is built or called. max_len: the most tokens, None for any; where
    inputs are longer, it is not searched. devices, dtypes: any other is refused where a layer is called, but for
    dtypes in mixed precision, where its weights are float32.
    weights: `exact` returns the matrix that multiplies the values, which a modifier of the past needs, `implicit` can
    compute an equal one, `none` cannot.
    fit: how it enters a pretrained model: `exact`, a neutral setting equals the original, and a search holds the fields
    there, so that only what learns leads away from it; `finetune`; `weights` (new).
    decoding: `kv`, the last query needs no more than the keys and values before it; `state`, a mixer whose state says
    all of the past; `none` is refused where a model decodes. matrix: its module is a `DenseAttention`, which is looked
    at, whose scores and weights a modifier may change.
    saves: costing less than softmax is all that it offers, so where it costs more it is not searched.
    scaling: the exponent of L in its cost, 2 for dense attention.
    normalized (rows of weights sum to one), position_free (a shuffle of tokens changes their order alone), onnx (a
    layer exports) and deterministic, which is so unless it says otherwise: the promises alone look at them.
    """

    modes: frozenset[Mode] = frozenset()
    masks: frozenset[MaskFeature] = frozenset()
    weights: Literal["exact", "implicit", "none"] = "none"
    fit: Literal["exact", "finetune", "weights"] = "weights"
    decoding: Literal["kv", "state", "none"] = "none"
    normalized: bool = False
    position_free: bool = False
    matrix: bool = False
    saves: bool = False
    scaling: float = 2.0
    onnx: bool = False
    deterministic: bool = True
    max_len: int | None = None
    devices: frozenset[str] = frozenset({"cpu", "cuda"})
    dtypes: frozenset[str] = frozenset({"float32", "float64"})

    @classmethod
    def everywhere(cls, **changed: Any) -> Caps:
        """Declare every mode and every mask feature, for what only touches single tokens or single scores."""
        modes: frozenset[Mode] = frozenset({"bidirectional", "causal", "cross"})
        masks: frozenset[MaskFeature] = frozenset({"padding", "causal", "window", "bias", "dense"})
        return cls(**{"modes": modes, "masks": masks, **changed})


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """Where a variant stands in a model. Heads are the model's; a variant whose idea they are sets them (`adapt`)."""

    dim: int
    heads: int
    kv_heads: int
    layer: int = 0
    max_len: int = 512
    mode: Mode = "bidirectional"

    @property
    def head_dim(self) -> int:
        """K, the dim of one head."""
        return self.dim // self.heads


class Cost(NamedTuple):
    """What one forward pass takes: floating point operations, and peak bytes beyond inputs and outputs."""

    flops: float
    peak_bytes: float


START: tuple[()] = ()
"""The state of a layer that has seen nothing yet."""


class Mixed(NamedTuple):
    """What a variant returns: out (B, H, L, K) for a core or (B, L, D) for a mixer, weights (B, H, L, S) if asked for
    and known, and extra losses by name (means over the rows of the batch)."""

    out: Tensor
    weights: Tensor | None = None
    losses: Mapping[str, Tensor] = {}


class Attention(Plugin):
    """A way to mix tokens: core, modifier or mixer.

    A module of any of them may have `step(done)`, which is called after each training step with the share of the
    training that is done, from 0 to 1: to anneal a temperature, clamp a span, redraw features. What it changes is a
    parameter or a persistent buffer, so that a checkpoint holds it.
    """

    kind = "attention"
    caps: ClassVar[Caps]
    neutral: ClassVar[Mapping[str, Any] | None] = None
    """The field values at which the variant equals softmax attention; None where there are none."""

    @abstractmethod
    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module that owns the learned parameters."""

    def adapt(self, shape: AttentionShape) -> AttentionShape:
        """Return the shape that the projections are built for."""
        return shape

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Estimate one row's forward pass at `length`; the default is dense softmax attention."""
        return Cost(flops=4.0 * length**2 * shape.dim, peak_bytes=4.0 * length**2 * shape.heads)


class AttentionCore(Attention):
    """Mixes values by queries and keys. Its module: `forward(q_BHLK, k_BGSK, v_BGSK, mask, *, weights) -> Mixed`.

    G divides H; keys and values come unrepeated.
    """

    scaled: ClassVar[bool] = True
    """Whether its scores are divided by sqrt(K)."""


Needs = Literal["nothing", "bias", "matrix", "past"]


class AttentionModifier(Attention):
    """Changes a core. Its module has any of these methods:

    - `on_qk(q_BHLK, k_BGSK, mask) -> (q_BHLK, k_BGSK)`, before they are compared;
    - `bias(q_BHLK, k_BGSK) -> (B or 1, H, L, S)`, added to the scores, -inf hides; needs = "bias";
    - `on_score(score) -> score`, which changes each score by itself, whatever its shape, so that on a GPU long inputs
      keep a kernel; needs = "matrix";
    - `on_scores(scores_BHLS)` and `on_weights(weights_BHLS)`; needs = "matrix";
    - `on_out(out_BHLK, x_BLD) -> out_BHLK`, where x is what the layer reads;
    - `losses() -> dict of scalar tensors by name`, means over rows, of the last forward pass;
    - `on_past(k_BHSK, last_BHS, sum_BHS) -> k_BHSK`, where the weights of the step before, and those of all steps
      before in sum, are zero at the first step; needs = "past";
    - `alignment_losses(weights_BHLS, keep_BL) -> dict of scalar tensors by name`, means over rows, of all steps at
      their end, where keep is False at steps that are padding; needs = "past".

    All but `on_score`, `on_scores`, `on_weights` and those of the past keep the fused kernel.
    """

    needs: ClassVar[Needs] = "nothing"
    """What a core must have: the mask feature `bias`, `caps.matrix`, or, to know the past, exact weights. A module with
    a hook whose need is not declared is refused. The past is known only where a model goes step by step, as two LSTMs
    do: who needs it declares the cross mode alone."""
    order: ClassVar[int] = 0
    """Modifiers of a lower order go first: what normalises, before what scales."""
    rescales: ClassVar[bool] = False
    """Whether it puts a scale of its own in the place of the division by sqrt(K), which a core must then have."""


class AttentionMixer(Attention):
    """Owns its projections. Its module: `forward(x_BLD, mask, state, *, weights) -> (Mixed, state)`.

    With `caps.decoding = "state"` it decodes step by step: state `START` says that nothing has been seen yet, and each
    call then gets only the new tokens and the state that the call before returned. With state None nothing is kept,
    and None is returned.
    """

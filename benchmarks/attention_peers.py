"""The best public torch formulation of each variant's mathematics, as one step over the same inputs.

A package where there is one (pip install "deepmine-auto[peers]"), else the definition as one would write it in torch.

Shapes: B batch, L length, D dim, H heads, K dim of one head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Core = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(B, H, L, K) three times to (B, H, L, K)."""


def scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5


def hidden(x: Tensor, causal: bool) -> Tensor:
    if not causal:
        return x
    return x.masked_fill(torch.ones(x.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)


def distance(length: int) -> Tensor:
    at = torch.arange(length)
    return (at[None, :] - at[:, None]).abs()


def sdpa(causal: bool) -> Core:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def grouped(causal: bool) -> Core:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)


def x_transformers(**options: object) -> Callable[[bool], Core]:
    def make(causal: bool) -> Core:
        from x_transformers.attend import Attend

        attend = Attend(causal=causal, **options)
        return lambda q, k, v: attend(q, k, v)[0]

    return make


def local(window: int) -> Callable[[bool], Core]:
    def make(causal: bool) -> Core:
        from local_attention import LocalAttention

        attend = LocalAttention(window, causal=causal, exact_windowsize=True, autopad=True, use_rotary_pos_emb=False)
        return lambda q, k, v: attend(q, k, v)

    return make


def elu_kernel(causal: bool) -> Core:
    """Bidirectional: three products. Causal: performer-pytorch's way, the running sum of every outer product."""

    def whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = F.elu(q) + 1, F.elu(k) + 1
        return q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(-2)[..., None])

    def running(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from performer_pytorch.performer_pytorch import causal_linear_attention_noncuda

        return causal_linear_attention_noncuda(F.elu(q) + 1, F.elu(k) + 1, v)

    return running if causal else whole


def features(count: int) -> Callable[[bool], Core]:
    def make(causal: bool) -> Core:
        from performer_pytorch import FastAttention

        made: dict[int, nn.Module] = {}

        def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if not made:
                made[0] = FastAttention(q.shape[-1], nb_features=count, causal=causal)
            return made[0](q, k, v)

        return core

    return make


def bisected_entmax(causal: bool) -> Core:
    from entmax import entmax_bisect

    return lambda q, k, v: entmax_bisect(hidden(scores(q, k), causal), alpha=1.5, dim=-1) @ v


def dense(change: Callable[[Tensor], Tensor]) -> Callable[[bool], Core]:
    return lambda causal: lambda q, k, v: hidden(change(scores(q, k)), causal).softmax(-1) @ v


def alibi(causal: bool) -> Core:
    def core(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        slopes = 2.0 ** -torch.linspace(1, 8, q.shape[1])
        bias = -slopes[:, None, None] * distance(q.shape[2])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=hidden(bias, causal))

    return core


CORES: dict[str, tuple[str, Callable[[bool], Core]]] = {
    "multi_head": ("torch SDPA", sdpa),
    "grouped_query": ("torch SDPA", grouped),
    "learned_temperature": ("torch SDPA", sdpa),
    "sliding_window": ("local-attention", local(64)),
    "linear": ("three products, performer-pytorch", elu_kernel),
    "performer": ("performer-pytorch", features(128)),
    "entmax": ("entmax", bisected_entmax),
    "top_k": ("x-transformers", x_transformers(sparse_topk=8)),
    "sigmoid": ("x-transformers", x_transformers(sigmoid=True)),
    "talking_heads": ("x-transformers", x_transformers(heads=4, pre_talking_heads=True, post_talking_heads=True)),
    "soft_cap": ("x-transformers", x_transformers(softclamp_logits=True)),
    "qk_norm": (
        "torch SDPA",
        lambda causal: lambda q, k, v: sdpa(causal)(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v),
    ),
    "alibi": ("torch SDPA with a bias", alibi),
}
"""Variants whose peer takes queries, keys and values."""


class Mixing(nn.Module):
    """Projections around a peer, where ours has projections too."""

    def __init__(self, dim: int, heads: int, core: Core) -> None:
        super().__init__()
        self.heads, self.core = heads, core
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.to_qkv(x_BLD).chunk(3, -1))
        out = self.core(q, k, v)
        out = out if out.shape[1] == self.heads else out.transpose(1, 2)
        return self.to_out(out.transpose(1, 2).flatten(2))


def nystrom(dim: int, heads: int, _length: int) -> nn.Module:
    from nystrom_attention import NystromAttention

    return NystromAttention(dim, dim // heads, heads, num_landmarks=64, residual=False)


def linformer(dim: int, heads: int, length: int) -> nn.Module:
    from linformer import LinformerSelfAttention

    return LinformerSelfAttention(dim, length, k=64, heads=heads)


def gated_delta(dim: int, heads: int, _length: int) -> nn.Module:
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    each = {"linear_num_value_heads": heads, "linear_num_key_heads": heads, "linear_key_head_dim": dim // heads}
    return Qwen3NextGatedDeltaNet(Qwen3NextConfig(hidden_size=dim, linear_value_head_dim=dim // heads, **each), 0)


def mamba2(dim: int, heads: int, _length: int) -> nn.Module:
    from transformers import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    sizes = {"num_heads": heads, "head_dim": 2 * dim // heads, "state_size": 64, "n_groups": 1}
    return Mamba2Mixer(Mamba2Config(hidden_size=dim, expand=2, **sizes), 0)


class Longformer(nn.Module):
    """A window of 64 to each side, and one global token."""

    def __init__(self, dim: int, heads: int, length: int) -> None:
        super().__init__()
        from transformers import LongformerConfig
        from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

        config = LongformerConfig(hidden_size=dim, num_attention_heads=heads, attention_window=[128],
                                  attention_probs_dropout_prob=0.0)  # fmt: skip
        self.attend, self.to_out = LongformerSelfAttention(config, 0), nn.Linear(dim, dim)
        self.first = torch.arange(length)[None] == 0

    def forward(self, x_BLD: Tensor) -> Tensor:
        masks = {"attention_mask": self.first.float(), "is_index_masked": torch.zeros_like(self.first)}
        found = self.attend(x_BLD, **masks, is_index_global_attn=self.first, is_global_attn=True)
        return self.to_out(found[0])


LAYERS: dict[str, tuple[str, Callable[[int, int, int], nn.Module]]] = {
    "nystrom": ("nystrom-attention", nystrom),
    "linformer": ("linformer", linformer),
    "gated_delta": ("Qwen3-Next of transformers", gated_delta),
    "mamba2": ("Mamba2 of transformers", mamba2),
    "global_window": ("Longformer of transformers", Longformer),
}
"""Variants whose peer is a whole layer, (B, L, D) to (B, L, D)."""

"""Mixed precision: the large products of a training step in bfloat16, weights and what they learn from in float32."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepmine_auto import Applied, Mixed, Technique, TrainingFacts

MULTIPLIES = ("amx_tile", "avx512_bf16")
"""What a CPU has that multiplies bfloat16 in hardware made for it."""


@dataclass(frozen=True, kw_only=True)
class MixedPrecision(Technique):
    """On GPUs with tensor cores, and on CPUs that multiply bfloat16 (AMX, AVX512_BF16), a step takes a fraction of its
    time and less memory. Elsewhere nothing is changed: there bfloat16 is slower. Models are judged and exported in
    float32."""

    name: ClassVar[str] = "mixed_precision"
    source: ClassVar[str] = "arXiv:1905.12322"
    touches = frozenset({"loss"})

    def build(self, facts: TrainingFacts) -> Applied:
        """Have the model compute in mixed precision while it trains."""
        device = next(facts.model.parameters()).device.type
        if pays(device):
            autocast(facts.model, device)
        return Applied()


def pays(device: str) -> bool:
    """Whether a kind of device multiplies bfloat16 in hardware made for it."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and any(torch.cpu.get_capabilities().get(each) for each in MULTIPLIES)


def autocast(model: nn.Module, device: str) -> None:
    """Let a model's forward pass run in mixed precision while it trains; what it returns is float32."""
    forward = model.forward

    def mixed(*args: Any, **told: Any) -> Any:
        if not model.training:
            return forward(*args, **told)
        attending = AttentionInFloat32() if device == "cpu" else nullcontext()
        with torch.autocast(device, torch.bfloat16), attending:
            out = forward(*args, **told)
        return _float32(out)

    model.forward = mixed


class AttentionInFloat32(TorchFunctionMode):
    """On a CPU, going back through attention in bfloat16 takes about as long as in float32, and eight times as long for
    texts of a dozen tokens."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch; SDPA in float32, with a result of the query's type."""
        named = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **named)
        with torch.autocast("cpu", enabled=False):
            out = func(*map(_float32, args), **{name: _float32(each) for name, each in named.items()})
        return out.to((args[0] if args else named["query"]).dtype)


def _float32(out: Any) -> Any:
    """The same with its tensors, and those of its parts, in float32."""
    if isinstance(out, Tensor):
        return out.float() if out.is_floating_point() else out
    if isinstance(out, dict):
        return {name: _float32(each) for name, each in out.items()}
    return Mixed(*map(_float32, out)) if isinstance(out, Mixed) else out

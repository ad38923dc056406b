"""Mixed precision: the large products of a training step in half floats, weights and their moments in float32."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepmine_auto import Applied, Mixed, Step, Technique, TrainingFacts

MULTIPLIES = ("amx_tile", "avx512_bf16")
"""What a CPU has that multiplies bfloat16 in hardware made for it."""

TENSOR_CORES = (7, 0)
"""The first GPUs that multiply float16 in hardware made for it."""

FIRST_SCALE, STEPS_TO_DOUBLE = 2.0**16, 2_000
"""How much larger gradients are made at first, and the steps without an overflow after which that doubles."""


@dataclass(frozen=True, kw_only=True)
class MixedPrecision(Technique):
    """On GPUs with tensor cores (bfloat16 where they have it, else float16 with scaled gradients), and on CPUs that
    multiply bfloat16 (AMX, AVX512_BF16), a step takes a fraction of its time and less memory. Elsewhere nothing is
    changed: there half floats are slower. Models are judged and exported in float32."""

    name: ClassVar[str] = "mixed_precision"
    source: ClassVar[str] = "arXiv:1905.12322"
    touches = frozenset({"loss"})

    def build(self, facts: TrainingFacts) -> Applied:
        """Have the model compute in mixed precision while it trains."""
        device = next(facts.model.parameters()).device.type
        half = half_floats(device)
        if half is not None:
            autocast(facts.model, device, half)
        return Scaled(facts.model) if half is torch.float16 else Applied()


def half_floats(device: str) -> torch.dtype | None:
    """The half floats that a kind of device multiplies in hardware made for it."""
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return torch.float16 if torch.cuda.get_device_capability() >= TENSOR_CORES else None
    multiplies = device == "cpu" and any(torch.cpu.get_capabilities().get(each) for each in MULTIPLIES)
    return torch.bfloat16 if multiplies else None


def autocast(model: nn.Module, device: str, half: torch.dtype) -> None:
    """Let a model's forward pass run in mixed precision while it trains; what it returns is float32."""
    forward = model.forward

    def mixed(*args: Any, **told: Any) -> Any:
        if not model.training:
            return forward(*args, **told)
        attending = AttentionInFloat32() if device == "cpu" else nullcontext()
        with torch.autocast(device, half), attending:
            out = forward(*args, **told)
        return _float32(out)

    model.forward = mixed


class Scaled(Applied):
    """float16 knows no numbers as small as many gradients are: the loss is made larger, and the gradients small again.
    A step in which some of them overflow moves nothing (arXiv:1710.03740)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.factor, self.steps = torch.tensor(FIRST_SCALE), torch.zeros((), dtype=torch.int64)

    def scale(self) -> float:
        """Return the factor."""
        return float(self.factor)

    def after_backward(self, step: Step) -> None:
        """Divide the gradients, or take them away where some are not finite, and look for the largest factor at which
        all are. What is not finite at a factor of one stays, so that the trial diverges."""
        learning = [each for each in self.model.parameters() if each.grad is not None]
        gradients = [each.grad for each in learning if each.grad is not None]
        fits = bool(torch.nn.utils.get_total_norm(gradients).isfinite()) or self.factor <= 1.0
        torch._foreach_div_(gradients, self.scale())
        for each in learning if not fits else ():
            each.grad = None
        self.steps += 1 if fits else -self.steps
        if not fits or self.steps % STEPS_TO_DOUBLE == 0:
            self.factor *= 2.0 if fits else 0.5

    def state_dict(self) -> dict[str, Tensor]:
        """Return the factor, and the steps since the last overflow."""
        return {"factor": self.factor, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them back; a checkpoint of hardware on which nothing was scaled has none."""
        if state:
            self.factor.copy_(state["factor"])
            self.steps.copy_(state["steps"])


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

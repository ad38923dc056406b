"""What a checkpoint holds of a training, and how a training takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepmine_auto.training import checkpoint

if TYPE_CHECKING:
    from deepmine_auto.training.loop import Training


@dataclass
class Progress:
    """What a checkpoint must know beside weights: where the trial stands, the step that it was last judged at, its best
    so far, and what it was found to cost when all that goes along with its training was at work."""

    step: int = 0
    judged: int = 0
    best: float | None = None
    best_step: int = 0
    best_checkpoint: str | None = None
    stale: int = 0
    seconds: float = 0.0
    costs: dict[str, float] = field(default_factory=dict)


def collect(training: Training) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what to save: weights, optimizer, techniques, random numbers and progress, as tensors and plain values."""
    tensors, optimizer = checkpoint.flatten_optimizer(training.optimizer)
    named = {f"model.{name}": each for name, each in training.model.state_dict().items()}
    named |= {f"optimizer.{name}": each for name, each in tensors.items()}
    for name, each in training.techniques.items():
        named |= {f"technique.{name}.{key}": value for key, value in each.state_dict().items()}
    named["rng.torch"] = torch.get_rng_state()
    named["rng.generator"] = training.generator.get_state()
    if training.device.type == "cuda":
        named["rng.cuda"] = torch.cuda.get_rng_state()
    return named, {"progress": asdict(training.progress), "optimizer": optimizer}


def restore(training: Training, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Take back what `collect` returned."""
    training.model.load_state_dict(checkpoint.under("model", tensors))
    checkpoint.restore_optimizer(training.optimizer, checkpoint.under("optimizer", tensors), state["optimizer"])
    for name, each in training.techniques.items():
        each.load_state_dict(checkpoint.under(f"technique.{name}", tensors))
    torch.set_rng_state(tensors["rng.torch"])
    training.generator.set_state(tensors["rng.generator"])
    if "rng.cuda" in tensors and training.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    training.progress = Progress(**state["progress"])

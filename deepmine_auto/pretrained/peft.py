"""Parameter-efficient tuning through peft, which an extra installs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from deepmine_auto.errors import MissingExtra


def inject(config: str, model: nn.Module, **options: Any) -> None:
    """Freeze a model, and put into it what a config of peft describes, such as `LoraConfig`. Raises MissingExtra where
    peft is not installed."""
    if find_spec("peft") is None:
        raise MissingExtra("This tuning needs peft.", 'pip install "deepmine-auto[pretrained]"')
    import peft

    peft.inject_adapter_in_model(getattr(peft, config)(**options), model)


def take_lengths(model: nn.Module) -> None:
    """Let what DoRA learns of each matrix begin with the lengths that its rows have now: peft has taken those of the
    weights that were there when it was put in."""
    layers: list[Any] = [each for each in model.modules() if hasattr(each, "lora_magnitude_vector")]
    for layer in layers:
        for length in layer.lora_magnitude_vector.values():
            with torch.no_grad():
                # what is learned beside the matrix adds nothing to it yet
                length.weight.copy_(torch.linalg.norm(layer.get_base_layer().weight, dim=1))

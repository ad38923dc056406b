"""What was learned beside frozen layers, worked into them: a merged model is as fast as it was, and needs no plugin."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn


def merge(model: nn.Module) -> bool:
    """Put a layer with what it learned in the place of what wraps it: of peft's, and of what has `merged_layer()`.
    Return whether nothing is left of a tuning: no wrapped layer, and nothing that `stays`."""
    for parent in [*model.modules()]:
        for name, each in [*parent.named_children()]:
            layer = _merged(each)
            if layer is not None:
                setattr(parent, name, layer)
    wrapped = any("base_layer" in name for name, _ in model.named_parameters())
    return not wrapped and not any(getattr(type(each), "stays", False) for each in model.modules())


def _merged(layer: Any) -> nn.Module | None:
    if hasattr(layer, "merged_layer"):
        merged: nn.Module = layer.merged_layer()
        return merged
    peft = sys.modules.get("peft.tuners.tuners_utils")  # a layer of peft cannot be there unless it was imported
    if peft is None or not isinstance(layer, peft.BaseTunerLayer):
        return None
    layer.merge()
    base: nn.Module = layer.get_base_layer()
    return base

"""From params to a model: variant, modifiers, backbone and head, built by the plugins that the params name.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from deepmine_auto.admission import contradiction
from deepmine_auto.contracts import (
    Attention,
    AttentionModifier,
    AttentionShape,
    Backbone,
    Companion,
    Mixed,
    Prepared,
    Task,
    Tuning,
)
from deepmine_auto.host import Host
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.pretrained.surgery import variants_learning
from deepmine_auto.space import plugin_from

Params = Mapping[str, Any]
ONE_OF = ("tuning", "optimizer", "schedule")
"""Kinds of which a trial uses one, which the param `KIND/kind` names; the params of a bundle name none of them."""


class Model(nn.Module):
    """A backbone and a task's head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.companions: list[Companion] = []

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor, *, weights: bool = False) -> Mixed:
        """Return the head's outputs as `out`, with the attention's weights and losses, and in training with those of
        the companions."""
        companions, read_BL = self.companions if self.training else (), tokens_BL
        for each in companions:
            read_BL = each.on_tokens(read_BL, keep_BL)
        mixed: Mixed = self.backbone(read_BL, keep_BL, weights=weights)
        losses = {**mixed.losses}
        for each in companions:
            losses |= each.losses(read_BL, keep_BL, mixed.out)
        return mixed._replace(out=self.head(mixed.out, keep_BL), losses=losses)


def used(params: Params, prefix: str) -> list[str]:
    """The plugins under `prefix` whose `use` is true, by name."""
    parts = (name.split("/") for name, value in params.items() if value is True)
    return sorted(each[1] for each in parts if len(each) == 3 and each[0] == prefix and each[2] == "use")


def attention_of(params: Params, host: Host) -> tuple[Attention, list[AttentionModifier]]:
    """The core or mixer, and the modifiers, that params name."""
    kind = params["attention/kind"]
    variant = plugin_from(host.get("attention", kind), params, f"attention/{kind}")
    modifiers = [plugin_from(host.get("attention", name), params, f"attention/{name}")
                 for name in used(params, "attention")]  # fmt: skip
    return variant, sorted(modifiers, key=lambda each: (each.order, each.name))


def other_of(params: Params, host: Host) -> tuple[Attention | None, int]:
    """The variant that takes one layer after each so many of the first, and how many; None and 0 where one is all."""
    if params.get("placement/kind", "same") == "same":
        return None, 0
    kind = params["placement/hybrid/kind"]
    variant: Attention = plugin_from(host.get("attention", kind), params, f"attention/{kind}")
    return variant, int(params["placement/hybrid/ratio"])


def build_model(params: Params, task: Task, prepared: Prepared, host: Host) -> Model:
    """Build the model of a trial or a bundle. Raises Refused for illegal sets, and whatever a plugin raises."""
    variant, modifiers = attention_of(params, host)
    other, beside = other_of(params, host)
    backbone = backbone_of(params, host)

    def attention(shape: AttentionShape) -> nn.Module:
        if other is None or shape.layer % (beside + 1) != beside:
            return token_mixer(variant, modifiers, shape)
        fitting = [each for each in modifiers if not contradiction(type(other), type(each))]
        return token_mixer(other, fitting, shape)

    stack = backbone.build(prepared, attention)
    if "tuning/kind" in params:
        with variants_learning(stack):
            tuning_of(params, host).apply(stack)
    return Model(stack, task.head(cast(int, stack.dim), prepared))


def backbone_of(params: Params, host: Host) -> Backbone:
    """The backbone plugin that params name; what backbones share stands under `model/`."""
    kind = params["model/kind"]
    backbone: Backbone = plugin_from(host.get("backbone", kind), params, "model", f"model/{kind}")
    return backbone


def tuning_of(params: Params, host: Host) -> Tuning:
    """The plugin that says what of a pretrained model learns."""
    kind = params["tuning/kind"]
    tuning: Tuning = plugin_from(host.get("tuning", kind), params, f"tuning/{kind}")
    return tuning


def task_of(name: str, params: Params, host: Host) -> Task:
    """The task plugin with its searched fields, which stand under `data/`."""
    task: Task = plugin_from(host.get("task", name), params, "data")
    return task


def plugins_of(task: str, params: Params) -> list[tuple[str, str]]:
    """The kind and name of every plugin that a trial uses."""
    named = [("task", task), ("attention", params["attention/kind"]), ("backbone", params["model/kind"])]
    named += [("attention", params["placement/hybrid/kind"])] if params.get("placement/kind") == "hybrid" else []
    named += [("attention", each) for each in used(params, "attention")]
    named += [(kind, params[f"{kind}/kind"]) for kind in ONE_OF if f"{kind}/kind" in params]
    return named + [("technique", each) for each in used(params, "technique")]

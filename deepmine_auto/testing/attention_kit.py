"""What all promises about an attention variant share: the variant, what it declares, and how examples are drawn.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import nn

from deepmine_auto.contracts import Attention, AttentionModifier, AttentionShape, Caps, Mode
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.testing.layers import Softmax, layer_of, variants

few_examples = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # a smaller example would say no more, and takes half a minute
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)


class AttentionKit:
    """A variant, and what a promise may ask of it before it is tested."""

    variant: ClassVar[type[Attention]]

    @property
    def caps(self) -> Caps:
        """What the variant declares."""
        return self.variant.caps

    def needs(self, declared: bool, what: str) -> None:
        """Skip a promise that the variant does not give."""
        if not declared:
            pytest.skip(f"{self.variant.name} does not declare {what}")

    def needs_exact_weights(self) -> None:
        """Skip a promise about the weight matrix where there is none."""
        self.needs(self.caps.weights == "exact", "exact weights")

    def modes(self) -> list[Mode]:
        """The declared modes in which tokens look at each other."""
        declared: list[Mode] = [mode for mode in ("bidirectional", "causal") if mode in self.caps.modes]
        self.needs(bool(declared), "a mode of self-attention")
        return declared

    def attend(self, shape: AttentionShape) -> nn.Module:
        """The token mixing of a layer, on softmax where the variant is a modifier."""
        variant = self.variant()
        on = (Softmax(), [variant]) if isinstance(variant, AttentionModifier) else (variant, [])
        return token_mixer(*on, shape)

    def draw_layer(self, data: st.DataObject) -> tuple[nn.Module, Mode]:
        """Draw fields and a mode, and build."""
        mode = data.draw(st.sampled_from(self.modes()), "mode")
        return layer_of(data.draw(variants(self.variant), "variant"), mode), mode

"""A model that others trained: an encoder of transformers, from a folder or from the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import nn

from deepmine_auto import (
    AttentionShape,
    Backbone,
    Choice,
    Float,
    Mode,
    Name,
    Original,
    Prepared,
    PretrainedStack,
    original_of,
    size_of,
)


@dataclass(frozen=True, kw_only=True)
class Pretrained(Backbone):
    """`origin` is a folder with config.json, tokenizer.json and safetensors, or a name of the hub with its revision,
    NAME@COMMIT. Several of them are a searched choice. Code of theirs is never run. Attention variants stand between
    the projections of its layers; softmax is left to the model. While it trains, a batch's texts stand side by side
    where a model allows it (`packing`); the rows of a batch are the same, and only its dropout is drawn otherwise."""

    name: ClassVar[str] = "pretrained"
    source: ClassVar[str] = "arXiv:1810.04805"
    modes: ClassVar[frozenset[Mode]] = frozenset()  # those of the model, which is asked itself
    pretrained: ClassVar[bool] = True
    fitted_by: ClassVar[tuple[str, ...]] = ("origin",)

    origin: Annotated[str, Name("the folder of a model, or NAME@REVISION of the hub")]
    dropout: Annotated[float, Float(0.0, 0.3)] = 0.1
    packing: Annotated[bool, Choice(False, True, searched=False)] = True

    def original(self) -> Original:
        """Return tokenizer and architecture. Raises BadInput where the model cannot be used."""
        return original_of(self.origin)

    def build(self, prepared: Prepared, attention: Callable[[AttentionShape], nn.Module]) -> nn.Module:
        """Build the model that `prepared` describes, with weights that were not trained yet."""
        return PretrainedStack(prepared, attention, self.dropout, self.packing)

    def begin(self, module: nn.Module) -> None:
        """Take over the weights that others trained. Raises BadInput where some are missing."""
        assert isinstance(module, PretrainedStack)
        module.take_weights(self.origin)

    def work(self) -> float:
        """Return depth times dim of the model."""
        return float(size_of(self.origin))

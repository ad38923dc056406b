"""The stack around attention, and what of a pretrained one learns.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from deepmine_auto.contracts.attention import AttentionShape, Mode
from deepmine_auto.contracts.plugin import Plugin
from deepmine_auto.contracts.task import Original, Prepared

if TYPE_CHECKING:
    from torch import nn


class Backbone(Plugin):
    """The stack around attention. Its module: `forward(tokens_BL, keep_BL, *, weights) -> Mixed`, out (B, L, D),
    with an attribute `dim`."""

    kind = "backbone"
    modes: ClassVar[frozenset[Mode]] = frozenset({"bidirectional"})
    """The modes in which it uses attention; a variant must have all of them. None where only the model that it is made
    of knows them, which is then asked."""
    pairs: ClassVar[bool] = False
    """Whether it takes rows apart into source and target."""
    pretrained: ClassVar[bool] = False
    """Whether others have trained it, so that it brings its own tokenizer."""
    fitted_by: ClassVar[tuple[str, ...]] = ()
    """The fields on which `original` depends."""

    @abstractmethod
    def build(self, prepared: Prepared, attention: Callable[[AttentionShape], nn.Module]) -> nn.Module:
        """Build the stack; `attention(shape)` makes the token mixing of one layer."""

    def original(self) -> Original | None:
        """Return what a task takes over of the model that others trained; None where nobody did. Raises BadInput."""
        return None

    def begin(self, module: nn.Module) -> None:
        """Give a module that `build` made the weights that training begins with; the default keeps what it has."""

    def work(self) -> float:
        """Return depth times dim, where it has such fields."""
        return float(getattr(self, "depth", 1) * getattr(self, "dim", 1))


class Tuning(Plugin):
    """What of a pretrained model learns: all of it, its top, or something small beside it. A field `top`, a float, is
    the share of the blocks, from the top, that it tunes, at least one."""

    kind = "tuning"
    neutral: ClassVar[bool] = True
    """Whether a model says at first what it said before."""
    rate: ClassVar[float] = 1e-3
    """The learning rate of AdamW that is tried first."""
    needs: ClassVar[str] = ""
    """The library beyond torch and transformers that it imports."""
    counts: ClassVar[str] = ""
    """The field, if any, that counts blocks: no more are searched than a model has."""

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Freeze weights of a `PretrainedStack`, which holds a model of transformers as its `model`, and put into it
        what learns beside them. Raises BadInput for a model that it cannot tune.

        A layer that is wrapped becomes the `base_layer` of what wraps it, which may have a `merged_layer()` for the
        export; a module that wraps nothing, and without which the model says something else, declares `stays = True`.
        Modules may have `extra_losses()`, by name, as means over rows, and a `step(done)`, called after each training
        step with the share that is done, while gradients are still there; what they remember must be in their state
        dict."""

    def work(self) -> float:
        """Return its field `top`, where it has one: what lies below is computed once, and kept."""
        top = getattr(self, "top", None)
        return top if isinstance(top, float) and 0.0 < top <= 1.0 else 1.0

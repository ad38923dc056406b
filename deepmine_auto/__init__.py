"""deepmine-auto finds the attention model for your data.

What stands here is all that a plugin may import. The names in `_LATE` load torch, so they are looked up on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepmine_auto.contracts import (
    START,
    Applied,
    AttentionCore,
    AttentionMixer,
    AttentionModifier,
    AttentionShape,
    Backbone,
    Batch,
    Caps,
    Companion,
    Cost,
    Direction,
    Fading,
    Given,
    MaskFeature,
    Mixed,
    Mode,
    Needs,
    Optimizer,
    Original,
    Prepared,
    Pruner,
    Report,
    Sampler,
    Schedule,
    Step,
    Task,
    Technique,
    Touches,
    TrainingFacts,
    Tuning,
    Verdict,
)
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.hookspecs import hookimpl
from deepmine_auto.space import Choice, Float, Int, Name

if TYPE_CHECKING:
    from deepmine_auto.classification import TextClassification
    from deepmine_auto.data.read import read_rows
    from deepmine_auto.data.rows import Rows, Source
    from deepmine_auto.loading import load
    from deepmine_auto.model.blocks import SparseSoftmax, WindowSoftmax
    from deepmine_auto.model.dense import DenseAttention, repeated
    from deepmine_auto.model.encoder_decoder import PairOfStacks
    from deepmine_auto.model.flex import Pattern
    from deepmine_auto.model.kernelized import kernel_attention
    from deepmine_auto.model.mask import Mask
    from deepmine_auto.model.offsets import by_offset, offsets
    from deepmine_auto.model.precision import full_precision
    from deepmine_auto.model.recurrent import RecurrentPair
    from deepmine_auto.model.softmax import FusedSoftmax, fused_softmax
    from deepmine_auto.model.stack import StackDesign, TransformerStack
    from deepmine_auto.model.words import word_rows, word_weights
    from deepmine_auto.pretrained.beside import before_words, beside_attention
    from deepmine_auto.pretrained.files import original_of
    from deepmine_auto.pretrained.healing import healer_of
    from deepmine_auto.pretrained.parts import biases_of, blocks_of, ends_of, linears_of, top_blocks, wrap
    from deepmine_auto.pretrained.peft import inject
    from deepmine_auto.pretrained.stack import PretrainedStack, size_of
    from deepmine_auto.searching import resume, search
    from deepmine_auto.tagging import Tagging
    from deepmine_auto.training.groups import decay_groups

_LATE = {
    "DenseAttention": "deepmine_auto.model.dense",
    "FusedSoftmax": "deepmine_auto.model.softmax",
    "Mask": "deepmine_auto.model.mask",
    "Rows": "deepmine_auto.data.rows",
    "Source": "deepmine_auto.data.rows",
    "TextClassification": "deepmine_auto.classification",
    "Pattern": "deepmine_auto.model.flex",
    "PairOfStacks": "deepmine_auto.model.encoder_decoder",
    "PretrainedStack": "deepmine_auto.pretrained.stack",
    "RecurrentPair": "deepmine_auto.model.recurrent",
    "StackDesign": "deepmine_auto.model.stack",
    "SparseSoftmax": "deepmine_auto.model.blocks",
    "TransformerStack": "deepmine_auto.model.stack",
    "WindowSoftmax": "deepmine_auto.model.blocks",
    "Tagging": "deepmine_auto.tagging",
    "by_offset": "deepmine_auto.model.offsets",
    "decay_groups": "deepmine_auto.training.groups",
    "full_precision": "deepmine_auto.model.precision",
    "fused_softmax": "deepmine_auto.model.softmax",
    "kernel_attention": "deepmine_auto.model.kernelized",
    "before_words": "deepmine_auto.pretrained.beside",
    "beside_attention": "deepmine_auto.pretrained.beside",
    "biases_of": "deepmine_auto.pretrained.parts",
    "blocks_of": "deepmine_auto.pretrained.parts",
    "ends_of": "deepmine_auto.pretrained.parts",
    "linears_of": "deepmine_auto.pretrained.parts",
    "healer_of": "deepmine_auto.pretrained.healing",
    "inject": "deepmine_auto.pretrained.peft",
    "load": "deepmine_auto.loading",
    "offsets": "deepmine_auto.model.offsets",
    "original_of": "deepmine_auto.pretrained.files",
    "read_rows": "deepmine_auto.data.read",
    "repeated": "deepmine_auto.model.dense",
    "resume": "deepmine_auto.searching",
    "search": "deepmine_auto.searching",
    "size_of": "deepmine_auto.pretrained.stack",
    "top_blocks": "deepmine_auto.pretrained.parts",
    "word_rows": "deepmine_auto.model.words",
    "word_weights": "deepmine_auto.model.words",
    "wrap": "deepmine_auto.pretrained.parts",
}

__version__ = "0.1.0"

__all__ = [
    "START",
    "Applied",
    "AttentionCore",
    "AttentionMixer",
    "AttentionModifier",
    "AttentionShape",
    "Backbone",
    "BadInput",
    "Batch",
    "Caps",
    "Choice",
    "Companion",
    "Cost",
    "DeepmineError",
    "DenseAttention",
    "Direction",
    "Fading",
    "Float",
    "FusedSoftmax",
    "Given",
    "Int",
    "Mask",
    "MaskFeature",
    "Mixed",
    "Mode",
    "Name",
    "Needs",
    "Optimizer",
    "Original",
    "PairOfStacks",
    "Pattern",
    "Prepared",
    "PretrainedStack",
    "Pruner",
    "RecurrentPair",
    "Report",
    "Rows",
    "Sampler",
    "Schedule",
    "Source",
    "SparseSoftmax",
    "StackDesign",
    "Step",
    "Tagging",
    "Task",
    "Technique",
    "TextClassification",
    "Touches",
    "TrainingFacts",
    "TransformerStack",
    "Tuning",
    "Verdict",
    "WindowSoftmax",
    "__version__",
    "before_words",
    "beside_attention",
    "biases_of",
    "blocks_of",
    "by_offset",
    "decay_groups",
    "ends_of",
    "full_precision",
    "fused_softmax",
    "healer_of",
    "hookimpl",
    "inject",
    "kernel_attention",
    "linears_of",
    "load",
    "offsets",
    "original_of",
    "read_rows",
    "repeated",
    "resume",
    "search",
    "size_of",
    "top_blocks",
    "word_rows",
    "word_weights",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'deepmine_auto' has no attribute '{name}'")
    return getattr(import_module(_LATE[name]), name)

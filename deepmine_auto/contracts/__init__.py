"""What a plugin implements. One class a kind; every plugin is a frozen dataclass of one of them.

A plugin's fields are its hyperparameters, annotated with the range worth searching (`space.Int`, `Float`, `Choice`);
a field without a range is not searched. One method, `build`, makes the working part, which owns all learned parameters.

Shapes: B batch, L length, S source length (keys), D dim, H heads, G key-value heads, K dim of one head, C classes.
"""

from deepmine_auto.contracts.attention import (
    START,
    Attention,
    AttentionCore,
    AttentionMixer,
    AttentionModifier,
    AttentionShape,
    Caps,
    Cost,
    MaskFeature,
    Mixed,
    Mode,
    Needs,
)
from deepmine_auto.contracts.backbone import Backbone, Tuning
from deepmine_auto.contracts.brought import KINDS, Brought
from deepmine_auto.contracts.plugin import Plugin
from deepmine_auto.contracts.search import Pruner, Report, Sampler, Verdict
from deepmine_auto.contracts.task import Batch, Direction, Original, Prepared, PreparedFor, Task
from deepmine_auto.contracts.training import (
    Applied,
    Companion,
    Fading,
    Given,
    Optimizer,
    Schedule,
    Step,
    Technique,
    Touches,
    TrainingFacts,
)

__all__ = [
    "KINDS",
    "START",
    "Applied",
    "Attention",
    "AttentionCore",
    "AttentionMixer",
    "AttentionModifier",
    "AttentionShape",
    "Backbone",
    "Batch",
    "Brought",
    "Caps",
    "Companion",
    "Cost",
    "Direction",
    "Fading",
    "Given",
    "MaskFeature",
    "Mixed",
    "Mode",
    "Needs",
    "Optimizer",
    "Original",
    "Plugin",
    "Prepared",
    "PreparedFor",
    "Pruner",
    "Report",
    "Sampler",
    "Schedule",
    "Step",
    "Task",
    "Technique",
    "Touches",
    "TrainingFacts",
    "Tuning",
    "Verdict",
]

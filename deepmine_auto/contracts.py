"""What a plugin implements. One class a kind; every plugin is a frozen dataclass of one of them.

A plugin's fields are its hyperparameters, annotated with the range worth searching (`space.Int`, `Float`, `Choice`);
a field without a range is not searched. One method, `build`, makes the working part, which owns all learned parameters.

Shapes: B batch, L length, S source length (keys), D dim, H heads, G key-value heads, K dim of one head, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from deepmine_auto.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import optuna
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor, nn

    from deepmine_auto.data.rows import Rows, Source

Mode = Literal["bidirectional", "causal", "cross"]
MaskFeature = Literal["padding", "causal", "window", "bias", "dense"]
Direction = Literal["minimize", "maximize"]
Touches = Literal["input", "weights", "loss"]


class Plugin(ABC):
    """What all kinds share: a name that is unique within the kind, and the paper or page that it follows."""

    kind: ClassVar[str]
    name: ClassVar[str]
    source: ClassVar[str]

    def params(self) -> dict[str, Any]:
        """Return the field values, as they stand in a study's row."""
        return {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]


# -- attention -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What a variant can do. Every default refuses; the host enforces them, not the author.

    weights: `exact` returns the matrix that multiplies the values, `implicit` can compute an equal one, `none` cannot.
    fit: how it enters a pretrained model: `exact` (a neutral setting equals the original), `finetune`, `weights` (new).
    decoding: `kv`, the last query needs no more than the keys and values before it; `state`, a mixer whose state says
    all of the past. matrix: its module is a `DenseAttention`, whose scores and weights a modifier may change.
    saves: costing less than softmax is all that it offers, so where it costs more it is not searched.
    scaling: the exponent of L in its cost, 2 for dense attention.
    """

    modes: frozenset[Mode] = frozenset()
    masks: frozenset[MaskFeature] = frozenset()
    weights: Literal["exact", "implicit", "none"] = "none"
    fit: Literal["exact", "finetune", "weights"] = "weights"
    decoding: Literal["kv", "state", "none"] = "none"
    normalized: bool = False
    position_free: bool = False
    matrix: bool = False
    saves: bool = False
    scaling: float = 2.0
    onnx: bool = False
    deterministic: bool = True
    max_len: int | None = None
    devices: frozenset[str] = frozenset({"cpu", "cuda"})
    dtypes: frozenset[str] = frozenset({"float32", "float64"})

    @classmethod
    def everywhere(cls, **changed: Any) -> Caps:
        """Declare every mode and every mask feature, for what only touches single tokens or single scores."""
        modes: frozenset[Mode] = frozenset({"bidirectional", "causal", "cross"})
        masks: frozenset[MaskFeature] = frozenset({"padding", "causal", "window", "bias", "dense"})
        return cls(**{"modes": modes, "masks": masks, **changed})


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """Where a variant stands in a model. Heads are the model's; a variant whose idea they are sets them (`adapt`)."""

    dim: int
    heads: int
    kv_heads: int
    layer: int = 0
    max_len: int = 512
    mode: Mode = "bidirectional"
    dropout: float = 0.0

    @property
    def head_dim(self) -> int:
        """K, the dim of one head."""
        return self.dim // self.heads


class Cost(NamedTuple):
    """What one forward pass takes: floating point operations, and peak bytes beyond inputs and outputs."""

    flops: float
    peak_bytes: float


START: tuple[()] = ()
"""The state of a layer that has seen nothing yet."""


class Mixed(NamedTuple):
    """What a variant returns: out (B, H, L, K) for a core or (B, L, D) for a mixer, weights (B, H, L, S) if asked for
    and known, extra losses (means over the rows of the batch) and statistics by name."""

    out: Tensor
    weights: Tensor | None = None
    losses: Mapping[str, Tensor] = {}
    statistics: Mapping[str, float] = {}


class Attention(Plugin):
    """A way to mix tokens: core, modifier or mixer.

    A module of any of them may have `step(done)`, which is called after each training step with the share of the
    training that is done, from 0 to 1: to anneal a temperature, clamp a span, redraw features. What it changes is a
    parameter or a persistent buffer, so that a checkpoint holds it.
    """

    kind = "attention"
    caps: ClassVar[Caps]
    neutral: ClassVar[Mapping[str, Any] | None] = None
    """The field values at which the variant equals softmax attention; None where there are none."""

    @abstractmethod
    def build(self, shape: AttentionShape) -> nn.Module:
        """Make the module that owns the learned parameters."""

    def adapt(self, shape: AttentionShape) -> AttentionShape:
        """Return the shape that the projections are built for."""
        return shape

    def cost(self, shape: AttentionShape, length: int) -> Cost:
        """Estimate one row's forward pass at `length`; the default is dense softmax attention."""
        return Cost(flops=4.0 * length**2 * shape.dim, peak_bytes=4.0 * length**2 * shape.heads)


class AttentionCore(Attention):
    """Mixes values by queries and keys. Its module: `forward(q_BHLK, k_BGSK, v_BGSK, mask, *, weights) -> Mixed`.

    G divides H; keys and values come unrepeated.
    """


Needs = Literal["nothing", "bias", "matrix", "past"]


class AttentionModifier(Attention):
    """Changes a core. Its module has any of

    - `on_qk(q_BHLK, k_BGSK, mask) -> (q_BHLK, k_BGSK)`, before they are compared;
    - `bias(q_BHLK, k_BGSK) -> (B or 1, H, L, S)`, added to the scores, -inf hides; needs = "bias";
    - `on_scores(scores_BHLS)` and `on_weights(weights_BHLS)`; needs = "matrix";
    - `on_out(out_BHLK, x_BLD) -> out_BHLK`, where x is what the layer reads;
    - `losses() -> dict of scalar tensors by name`, means over rows, of the last forward pass;
    - `on_past(k_BHSK, last_BHS, sum_BHS) -> k_BHSK`, where the weights of the step before, and those of all steps
      before in sum, are zero at the first step; needs = "past";
    - `alignment_losses(weights_BHLS, keep_BL) -> dict of scalar tensors by name`, means over rows, of all steps at
      their end, where keep is False at steps that are padding; needs = "past".

    All but `on_scores`, `on_weights` and those of the past keep the fused kernel.
    """

    needs: ClassVar[Needs] = "nothing"
    """What a core must have: the mask feature `bias`, `caps.matrix`, or, to know the past, exact weights. The past is
    known only where a model goes step by step, as two LSTMs do: who needs it declares the cross mode alone."""
    order: ClassVar[int] = 0
    """Modifiers of a lower order go first: what normalises, before what scales."""


class AttentionMixer(Attention):
    """Owns its projections. Its module: `forward(x_BLD, mask, state, *, weights) -> (Mixed, state)`.

    With `caps.decoding = "state"` it decodes step by step: state `START` says that nothing has been seen yet, and each
    call then gets only the new tokens and the state that the call before returned. With state None nothing is kept,
    and None is returned.
    """


# -- task ------------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Rows of one step: tokens (B, L), keep (B, L) with True for real tokens, targets (B, ...)."""

    tokens_BL: Tensor
    keep_BL: Tensor
    targets: Tensor


class Prepared(Protocol):
    """What a task fitted on training rows alone: how raw inputs become token ids, and what the head must know."""

    @property
    def vocabulary(self) -> int:
        """V, the number of token ids; id 0 is padding."""

    @property
    def outputs(self) -> int:
        """The width of the head's output."""

    @property
    def max_len(self) -> int:
        """The most token ids that `encode` returns for an input."""

    @property
    def vectors_VE(self) -> np.ndarray | None:
        """Pretrained rows of the token table (V, E), or None."""

    def encode(self, inputs: Sequence[Any]) -> list[list[int]]:
        """Turn raw inputs into token ids, at least one each."""

    def targets(self, rows: Rows) -> np.ndarray:
        """Turn the rows' labels into what the loss takes."""

    def save(self, folder: Any) -> None:
        """Write it into a folder, without code."""


class PreparedFor(Prepared, Protocol):
    """What a task prepared for a model that others trained."""

    @property
    def architecture(self) -> Mapping[str, Any] | None:
        """How that model is built; None where there is none."""


class Original(NamedTuple):
    """A model that others trained, as it reads and as it is built: its tokenizer, and what its config.json says."""

    tokenizer: Tokenizer
    architecture: Mapping[str, Any]


class Task(Plugin):
    """Data, head, loss, scores, and the classical baseline to beat."""

    kind = "task"
    objective: ClassVar[str]
    directions: ClassVar[Mapping[str, Direction]]
    """The scores that a search may optimise, with their direction; `objective` is the one it does unless told."""
    baseline_name: ClassVar[str]
    fitted_by: ClassVar[tuple[str, ...]] = ()
    """The fields on which `prepare` depends: trials that agree in them share what it fitted."""
    mode: ClassVar[Mode] = "bidirectional"
    """`causal` where a row holds its own answers, so that no token may see a later one."""
    space: ClassVar[str] = ""
    """The bundled space that it is searched with unless told otherwise; empty is that of its name, or `default`."""
    pairs: ClassVar[bool] = False
    """Whether each row is a source and a target, divided by the token `prepared.separator`."""

    @abstractmethod
    def read(self, source: Source) -> Rows:
        """Read the user's data, or the bundled data where `source.files` is empty. Raises BadInput."""

    @abstractmethod
    def strata(self, rows: Rows) -> Sequence[Any]:
        """One value a row; a split keeps their shares equal in all parts."""

    @abstractmethod
    def prepare(self, train: Rows) -> Prepared:
        """Fit tokenizer, vocabulary and class weights on training rows alone."""

    def prepare_for(self, train: Rows, original: Original) -> PreparedFor:
        """Fit what else there is to fit where a pretrained model brings the tokenizer. Raises BadInput where the task
        reads something else than text."""
        del train, original
        raise BadInput(f"'{self.name}' cannot be learned by a pretrained model.", "Choose another backbone.")

    @abstractmethod
    def load(self, folder: Any) -> Prepared:
        """Read what `Prepared.save` wrote."""

    @abstractmethod
    def head(self, dim: int, prepared: Prepared) -> nn.Module:
        """Make the last layer: `forward(x_BLD, keep_BL) -> outputs`."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, prepared: Prepared) -> Tensor:
        """Return the mean loss of a batch."""

    @abstractmethod
    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Score outputs (N, ...) against targets; holds at least `objective`."""

    @abstractmethod
    def baseline(self, train: Rows, test: Rows, prepared: Prepared) -> np.ndarray:
        """Return the outputs of the classical baseline for `test`, fitted on `train` alone."""

    @abstractmethod
    def answers(self, outputs: np.ndarray, prepared: Prepared) -> list[dict[str, Any]]:
        """Turn outputs into what `predict` prints, one dict a row."""

    def describe(self, rows: Rows) -> dict[str, Any]:
        """Say what the model card should know of the data; plain values only."""
        return {"rows": len(rows)}


# -- backbone --------------------------------------------------------------------------------------------------------


class Backbone(Plugin):
    """The stack around attention. Its module: `forward(tokens_BL, keep_BL, *, weights) -> Mixed`, out (B, L, D),
    with an attribute `dim`."""

    kind = "backbone"
    modes: ClassVar[frozenset[Mode]] = frozenset({"bidirectional"})
    """The modes in which it uses attention; a variant must have all of them."""
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


class Tuning(Plugin):
    """What of a pretrained model learns: all of it, its top, or something small beside it."""

    kind = "tuning"

    @abstractmethod
    def apply(self, model: nn.Module) -> None:
        """Freeze weights of a model of transformers, and put into it what learns beside them. A layer that is wrapped
        becomes the `base_layer` of what wraps it, which may have a `merged_layer()` for the export."""


# -- training --------------------------------------------------------------------------------------------------------


class Optimizer(Plugin):
    """How weights move. The learning rate is a field named `lr`; its schedule over steps is the host's."""

    kind = "optimizer"

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the torch optimizer of these parameters."""


class TrainingFacts(NamedTuple):
    """What a technique may know when it is built. `unknown` is the token that stands for any other; `marks` are those
    that a pretrained model's tokenizer puts at the ends of a text, and no words."""

    model: nn.Module
    prepared: Prepared
    steps: int
    generator: torch.Generator
    unknown: int = 1
    marks: tuple[int, ...] = ()

    def words(self, batch: Batch) -> Tensor:
        """Which tokens of a batch are words, bool (B, L): neither padding nor marks."""
        import torch

        marks = torch.tensor(self.marks, dtype=batch.tokens_BL.dtype, device=batch.tokens_BL.device)
        return batch.keep_BL & ~torch.isin(batch.tokens_BL, marks)


class Step(Protocol):
    """One training step, for techniques that work its batch off more than once. Parts and workers are hidden here."""

    batch: Batch

    def outputs(self) -> Tensor:
        """Return the model's outputs for the batch, with the weights as they are now and dropout drawn anew."""

    def loss(self, outputs: Tensor) -> Tensor:
        """Return the task's loss of outputs, with what the techniques' `on_loss` make of it."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are there."""


class Applied:
    """A technique at work on one trial. Every method is optional; the defaults change nothing.

    `on_batch`, `on_loss`, `more_loss` and `after_backward` see each batch once, and whole, also where it is worked off
    in parts or by several workers.
    """

    def rates(self, model: nn.Module) -> Mapping[str, float]:
        """Return what multiplies the learning rate of weights, by their names in the model; 1 for those left out."""
        return {}

    def odds(self, targets: np.ndarray) -> np.ndarray | None:
        """Return how often each row (N,) shall be drawn compared with others; None where an epoch sees each once."""
        return None

    def on_batch(self, batch: Batch) -> Batch:
        """Change the input of a training step."""
        return batch

    def on_loss(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Change the loss of a training step."""
        return loss

    def more_loss(self, step: Step, outputs: Tensor) -> Tensor | None:
        """Return what is added to the loss of `outputs`, or None; `step.outputs()` works the batch off again."""
        return None

    def after_backward(self, step: Step) -> None:
        """Change the gradients before they are clipped, or add to them what other weights would have."""

    def after_step(self, model: nn.Module) -> None:
        """Look at, or change, the weights after a step."""

    def evaluated(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """Return the weights that are judged and exported instead of the model's own, or None."""
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""


class Technique(Plugin):
    """Something that changes training, and says what it touches."""

    kind = "technique"
    touches: ClassVar[frozenset[Touches]]

    @abstractmethod
    def build(self, facts: TrainingFacts) -> Applied:
        """Put the technique to work on one trial."""


# -- search ----------------------------------------------------------------------------------------------------------


class Sampler(Plugin):
    """What proposes params. It keeps state in rows only, so that a restart proposes the same."""

    kind = "sampler"

    @abstractmethod
    def build(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the Optuna sampler for one proposal."""


class Report(NamedTuple):
    """An intermediate value: which trial, at which share of its own budget (in thousandths), the value of the first
    objective with larger always better, its place in the one order of the study, and the values of all objectives."""

    trial: int
    share: int
    value: float
    seq: int
    values: tuple[float, ...] = ()


class Verdict(NamedTuple):
    """A pruner's answer and its grounds: the value judged, the cutoff, the rung in thousandths."""

    keep: bool
    value: float | None = None
    cutoff: float | None = None
    rung: int | None = None


class Pruner(Plugin):
    """What stops hopeless trials: a pure function of the reports, so that a restart decides the same."""

    kind = "pruner"

    @abstractmethod
    def keep(self, reports: Sequence[Report], trial: int, share: int) -> Verdict:
        """Judge `trial` at `share`; `reports` holds every report of the study up to and including its own."""

    def rungs(self) -> Sequence[int]:
        """The shares, in thousandths, at which a trial may be stopped; a checkpoint is written there."""
        return ()


KINDS: dict[str, type[Plugin]] = {
    each.kind: each for each in (Attention, Task, Backbone, Tuning, Optimizer, Technique, Sampler, Pruner)
}
"""Every kind of plugin that `plugins list` knows; commands are click commands and have no class of ours."""


@dataclass(frozen=True)
class Brought:
    """A plugin class or command together with who brought it."""

    kind: str
    name: str
    thing: Any
    distribution: str
    version: str
    path: str
    source: str = ""
    hash: str = field(default="", compare=False)

"""What moves weights, and what changes training.

Shapes: B batch, N rows, L length.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

from deepmine_auto.contracts.plugin import Plugin
from deepmine_auto.contracts.task import Batch, Prepared

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

Touches = Literal["input", "weights", "loss", "judged"]
"""What a technique changes: batches, the model or its learning rates, the loss or its gradients, or which weights are
judged and exported. Of those that declare the last a trial uses one at most."""


Given = Literal["unlabelled", "paraphrases"]
"""What a user may give beside the rows: inputs without labels, and other words for inputs."""


class Optimizer(Plugin):
    """How weights move. The learning rate is a field named `lr`; a schedule moves it from step to step."""

    kind = "optimizer"

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make the torch optimizer of these parameters. Its `step()` is called without a closure, and each of its
        groups has a learning rate of its own: techniques divide them, and a schedule moves them."""


class Schedule(Plugin):
    """How the learning rate goes on once it has risen to its height; the warm-up before that is the host's."""

    kind = "schedule"

    @abstractmethod
    def factor(self, done: float) -> float:
        """Return what multiplies the learning rate after a share, 0 to 1, of the steps that come after warm-up: 1 at 0,
        never negative nor above 1. It depends on the share alone: a training may go on in another process."""


class TrainingFacts(NamedTuple):
    """What a technique may know when it is built. `unknown` is the token that stands for any other; `marks` are those
    that a pretrained model's tokenizer puts at the ends of a text, and no words. `paraphrases` are other words for
    training rows, as token ids, by the row that they may stand for; of most rows there may be none."""

    model: nn.Module
    prepared: Prepared
    steps: int
    generator: torch.Generator
    unknown: int = 1
    marks: tuple[int, ...] = ()
    paraphrases: Mapping[int, Sequence[np.ndarray]] = MappingProxyType({})

    def words(self, batch: Batch) -> Tensor:
        """Which tokens of a batch are words, bool (B, L): neither padding nor marks."""
        import torch

        marks = torch.tensor(self.marks, dtype=batch.tokens_BL.dtype, device=batch.tokens_BL.device)
        return batch.keep_BL & ~torch.isin(batch.tokens_BL, marks)


class Step(Protocol):
    """One training step, for techniques that work its batch off more than once, or another. Parts and workers are
    hidden here. `unlabelled` is another batch, perhaps of more or fewer rows, whose targets mean nothing; None where
    the user gave no such rows."""

    batch: Batch
    unlabelled: Batch | None

    def outputs(self, batch: Batch | None = None) -> Tensor:
        """Return the model's outputs for the step's batch or another, with the weights as they are now and dropout
        drawn anew."""

    def answers(self, batch: Batch) -> Tensor:
        """Return the model's outputs for a batch as predictions have them, without dropout and without gradient."""

    def loss(self, outputs: Tensor) -> Tensor:
        """Return the task's loss of outputs, with what the techniques' `on_loss` make of it."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are there."""

    def gradients(self, loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the gradient of a loss by each weight, and None where there is none. Of a batch that several workers
        share it is this worker's part, so what is made of them is to be added up."""


class Applied:
    """A technique at work on one trial. Every method is optional; the defaults change nothing.

    `on_batch`, `on_loss`, `more_loss` and `after_backward` see each batch once, and whole, also where it is worked off
    in parts or by several workers. In the steps before those of the task neither they nor `after_step` are called, but
    for `after_backward` of a technique that has a `scale`; `rates` and `odds` hold for all steps.
    """

    def before_task(self) -> int:
        """Return how many steps come before those of the task; of several techniques the largest number counts. In
        them the weights learn from what companions and attention add to the loss, on the inputs of training rows and,
        in every second step, on those without labels where there are such."""
        return 0

    def rates(self, model: nn.Module) -> Mapping[str, float]:
        """Return what multiplies the learning rate of weights, by their names in the model; 1 for those left out."""
        return {}

    def odds(self, targets: np.ndarray) -> np.ndarray | None:
        """Return how often each row (N,) shall be drawn compared with others; None where an epoch sees each once."""
        return None

    def parts(self) -> int:
        """Return in how many parts a batch is worked off at least, each with the activations of its own rows alone; 1
        where it may be whole. There are twice as many where these did not fit into memory. The weights move as if it
        were whole; what is paid is a second forward pass."""
        return 1

    def passes(self) -> int:
        """Return of how many forward passes a step has the activations in memory at once, at most: 1, and 1 more for
        each that `more_loss` makes before their gradients are there. A trial's `peak_mb` follows from this."""
        return 1

    def holds(self) -> Iterable[Tensor]:
        """Return what it has in memory from step to step, for the same; it may be more than a checkpoint must hold."""
        return self.state_dict().values()

    def on_batch(self, batch: Batch) -> Batch:
        """Change the input of a training step."""
        return batch

    def on_loss(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """Change the loss of a training step. It may be asked several times a step, and then says the same of the same:
        what is random is drawn in `on_batch`."""
        return loss

    def more_loss(self, step: Step, outputs: Tensor) -> Tensor | None:
        """Return what is added to the loss of `outputs`, or None; `step.outputs()` works the batch off again."""
        return None

    def scale(self) -> float:
        """Return what the loss is multiplied by before its gradients are made; whoever asks for that divides them by it
        in `after_backward`."""
        return 1.0

    def after_backward(self, step: Step) -> None:
        """Change the gradients before they are clipped, or add to them what other weights would have. One that has a
        `scale` comes last: all see gradients as large, `step.backward` adds such, and `step.gradients` are plain."""

    def after_step(self, model: nn.Module) -> None:
        """Look at, or change, the weights after a step."""

    def evaluated(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """Return the weights that are judged and exported instead of the model's own, or None. Asked again before the
        next step, it says the same."""
        return None

    def judged(self, score: float) -> None:
        """Hear what the weights that `evaluated` returned, or the model's own, are worth: the objective on the
        validation rows, its sign turned where less is better. Called after each evaluation, before a checkpoint is
        written of it, and of several workers in the leader alone: what follows from it must not reach the training."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a checkpoint must hold."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""


class Fading(Applied):
    """A technique that is strong at first, fades from step to step, and is gone after `share` of the training."""

    def __init__(self, share: float, steps: int) -> None:
        import torch

        self.until, self.done, self.left = share * steps, torch.zeros((), dtype=torch.int64), 1.0

    def fade(self, left: float) -> None:
        """Be as strong as is left, from 1 to 0; at 0 it is called for the last time."""

    def after_step(self, model: nn.Module) -> None:
        """Fade by a step."""
        self.done += 1
        self._fade()

    def _fade(self) -> None:
        if self.left:
            self.left = max(0.0, 1.0 - int(self.done) / self.until)
            self.fade(self.left)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the number of steps."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back the number of steps."""
        self.done.copy_(state["done"])
        self._fade()


class Companion:
    """What goes along with each forward pass of a training, also where a batch is worked off in parts, which it then
    sees one by one. A technique puts it into `facts.model.companions`, and takes it out again. What it draws comes from
    torch's own generator, because a part may be computed twice."""

    def on_tokens(self, tokens_BL: Tensor, keep_BL: Tensor) -> Tensor:
        """Change what the backbone reads."""
        return tokens_BL

    def losses(self, tokens_BL: Tensor, keep_BL: Tensor, out_BLD: Tensor) -> Mapping[str, Tensor]:
        """Return what is added to the loss by name, means over rows, of what the backbone made of what it
        read, which companions may have changed."""
        return {}


class Technique(Plugin):
    """Something that changes training, and says what it touches."""

    kind = "technique"
    touches: ClassVar[frozenset[Touches]]
    learns_from: ClassVar[Given | None] = None
    """What it learns from beside the rows, so that there is nothing for it to do where the user gives none."""
    heals: ClassVar[bool] = False
    """Whether it changes something only where the attention of a pretrained model was replaced."""
    one_answer: ClassVar[bool] = False
    """Whether it is for rows of one answer alone, and not for those of which each token has its own: because it moves
    or exchanges tokens, or makes something of the answer of a row."""
    needs_vectors: ClassVar[bool] = False
    """Whether it needs vectors of words, which a pretrained model has not, because it reads pieces of them."""

    @abstractmethod
    def build(self, facts: TrainingFacts) -> Applied:
        """Put the technique to work on one trial."""

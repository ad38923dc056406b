"""Tasks: data, head, loss and scores, and what a task prepares for a model.

Shapes: B batch, N rows, L length, D dim, V vocabulary, E dim of pretrained word vectors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from deepmine_auto.contracts.attention import Mode
from deepmine_auto.contracts.plugin import Plugin
from deepmine_auto.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from tokenizers import Tokenizer
    from torch import Tensor, nn

    from deepmine_auto.data.rows import Rows, Source

Direction = Literal["minimize", "maximize"]


class Batch(NamedTuple):
    """Rows of one step: tokens (B, L), keep (B, L) with True for real tokens, targets (B, ...), and where they were
    drawn from a split, which of its rows they are (B,)."""

    tokens_BL: Tensor
    keep_BL: Tensor
    targets: Tensor
    rows_B: Tensor | None = None


class Prepared(Protocol):
    """What a task fitted on training rows alone: how raw inputs become token ids, and what the head must know.

    It may name tokens besides, by attributes. `unknown` stands for any other, and techniques write it over words:
    without it that is 1, which is then no word. `marks`, a tuple, are no words, such as those at the ends of a text:
    techniques leave them alone, and without it hide and exchange every token but padding. `separator` divides source
    and target: without it, backbones for pairs are refused.
    """

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
    """The scores that a search may optimise, with their direction; `objective`, one of them, is what it does unless
    told."""
    baseline_name: ClassVar[str]
    own_data: ClassVar[str] = ""
    """What the rows are called that it brings, in the names of studies."""
    fitted_by: ClassVar[tuple[str, ...]] = ()
    """The fields on which `prepare` depends: trials that agree in them share what it fitted."""
    own_words: ClassVar[frozenset[str]] = frozenset()
    """Of these the fields that change nothing where a pretrained backbone brings the tokenizer."""
    mode: ClassVar[Mode] = "bidirectional"
    """`causal` where a row holds its own answers, so that no token may see a later one."""
    space: ClassVar[str] = ""
    """The bundled space that it is searched with unless told otherwise; empty is that of its name, or `default`."""
    each_token: ClassVar[bool] = False
    """Whether each token has an answer of its own, so that targets are (B, L)."""
    pairs: ClassVar[bool] = False
    """Whether each row is a source and a target, divided by the token `prepared.separator`."""

    @abstractmethod
    def read(self, source: Source) -> Rows:
        """Read the user's data, or the bundled data where `source.files` is empty. Raises BadInput."""

    def read_unlabelled(self, file: Path, text_column: str | None, rows: Rows) -> Sequence[Any]:
        """Read inputs without labels that are none of the rows, at least one. Raises BadInput, too where the task can
        make nothing of them."""
        del file, text_column, rows
        raise BadInput(f"'{self.name}' learns nothing from rows without labels.", "Leave --unlabelled out.")

    def read_paraphrases(self, file: Path, text_column: str | None, rows: Rows, test: Rows) -> Sequence[Sequence[Any]]:
        """Read pairs of an input of `rows` and other words for it, at least one, of which none is a row of the locked
        test, or tells what stands there. Raises BadInput, too where the task can make nothing of them."""
        del file, text_column, rows, test
        raise BadInput(f"'{self.name}' learns nothing from paraphrases.", "Leave --paraphrases out.")

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
        """Score outputs (N, ...) against targets, by all of `directions`. For intervals it is asked again of rows that
        are drawn anew, some of them twice: the order of rows must not matter."""

    @abstractmethod
    def baseline(self, train: Rows, test: Rows, prepared: Prepared) -> np.ndarray:
        """Return the outputs of the classical baseline for `test`, fitted on `train` alone."""

    @abstractmethod
    def answers(self, outputs: np.ndarray, prepared: Prepared) -> list[dict[str, Any]]:
        """Turn outputs into what `predict` prints, one dict a row."""

    def describe(self, rows: Rows) -> dict[str, Any]:
        """Say what the model card should know of the data; plain values only."""
        return {"rows": len(rows)}

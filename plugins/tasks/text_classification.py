"""Your texts and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from deepmine_auto import BadInput, Rows, Source, TextClassification


@dataclass(frozen=True, kw_only=True)
class OwnTexts(TextClassification):
    """One label a text, in files that you bring."""

    name: ClassVar[str] = "text_classification"
    source: ClassVar[str] = (
        "https://scikit-learn.org/stable/modules/model_evaluation.html#multiclass-and-multilabel-classification"
    )

    def read(self, source: Source) -> Rows:
        """Read the files. Raises BadInput where there are none."""
        if not source.files:
            raise BadInput("The task 'text_classification' brings no data.", "Name your own: --data reviews.csv.")
        return super().read(source)

"""The model card: where a bundle comes from, what it scored, and what it should not be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Story:
    """What manifest and card tell. `evidence` is None where the locked test was not opened for these weights."""

    study: str
    task: str
    trial: int
    seed: int
    params: Mapping[str, Any]
    space: str
    data: Mapping[str, Any]
    fingerprint: str
    plugins: Sequence[Mapping[str, str]]
    versions: Mapping[str, str]
    sentence: str
    evidence: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def provenance(self) -> dict[str, Any]:
        """What the manifest says beside the hashes."""
        return {
            "study": self.study,
            "trial": self.trial,
            "seed": self.seed,
            "task": self.task,
            "fingerprint": self.fingerprint,
            "plugins": list(self.plugins),
            "versions": dict(self.versions),
            "sentence": self.sentence,
            "facts": dict(self.facts),
        }


LIMITS = """\
- It knows the language, the subjects and the labels of its training rows, and nothing else. Texts of another kind get an
  answer too, and it may be wrong with a high probability beside it.
- Probabilities are not calibrated.
- The interval is about other rows drawn like the test rows, not about other data."""


def card(story: Story) -> str:
    """Return the card as Markdown."""
    sections = [
        _front(story),
        f"# {story.study}\n\n{story.sentence[:1].upper()}{story.sentence[1:]}.",
        '## Use\n\n```python\nimport deepmine_auto\n\ndeepmine_auto.load(FOLDER).predict(["a text"])\n```\n\n'
        'With transformers: `import deepmine_auto.hf`, then `pipeline("text-classification", model=FOLDER)`.',
        _scores(story),
        "## Data\n\n" + _table({**story.data, "fingerprint (sha256)": story.fingerprint}),
        f"## Model\n\nTrial {story.trial} of the search space `{story.space}`, seed {story.seed}.\n\n"
        + _table(story.params),
        "## Cost and size\n\n" + _table(story.facts),
        "## Made with\n\n" + _table({**story.versions, **_plugins(story)}),
        f"## Limits\n\n{LIMITS}",
    ]
    return "\n\n".join(each for each in sections if each) + "\n"


def _front(story: Story) -> str:
    return f"---\nlibrary_name: deepmine-auto\ntags:\n- deepmine-auto\n- {story.task}\n---"


def _scores(story: Story) -> str:
    if story.evidence is None:
        return "## Scores\n\nThe locked test was not opened for these weights."
    names = [each for each in story.evidence["scores"]]
    baseline = story.evidence["baseline_name"]
    rows = [
        f"| {name} | {story.evidence['scores'][name]:.4f} | {story.evidence['baseline'][name]:.4f} |" for name in names
    ]
    head = f"| on {story.evidence['rows']:,} locked test rows | this model | {baseline} |\n|---|---|---|"
    return "\n".join(["## Scores", "", head, *rows])


def _plugins(story: Story) -> dict[str, str]:
    return {f"{each['kind']} {each['name']}": f"{each['distribution']} {each['version']}" for each in story.plugins}


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")

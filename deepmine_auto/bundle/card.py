"""The model card: where a bundle comes from, what it scored, and what it should not be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Story:
    """What manifest and card tell. `evidence` is None where the locked test was not opened for these weights; else it
    has a baseline, of which the card says what it is `beside` them."""

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
    beside: str = "which was fitted on the same training rows"

    def provenance(self) -> dict[str, Any]:
        """What the manifest says beside the hashes."""
        return {
            "study": self.study,
            "trial": self.trial,
            "seed": self.seed,
            "task": self.task,
            "params": dict(self.params),
            "fingerprint": self.fingerprint,
            "plugins": list(self.plugins),
            "versions": dict(self.versions),
            "sentence": self.sentence,
            "evidence": None if self.evidence is None else dict(self.evidence),
            "facts": dict(self.facts),
        }


UNOPENED = "the locked test was not opened for these weights"
"""The sentence of a bundle that has no evidence."""

LIMITS = """\
- It knows the language, the subjects and the labels of its training rows, and nothing else. Texts of another kind get
  an answer too, and it may be wrong with a high probability beside it.
- Probabilities are not calibrated.
- Nobody looked for groups of people, or kinds of text, on which it does worse than on average."""

VOCABULARY = "\n- The weights may give away words of the training texts: the vocabulary is in `tokenizer.json`."

USE = """\
## Use

```python
import deepmine_auto

deepmine_auto.load(FOLDER).predict(["a text"])
```

In a shell: `deepmine-auto predict FOLDER "a text"`."""

TRANSFORMERS = 'With transformers: `import deepmine_auto.hf`, then `pipeline("text-classification", model=FOLDER)`.'

SPOKEN_FACTS = {
    "params_million": "parameters, millions",
    "seconds": "training of these weights, seconds",
    "search_seconds": "whole search, seconds",
    "trials": "trials",
    "pruned_share": "share of trials stopped early",
    "reruns": "finalists' reruns",
    "ms_per_text": "one text by itself, milliseconds",
    "test_opened": "times that the locked test was opened",
    "training_rows": "rows that it was trained on",
    "trained_share": "share of its steps that it was trained for",
}


def card(story: Story, of_texts: bool = True) -> str:
    """Return the card as Markdown. `of_texts`: its rows are texts with one label each, which transformers can answer
    and `evaluate` can score."""
    model = f"Trial {story.trial} of the search space `{Path(story.space).name}`; the study's seed is {story.seed}."
    sections = [
        head(story.task, story.study, story.sentence),
        f"{USE} {TRANSFORMERS}" if of_texts else USE,
        "## Scores\n\n" + _scores(story, of_texts) + opened_before(story.facts.get("test_opened", 0)),
        "## Data\n\n" + table({"task": story.task, **_data(story)}),
        f"## Model\n\n{model}\n\n" + table(_chosen(story.params)),
        "## Cost and size\n\n" + table({SPOKEN_FACTS.get(name, name): value for name, value in story.facts.items()}),
        "## Made with\n\n" + table({**story.versions, **_plugins(story)}),
        f"## Limits\n\n{limits(of_texts)}",
    ]
    return "\n\n".join(sections) + "\n"


def head(task: str, title: str, sentence: str) -> str:
    """What the hub reads, the title, and the sentence that says it all."""
    tags = f"---\nlibrary_name: deepmine-auto\ntags:\n- deepmine-auto\n- {task}\n---"
    return f"{tags}\n\n# {title}\n\n{sentence[:1].upper()}{sentence[1:]}."


def _scores(story: Story, of_texts: bool) -> str:
    evidence = story.evidence
    if evidence is None:
        remedy = ": score them on rows of your own with `deepmine-auto evaluate`" if of_texts else ""
        return f"{UNOPENED[:1].upper()}{UNOPENED[1:]}{remedy}."
    return scores(evidence, "this model", f"{evidence['baseline_name']}, {story.beside}")


def scores(evidence: Mapping[str, Any], name: str, beside: str) -> str:
    """The scores of what has this name, with those of its baseline, and what they say; `beside` is what that is."""
    objective, baseline = evidence["objective"], evidence["baseline"]
    titles = f"| on {evidence['rows']:,} test rows | {name} | {evidence['baseline_name']} |\n|---|---|---|"
    rows = [f"| {each} | {score:.4f} | {baseline[each]:.4f} |" for each, score in evidence["scores"].items()]
    low, high = evidence["interval"]
    lead = f"{evidence['lead']:+.3f} ({{:+.3f}} to {{:+.3f}})".format(*evidence["lead_interval"])
    told = (
        f"The search chose by {objective} on other rows; these were locked until the weights were chosen. "
        f"95 % intervals over test rows drawn anew: {objective} {low:.3f} to {high:.3f}; lead over "
        f"{beside}, {lead}. They say nothing about data of another kind."
    )
    return "\n".join([titles, *rows, "", told])


def limits(of_texts: bool) -> str:
    """What it should not be used for; models of texts carry words of them."""
    return LIMITS + VOCABULARY if of_texts else LIMITS


def opened_before(times: int) -> str:
    """From the second opening on the test is no longer unseen, and the reader must know."""
    return f"\n\nThe test was opened {times} times in this study, so these scores flatter it." if times > 1 else ""


def _data(story: Story) -> dict[str, Any]:
    plain = {name.replace("_", " "): value for name, value in story.data.items()}
    return {**plain, "fingerprint (sha256)": story.fingerprint}


def _chosen(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params by name, without what was left out."""
    return {name: value for name, value in sorted(params.items()) if not (name.endswith("/use") and value is False)}


def _plugins(story: Story) -> dict[str, str]:
    return {f"{each['kind']} {each['name']}": f"{each['distribution']} {each['version']}" for each in story.plugins}


def table(values: Mapping[str, Any]) -> str:
    """Names and values, a row each, whatever characters they have."""
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_cell(name)}: {_cell(each)}" for name, each in value.items())
    text = f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
    for character, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(character, safe)
    return text

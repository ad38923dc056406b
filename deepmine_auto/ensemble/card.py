"""The card of an ensemble: what it scores beside the winner, who its members are, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepmine_auto.bundle.card import USE, head, limits, opened_before, scores, table

MEMBERS = "It answers with the mean of their probabilities. Each has a card of its own in its folder."


def card(told: Mapping[str, Any], shares: Mapping[int, float], of_texts: bool = True) -> str:
    """Return the card as Markdown, of all that there is to tell and each trial's share; `of_texts` as for a bundle."""
    beside = f"{told['evidence']['baseline_name']}, which is one model"
    sections = [
        head(told["task"], f"{told['study']}: an ensemble", told["sentence"]),
        USE,
        "## Scores\n\n" + scores(told["evidence"], "this ensemble", beside) + opened_before(told["test_opened"]),
        f"## Members\n\n{MEMBERS}\n\n" + table({f"trial {each}": f"{share:.0%}" for each, share in shares.items()}),
        _chosen(told),
        "## Cost and size\n\n" + table(_cost(told["cost"])),
        f"## Limits\n\n{limits(of_texts)}",
    ]
    return "\n\n".join(sections) + "\n"


def _chosen(told: Mapping[str, Any]) -> str:
    found, objective = told["validation"], told["evidence"]["objective"]
    return (
        f"They were chosen among {found['candidates']} trials on the validation rows of the search: {objective} "
        f"{found['value']:.4f} together, {found['alone']:.4f} by trial {found['best']} alone."
    )


def _cost(cost: Mapping[str, Any]) -> dict[str, str]:
    """Each measure of both, and how many times as much the ensemble takes."""
    names = {"params_million": "parameters, millions", "ms_per_text": "one text by itself, milliseconds"}
    return {
        name: f"{cost[each]['ensemble']:.4g}, {cost[each]['times']:.1f} times that of the winner"
        for each, name in names.items()
    }

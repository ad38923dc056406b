"""How the checks of a study are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from deepmine_auto.commands.options import print_json
from deepmine_auto.errors import DeepmineError

if TYPE_CHECKING:
    from deepmine_auto.audit.verifying import Check


def print_checks(study: str, checks: Sequence[Check], as_json: bool) -> None:
    """One line a check, and one for each thing that does not hold."""
    if as_json:
        holds = not any(each.wrong for each in checks)
        print_json({"study": study, "holds": holds, "checks": [each._asdict() for each in checks]})
        return
    for each in checks:
        click.echo(f"{each.name:<11} {each.counted - len(each.wrong)} of {each.counted} hold")
        for sentence in each.wrong:
            click.echo(f"    {sentence}")


def refuse_wrong(checks: Sequence[Check], what: str) -> None:
    """End with a sentence where anything does not hold. Raises DeepmineError."""
    wrong, counted = sum(len(each.wrong) for each in checks), sum(each.counted for each in checks)
    if wrong:
        raise DeepmineError(f"{wrong} of {counted} things {what}", "They stand in the lines above.")

"""`deepmine-auto distil`: an ensemble's word at one model's cost."""

from __future__ import annotations

from typing import Any

import click

from deepmine_auto.commands.options import as_json, database, print_json, storage_options


@click.command()
@click.argument("study")
@click.option("--members", type=int, default=5, show_default=True, metavar="N", help="Picks of the teacher.")
@click.option("--alpha", type=float, default=0.5, show_default=True, metavar="X", help="The teacher's share.")
@click.option("--temperature", type=float, default=2.0, show_default=True, metavar="T", help="How soft it speaks.")
@click.option("--keep", is_flag=True, help="Export it even if it is not better.")
@click.option("--output", metavar="DIR", help="The new folder. [default: in the study's folder]")
@storage_options
@as_json
def distil(
    study: str,
    keep: bool,
    output: str | None,
    storage: str | None,
    storage_file: str | None,
    as_json: bool,
    **lesson: Any,
) -> None:
    """Train the winner of STUDY once more, with an ensemble of its trials as the teacher.

    What comes of it is compared with the trial itself on the validation rows, and exported as a bundle if it is better.
    The locked test stays closed.
    """
    from pathlib import Path

    from deepmine_auto.ensemble.distilling import Lesson
    from deepmine_auto.ensemble.distilling import distil as teach

    folder, place = Path(output).expanduser() if output else None, database(storage, storage_file)
    found = teach(study, place, Lesson(**lesson), folder, keep=keep, tell=lambda text: click.echo(text, err=True))
    if as_json:
        print_json(found)
    else:
        verdict = "better" if found["better"] else "not better, and kept because you asked for it"
        click.echo(f"{found['sentence']}: {verdict}\n{found['folder']}")

"""`deepmine-auto evaluate`: score a bundle on labelled rows."""

from __future__ import annotations

from typing import Any

import click

from deepmine_auto.commands.options import as_json, print_json


@click.command()
@click.argument("folder")
@click.option("--data", required=True, metavar="FILE", help="Texts and labels: csv, tsv, json, jsonl or parquet.")
@click.option("--text-column", metavar="NAME", help="The column of texts.")
@click.option("--label-column", metavar="NAME", help="The column of labels.")
@as_json
def evaluate(folder: str, data: str, text_column: str | None, label_column: str | None, as_json: bool) -> None:
    """Score the bundle in FOLDER on labelled rows: 95 % intervals, and how well each class is found."""
    from pathlib import Path

    from deepmine_auto.bundle.judge import judge
    from deepmine_auto.data.read import read_labelled
    from deepmine_auto.loading import load

    rows = read_labelled(Path(data).expanduser(), text_column, label_column)
    found = judge(load(folder), rows)
    for note in () if as_json else rows.notes:
        click.echo(note, err=True)
    print_json(found) if as_json else click.echo(_as_text(found))


def _as_text(found: dict[str, Any]) -> str:
    from deepmine_auto.terminal.words import table

    scores = [
        (name, *(f"{each[key]:.4f}" for key in ("value", "low", "high"))) for name, each in found["scores"].items()
    ]
    classes = [
        (label, *(f"{each[key]:.3f}" for key in ("precision", "recall", "f1")), f"{each['rows']:,}")
        for label, each in found["classes"].items()
    ]
    return "\n\n".join(
        [
            found["sentence"],
            table(("score", "value", "low", "high"), scores),
            table(("class", "precision", "recall", "F1", "rows"), classes),
        ]
    )

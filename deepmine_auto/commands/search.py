"""`deepmine-auto search`: task, data and budget become a study, its winner, and a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from deepmine_auto.commands.options import (
    as_json,
    database,
    listed,
    print_json,
    storage_options,
    width,
    workers_options,
)

if TYPE_CHECKING:
    from deepmine_auto.storage.place import Place

SEVERAL = ("attention", "backbone", "tuning", "technique")
"""Options that take names with commas between them."""


@click.command()
@click.option("--task", metavar="NAME", help="What is to be learned. [default: sentiment]")
@click.option("--data", metavar="FILE", multiple=True, help="Your rows: a file, a folder, or train=FILE and so on.")
@click.option("--text-column", metavar="NAME", help="The column of texts, where its name does not tell.")
@click.option("--label-column", metavar="NAME", help="The column of labels, where its name does not tell.")
@click.option("--unlabelled", metavar="FILE", help="Texts without labels, which pseudo-labels let models learn from.")
@click.option("--paraphrases", metavar="FILE", help="A table of your texts, with a `paraphrase` beside each.")
@click.option("--space", metavar="NAME|FILE", help="Plugins and ranges to search: a bundled space or a TOML file.")
@click.option("--attention", metavar="A,B", multiple=True, help="Attention variants to choose from instead.")
@click.option("--backbone", metavar="A,B", multiple=True, help="Backbones, or pretrained models: folders, hub names.")
@click.option("--tuning", metavar="A,B", multiple=True, help="What of a pretrained model learns, to choose from.")
@click.option("--technique", metavar="A,B", multiple=True, help="Techniques to search beside those of the space.")
@click.option("--trials", type=int, metavar="N", help="End after so many trials. [default: the space's budget]")
@click.option("--time-budget", metavar="TIME", help="End after this time: 90s, 5m, 1h30m.")
@click.option("--max-gpu-hours", type=float, metavar="X", help="End after so many hours, counted over all GPUs held.")
@workers_options
@storage_options
@click.option("--study", metavar="NAME", help="The study's name. [default: task, data and day]")
@click.option("--seed", type=int, metavar="N", help="Seed of all that is random. [default: 0]")
@click.option("--objective", metavar="NAME", multiple=True, help="A score or cost to search for. [default: the task's]")
@click.option("--limit", metavar="'NAME<=X'", multiple=True, help="What no model may pass, such as 'latency_ms<=5'.")
@click.option("--sampler", metavar="NAME", help="What proposes params. [default: the space's]")
@click.option("--pruner", metavar="NAME", help="What stops hopeless trials. [default: the space's]")
@click.option("--warm-start", metavar="STUDY", multiple=True, help="Begin with what an earlier study found.")
@click.option("--output", metavar="FOLDER", help="The study's folder. [default: beside the SQLite file, or here]")
@click.option("--refit", is_flag=True, help="Train the winner once more in the end, on the validation rows too.")
@click.option("--unchecked", is_flag=True, help="Trust attention variants of others without checking their promises.")
@click.option("--dry-run", is_flag=True, help="Say what would be searched and what it would take; write nothing.")
@as_json
def search(as_json: bool, dry_run: bool, storage: str | None, storage_file: str | None, **options: Any) -> None:
    """Search, name a winner, check it on the locked test, and export it."""
    place = database(storage, storage_file)
    fields = {name: value for name, value in options.items() if value not in (None, ())}
    fields |= {name: listed(fields[name]) for name in SEVERAL if name in fields}
    (_foretell if dry_run else _conduct)(place, fields, as_json)


def _conduct(place: Place, fields: dict[str, Any], as_json: bool) -> None:
    from deepmine_auto.commands.running import conducted
    from deepmine_auto.searching import search as begin

    conducted(lambda watcher: begin(watcher, storage=place, **fields), as_json)


def _foretell(place: Place, fields: dict[str, Any], as_json: bool) -> None:
    from deepmine_auto.estimating import dry_run
    from deepmine_auto.terminal.dry import as_text, to_json

    found = dry_run(storage=place, **fields)
    if as_json:
        print_json(to_json(found))
    else:
        click.echo(as_text(found, width()))

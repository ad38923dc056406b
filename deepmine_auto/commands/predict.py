"""`deepmine-auto predict`: answer texts with a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from deepmine_auto.commands.options import as_one_json


@click.command()
@click.argument("folder")
@click.argument("texts", nargs=-1, metavar="[TEXT... | -]")
@click.option("--file", "file", metavar="FILE", help="A file of texts: csv, tsv, json, jsonl, parquet or txt.")
@click.option("--text-column", metavar="NAME", help="The column of --file that holds the texts.")
@click.option("--compile", is_flag=True, help="Compile the model first, which pays for many texts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a text.")
def predict(
    folder: str, texts: tuple[str, ...], file: str | None, text_column: str | None, compile: bool, as_json: bool
) -> None:
    """Print the likeliest label of each TEXT and its probability, with the bundle in FOLDER.

    `-`, or nothing where standard input is a pipe, reads one text a line from there; blank lines are left out.
    """
    asked = _asked(texts, file, text_column)
    from deepmine_auto.loading import load

    answers = load(folder, compile=compile).predict(asked)
    lines = [as_one_json(each) for each in answers] if as_json else _aligned(answers)
    click.echo("\n".join(lines))


def _asked(texts: Sequence[str], file: str | None, text_column: str | None) -> list[str]:
    """The texts from wherever they come, at least one. Raises BadInput."""
    from pathlib import Path

    from deepmine_auto.errors import BadInput

    if file and texts:
        raise BadInput("Texts and --file were both given.", "Give one of them.")
    if text_column and not file:
        raise BadInput("--text-column was given without --file.", "Add --file FILE.")
    if file:
        from deepmine_auto.data.read import read_texts

        return read_texts(Path(file).expanduser(), text_column)
    typed = texts not in ((), ("-",))
    asked = [*texts] if typed else _from_stdin()
    found = [text for text in asked if text.strip()]
    if not found:
        raise BadInput("There is no text to answer.", 'Type one after the folder, such as "I like it", or give --file.')
    if typed and len(found) < len(asked):  # an answer fewer than texts would be taken for another text's
        raise BadInput(f"{len(asked) - len(found)} of {len(asked)} texts are empty.", "Leave them out.")
    return found


def _from_stdin() -> list[str]:
    import sys

    from deepmine_auto.data.table import lines_of
    from deepmine_auto.errors import BadInput

    if sys.stdin.isatty():
        click.echo("One text a line; Ctrl-D ends.", err=True)
    try:
        return lines_of(sys.stdin.buffer.read().decode())
    except UnicodeDecodeError as error:
        raise BadInput("Standard input is not UTF-8.", "Convert it with iconv.") from error


def _aligned(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Label and probability in two columns; answers of another kind as they are."""
    from deepmine_auto.terminal.words import plain

    if not all({"label", "probability"} <= each.keys() for each in answers):
        return [plain(each) for each in answers]
    labels = [plain(each["label"]) for each in answers]
    width = max(map(len, labels))
    return [f"{label:<{width}}  {each['probability']:.3f}" for label, each in zip(labels, answers, strict=True)]

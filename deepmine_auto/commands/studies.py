"""`deepmine-auto studies`: the studies of a database."""

from __future__ import annotations

from typing import Any

import click

from deepmine_auto.commands.options import as_json, database, print_json, storage_options, width


@click.group(invoke_without_command=True)
@storage_options
@as_json
@click.pass_context
def studies(context: click.Context, /, **options: Any) -> None:
    """List the studies of a database."""
    if context.invoked_subcommand is None:
        context.invoke(list_studies, **options)


@studies.command("list")
@storage_options
@as_json
def list_studies(storage: str | None, storage_file: str | None, as_json: bool) -> None:
    """List the studies of a database, oldest first, running ones too."""
    from deepmine_auto.terminal.looking import see_all
    from deepmine_auto.terminal.words import table

    rows = [_row(each) for each in see_all(database(storage, storage_file))]
    if as_json:
        print_json({"studies": rows})
        return
    heads = ("study", "task", "objective", "trials", "best", "state", "folder")
    texts = [[_shown(row[head]) for head in heads] for row in rows]
    click.echo(table(heads, texts, width()) if rows else "no studies yet")


def _row(study: Any) -> dict[str, Any]:
    best = study.best(1)
    return {
        "study": study.name,
        "task": study.row.spec["task"],
        "objective": study.row.spec["objective"],
        "trials": len(study.trials),
        "best": best[0].value if best else None,
        "state": "finished" if study.result else "unfinished",
        "folder": study.row.folder,
    }


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

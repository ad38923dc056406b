"""`deepmine-auto studies`: the studies of a database, one by one."""

from __future__ import annotations

import shlex
from typing import Any

import click

from deepmine_auto.commands.checks import print_checks, refuse_wrong
from deepmine_auto.commands.options import as_json, database, print_json, storage_options, width
from deepmine_auto.commands.replay import replay


@click.group(invoke_without_command=True)
@storage_options
@as_json
@click.pass_context
def studies(context: click.Context, /, **options: Any) -> None:
    """List the studies of a database; verify, stop, export and replay one."""
    if context.invoked_subcommand is None:
        context.invoke(list_studies, **options)
    given = {name: value for name, value in options.items() if value}
    context.default_map = dict.fromkeys(studies.commands, given)  # before a command they mean what they mean after


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


# -- verify and stop -------------------------------------------------------------------------------------------------


@studies.command()
@click.argument("study")
@storage_options
@as_json
def verify(study: str, storage: str | None, storage_file: str | None, as_json: bool) -> None:
    """Check the rows and checkpoints of STUDY; write nothing.

    What its rows say of one another is computed again, and its checkpoints are read. One line a check tells how much
    was looked at, and below it stands what does not hold; then the exit code is 1.
    """
    from deepmine_auto.audit.verifying import verify_study
    from deepmine_auto.host import the_host
    from deepmine_auto.terminal.looking import see

    place = database(storage, storage_file)
    checks = verify_study(place, see(place, study).name, the_host())
    print_checks(study, checks, as_json)
    refuse_wrong(checks, f"of the study '{study}' do not hold.")


@studies.command()
@click.argument("study")
@storage_options
@click.option("--reason", metavar="TEXT", help="What the ended trials shall say.")
@as_json
def stop(study: str, storage: str | None, storage_file: str | None, reason: str | None, as_json: bool) -> None:
    """End what a driver that is gone left RUNNING.

    The trials and reruns of STUDY that have no end are failed as cancelled; `resume` then begins new ones.
    """
    from deepmine_auto.host import the_host
    from deepmine_auto.study.stopping import REASON, stop_study
    from deepmine_auto.terminal.looking import see

    place = database(storage, storage_file)
    ended = stop_study(place, see(place, study).name, the_host(), reason or REASON)
    names = [f"{kind} {number}" for kind, number in ended]
    if as_json:
        print_json({"study": study, "stopped": names})
    else:
        click.echo(f"stopped: {', '.join(names)}" if names else "nothing was running")


# -- export and replay -----------------------------------------------------------------------------------------------


@studies.command()
@click.argument("study")
@click.option("--output", metavar="FILE", required=True, help="The file to make, such as study.json.")
@storage_options
@as_json
def export(study: str, output: str, storage: str | None, storage_file: str | None, as_json: bool) -> None:
    """Write STUDY to one JSON file for `studies replay`.

    All its rows are in it: params, curves, values, events. No password, no path and no name of a machine is.
    """
    from deepmine_auto.audit.recording import write
    from deepmine_auto.terminal.looking import see

    seen = see(database(storage, storage_file), study)
    file = write(seen.store, seen.name, output)
    if as_json:
        print_json({"study": study, "file": str(file)})
    else:
        click.echo(f"{file}\nreplay it: deepmine-auto studies replay {shlex.quote(str(file))}")


studies.add_command(replay)

"""`deepmine-auto studies replay`: an exported study again, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from deepmine_auto.commands.checks import print_checks, refuse_wrong
from deepmine_auto.commands.options import as_json, print_json, width
from deepmine_auto.host import the_host

if TYPE_CHECKING:
    from deepmine_auto.audit.other_pruners import PrunerOutcome
    from deepmine_auto.audit.other_samplers import SamplerOutcome
    from deepmine_auto.audit.record import Record
    from deepmine_auto.contracts import Pruner, Sampler

PRUNERS = ("pruner", "stops", "saves steps", "saves time", "keeps winner", "keeps top 3", "regret")
SAMPLERS = ("sampler", "best after 1/4", "after 1/2", "best found after")


@click.command()
@click.argument("file")
@click.option("--pruner", metavar="NAME", multiple=True, help="Compare this pruner with the recorded one.")
@click.option("--sampler", metavar="NAME", multiple=True, help="Compare this sampler with the recorded one.")
@as_json
def replay(file: str, pruner: Sequence[str], sampler: Sequence[str], as_json: bool) -> None:
    """Compute an exported study again, without training.

    Every proposal, verdict, end and final is compared with the recorded one; the exit code is 1 where one differs.

    With --pruner or --sampler, each of which may be given several times, see instead what another one would have done:
    a pruner to the trials that ran to their end, a sampler in a search of the recorded trials.
    """
    from deepmine_auto.audit.recording import read_file

    record = read_file(file)
    if pruner or sampler:
        _compare(record, _plugins(record, "pruner", pruner), _plugins(record, "sampler", sampler), as_json)
        return
    from deepmine_auto.audit.replaying import replay as again

    names = record.study.spec["sampler"], record.study.spec["pruner"]
    checks = again(record, the_host().get("sampler", names[0])(), the_host().get("pruner", names[1])())
    print_checks(record.study.name, checks, as_json)
    refuse_wrong(checks, "come out otherwise than they were recorded.")


def _plugins(record: Record, kind: str, others: Sequence[str]) -> list[Any]:
    """The recorded plugin and the others, each once; none where no other is asked for."""
    names = dict.fromkeys([record.study.spec[kind], *others]) if others else ()
    return [the_host().get(kind, name)() for name in names]


def _compare(record: Record, pruners: Sequence[Pruner], samplers: Sequence[Sampler], as_json: bool) -> None:
    from deepmine_auto.audit.other_pruners import with_pruner
    from deepmine_auto.audit.other_samplers import Table

    of_pruners = [with_pruner(record, each) for each in pruners]
    trials = Table(record) if samplers else None
    of_samplers = [trials.as_recorded(), trials.by_chance(), *map(trials.with_sampler, samplers)] if trials else []
    if as_json:
        told = {"pruners": [asdict(each) for each in of_pruners], "samplers": [asdict(each) for each in of_samplers]}
        print_json({"study": record.study.name, **told})
        return
    _print(PRUNERS, [_pruner_row(each) for each in of_pruners])
    _print(SAMPLERS, [_sampler_row(each) for each in of_samplers])


def _print(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from deepmine_auto.terminal.words import table

    if rows:
        click.echo(table(heads, rows, width()))


def _pruner_row(found: PrunerOutcome) -> list[str]:
    return [
        found.pruner,
        f"{len(found.stopped)} of {found.whole}",
        f"{100 * found.saved_steps:.0f} %",
        f"{100 * found.saved_seconds:.0f} %",
        "yes" if found.winner_kept else "no",
        f"{found.kept} of {min(found.whole, 3)}",
        f"{found.regret:.4f}",
    ]


def _sampler_row(found: SamplerOutcome) -> list[str]:
    return [found.sampler, f"{found.quarter:.4f}", f"{found.half:.4f}", f"{found.found_after:.1f} trials"]

"""Verify a study: everything that its rows say of one another is computed again, and every checkpoint is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deepmine_auto.audit import checks_of_ends as of_ends
from deepmine_auto.audit import checks_of_rows as of_rows
from deepmine_auto.audit.checks_of_rows import Findings, Seen
from deepmine_auto.audit.record import read as record_of
from deepmine_auto.errors import BadInput, StudyHeld
from deepmine_auto.host import Host
from deepmine_auto.study.provenance import unavailable

if TYPE_CHECKING:
    from deepmine_auto.storage.place import Place

Look = Callable[[Seen], Findings]

CHECKS: tuple[Look, ...] = (
    of_rows.order,
    of_rows.sessions,
    of_rows.attempts,
    of_rows.params,
    of_rows.curves,
    of_ends.verdicts,
    of_ends.ends,
    of_ends.budget,
    of_ends.running,
    of_ends.checkpoints,
    of_ends.reruns,
    of_ends.winner,
)

ALIVE: tuple[Look, ...] = (of_ends.running, of_ends.checkpoints)
"""Checks of a study where it lives; an export has neither a driver nor checkpoints."""


class Check(NamedTuple):
    """What was looked at, how much of it, and what does not hold."""

    name: str
    counted: int
    wrong: tuple[str, ...]

    @classmethod
    def of(cls, name: str, findings: Iterable[str]) -> Check:
        """Count what was found."""
        found = list(findings)
        return cls(name, len(found), tuple(filter(None, found)))


def checked(look: Look, seen: Seen) -> Check:
    """Make one check."""
    return Check.of(look.__name__, look(seen))


def verify(seen: Seen) -> list[Check]:
    """Make every check."""
    return [checked(each, seen) for each in CHECKS]


def verify_study(place: Place, name: str, host: Host) -> list[Check]:
    """Make every check of a study in a database, and once more where something does not hold: a driver may have gone on
    meanwhile, and what is wrong stays so. Raises BadInput where its pruner or its lock is out of reach."""
    first = _looked(place, name, host)
    if not any(each.wrong for each in first):
        return first
    both = zip(first, _looked(place, name, host), strict=True)
    return [again._replace(wrong=tuple(each for each in again.wrong if each in before.wrong)) for before, again in both]


def _looked(place: Place, name: str, host: Host) -> list[Check]:
    from deepmine_auto.storage.place import read

    record = record_of(read(place), name)
    pruner = host.get("pruner", record.study.spec["pruner"])()
    driven = bool(record.history.unfinished()) and _driven(place, name)
    gone = partial(unavailable, record.study, host=host)
    return verify(Seen(record, pruner, Path(record.study.folder), driven, gone))


def _driven(place: Place, name: str) -> bool:
    """Whether a driver is alive: it holds the study, and nobody else can. Raises BadInput where that cannot be told."""
    try:
        with place.hold(name):
            return False
    except StudyHeld:
        return True
    except OSError as error:
        what = f"Whether a driver of '{name}' is alive cannot be told: {error.filename}: {error.strerror}."
        raise BadInput(what, "Verify it as the user who searched it.") from error

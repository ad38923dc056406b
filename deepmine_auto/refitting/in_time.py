"""A refit within the budget of a search: the time that is kept for it, and what becomes of it. Where there is none, the
study has ended well all the same."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from deepmine_auto.errors import DeepmineError
from deepmine_auto.messages import BEFORE_TASK, WHOLE
from deepmine_auto.refitting.all_rows import best_share, refit_held
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import SLACK, duration
from deepmine_auto.study.closing import closing_seconds
from deepmine_auto.training.loop import device_here

if TYPE_CHECKING:
    from deepmine_auto.opening import Opened
    from deepmine_auto.storage.store import Row
    from deepmine_auto.watcher import Watcher


def refit_seconds(agenda: Agenda) -> float:
    """Seconds that a refit of the trial that leads would take, to its last step; 0 where nothing leads yet."""
    leading = agenda.finalists()[:1]
    return _seconds(agenda, leading[0], WHOLE) if leading else 0.0


def _seconds(agenda: Agenda, trial: int, share: int) -> float:
    """Seconds for so many thousandths of a trial's steps, on the rows of validation too and by one process, and for
    what follows."""
    spec = agenda.ledger.study.spec
    last = agenda.ledger.history.of("trial", trial).reports[-1]
    before = float(last["metrics"].get(BEFORE_TASK, 0.0))
    rows = 1.0 + int(spec["parts"]["validation"]) / int(spec["parts"]["train"])
    processes = math.ceil(spec["workers"].get("gpus_per_trial") or 1)
    training = agenda.expected(trial) * rows * processes * (before + (1 - before) * share / WHOLE)
    return SLACK * training + _end_seconds(agenda)


def _end_seconds(agenda: Agenda) -> float:
    """Seconds from the last step on: the test's outputs are computed for the winner too."""
    took = [(2 * outputs, scores) for outputs, scores in agenda.took]
    return closing_seconds(0.0, took, agenda.ledger.study.spec["parts"])


def refit_in_time(opened: Opened, agenda: Agenda, watcher: Watcher, gpus: float) -> Row | None:
    """The winner of a study that has ended, trained once more in what is left of its time; or None, and the watcher
    hears why. Trials held so many `gpus`."""
    later = f"Later: deepmine-auto refit {opened.study.typed}"
    why = _hindrance(opened, agenda, gpus)
    try:
        if not why:
            return _refitted(opened, agenda, watcher)
    except DeepmineError as error:
        why = error.what
    except Exception as error:  # a full disk, little memory, a plugin: nothing of that undoes what was found
        why = f"{type(error).__name__}: {error}."
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"the study has ended, its refit has not. {later}")
        raise
    finally:
        with suppress(Exception):  # the database may be away, and its clock then stands where it stood
            agenda.ledger.note_end()
    watcher.happened("refit", f"no refit: {why} {later}", None)
    return None


def _hindrance(opened: Opened, agenda: Agenda, gpus: float) -> str:
    """Why a refit should not begin; empty where it should."""
    if gpus and device_here().type == "cpu":
        return "Trials ran on GPUs, and this process has none."
    assert opened.study.result is not None
    takes = _seconds(agenda, opened.study.result["winner"], best_share(opened.study, opened.store))
    left = agenda.seconds_left()
    if left is not None and left < takes:
        return f"It would take {duration(takes)}, and {duration(left)} are left."
    return ""


def _refitted(opened: Opened, agenda: Agenda, watcher: Watcher) -> Row:
    end, study = _end_seconds(agenda), opened.study

    def goes_on() -> bool:
        watcher.tick()
        left = agenda.seconds_left()
        return left is None or left > end

    def tell(text: str) -> None:
        watcher.happened("refit", text, None)

    return refit_held(study, opened.store, opened.fence, _free_folder(opened), tell, goes_on)


def _free_folder(opened: Opened) -> Path:
    """Where the refit goes; that of a later winner, after more trials, has a number."""
    assert opened.study.result is not None
    first = Path(opened.study.folder) / f"refit-{opened.study.result['winner']}"
    numbered = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return first if not first.exists() else next(each for each in numbered if not each.exists())

"""A driver for test_kill.py: its trainings cost nothing, and it acknowledges each finished trial aloud."""

import sys
import time
from pathlib import Path

from fakes import Desk, quick, training_is

from deepmine_auto.executors import inline
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget

STEP_SECONDS = 0.01


def slow(assignment, host):
    """The quick training, one hundredth of a second a step."""
    for message in quick(assignment, host):
        time.sleep(STEP_SECONDS)
        yield message


def main(folder: Path, trials: int) -> None:
    """Begin the study or go on with it, and print the number of each trial once its end is in the database."""
    desk = Desk(folder)
    study = desk.store.study("study") if desk.store.exists("study") else desk.begin()
    ledger = desk.ledger(study)
    told = set()

    def watch(kind: str, _text: str, number: int | None) -> None:
        if kind == "ended" and number not in told:
            told.add(number)
            print(number, flush=True)

    ledger.watch = watch
    agenda = Agenda(ledger, Budget(trials=trials), 1, lambda: 0.0)
    with training_is(slow):
        inline.run(agenda, None, lambda: None)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

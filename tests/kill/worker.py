"""Drivers to be killed. This process is warm and has one thread: for each line of JSON on its standard input it forks
one, says its number, and then how it ended. So a kill costs no import.

Their trainings cost nothing but their pace, and write real checkpoints. What they did and acknowledged stands in a log
outside the database.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from away import Switch, without_fsync
from fakes import Desk, begun_at, quick, training_is

from deepmine_auto import failpoints
from deepmine_auto.bundle import parity, save
from deepmine_auto.errors import DeepmineError
from deepmine_auto.executors import inline
from deepmine_auto.messages import Assignment, Message, Reported
from deepmine_auto.storage.place import place_of
from deepmine_auto.study import finals, writer
from deepmine_auto.study.agenda import Agenda
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.ledger import Ledger
from deepmine_auto.training import checkpoint

STATEMENTS_AWAY = 9
"""So many statements of SQL are refused where a failpoint takes the database away."""


class Driver:
    """One driver of one study: `job` says where, for how many trials, and what is to go wrong."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.log = os.open(job["log"], os.O_WRONLY | os.O_APPEND)
        self.desk = without_fsync(Desk(Path(job["folder"]), place=place_of(job["storage"])))
        self.switch = Switch(self.desk)
        vars(self.switch).update(job.get("trouble", {}))
        self.act, failpoints._act = failpoints._act, self.fail
        os.environ[failpoints.VARIABLE] = job.get("failpoint", "")

    def note(self, *words: object) -> None:
        """Write a line to the log, in one piece."""
        os.write(self.log, (" ".join(map(str, words)) + "\n").encode())

    def fail(self, name: str, action: str) -> None:
        """Do what a failpoint asks for; here it can also take the database away."""
        self.note("reached", name)
        if action == "away":
            self.switch.refuse = STATEMENTS_AWAY
        else:
            self.act(name, action)

    def run(self) -> None:
        """Go on with the study until it is over."""
        place, fence = self.desk.place, self.desk.fence
        with place.hold(self.job["study"]) as hold:
            fence.hold = hold
            writer.replay_left(self.desk.store, self.desk.store.study(self.job["study"]))
            study = self.desk.store.study(self.job["study"])
            plugins = self.desk.sampler, self.desk.pruner
            ledger = Ledger(self.desk.store, study, fence, plugins, self.watch, fence.regain)
            with training_is(self.training):
                inline.run(Agenda(ledger, Budget(trials=self.job["trials"]), 1, lambda: 0.0), None, lambda: None)
            if study.result is None:
                ledger.write_result({"bundle": self.export(Path(study.folder))})
            ledger.writer.settle()

    def watch(self, kind: str, _text: str, number: int | None) -> None:
        """Acknowledge an end: the ledger has said that it lasts."""
        if kind in ("ended", "rerun ended"):
            self.note("ended", "trial" if kind == "ended" else "rerun", number)

    def training(self, assignment: Assignment, host: Any) -> Iterator[Message]:
        """The quick training; it goes on from a checkpoint only if that is whole."""
        begun = begun_at(assignment)
        if begun:
            assert checkpoint.load(Path(assignment.folder) / assignment.checkpoints[0])[1] == {"step": begun}
        best = -1.0
        for message in quick(assignment, host):
            time.sleep(self.job["pace"])
            if isinstance(message, Reported):
                self.note("step", *assignment.key, assignment.attempt, message.step)
                if message.checkpoint or message.value > best:
                    checkpoint.save(Path(assignment.folder) / message.best_checkpoint, WEIGHTS, {"step": message.step})
                best = max(best, message.value)
            yield message

    def export(self, folder: Path) -> str:
        """Save a bundle whose content is of no interest."""
        bundle = next(each for number in range(99) if not (each := folder / f"bundle-{number}").exists())
        save.save(bundle, None, [], None)  # type: ignore[arg-type]
        return str(bundle)


WEIGHTS = {"w": torch.zeros(1)}


def prepare() -> None:
    """Leave out what costs time: bringing bytes to the disk, which only a power cut asks for, finals of three, and a
    real bundle."""
    os.fsync = lambda handle: None
    writer.SECONDS_BETWEEN_PROBES = inline.WAIT_SECONDS = 0.02
    finals.FINALISTS = 1
    save._write = lambda folder, exported: (folder / "weights").write_text("1")
    parity.verify = lambda *each: 0.0


def forked(job: dict[str, Any]) -> int:
    """The driver's life, and its exit code."""
    try:
        Driver(job).run()
    except DeepmineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Serve."""
    prepare()
    print("warm", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            os.dup2(os.open(job["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            os._exit(forked(job))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

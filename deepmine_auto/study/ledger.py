"""The ledger: the one writer of a study. Each step is durable before the next begins, and every decision is a function
of rows, so that a restart decides the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from deepmine_auto import failpoints
from deepmine_auto.contracts import Pruner, Sampler, Verdict
from deepmine_auto.messages import Assignment, Because, Cause, Ended, Reported, Saved, last_line
from deepmine_auto.space import Space
from deepmine_auto.storage import tables
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.store import Row, Store, StudyRow, now
from deepmine_auto.study import ends
from deepmine_auto.study.assigning import Assigning
from deepmine_auto.study.budget import used
from deepmine_auto.study.checkpoints import being_written, checkpoints_to_keep, sweep
from deepmine_auto.study.finals import finalists
from deepmine_auto.study.giving_up import refuse_failing
from deepmine_auto.study.history import History, Key
from deepmine_auto.study.known import held_against, write_known
from deepmine_auto.study.mirror import Mirror
from deepmine_auto.study.notes import best_note
from deepmine_auto.study.pruning import judge, seen
from deepmine_auto.study.remaining import refuse_used_up
from deepmine_auto.study.setting_aside import SET_ASIDE_AFTER, as_they_are, bar, refuse, set_aside
from deepmine_auto.study.showing import note_trial
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.study.writer import Watch, Writer, replay_left

TOLD = ("plugin", "error", "memory", "diverged", "limit", "lost")
"""Ends that are worth a sentence."""


def _nothing() -> None:
    """The lock of a SQLite file cannot be lost while its process lives."""


class Ledger:
    """Rows of one study, kept in memory as they are in the database. `gpus` are held while this driver works."""

    def __init__(
        self,
        store: Store,
        study: StudyRow,
        fence: Fence,
        plugins: tuple[Sampler, Pruner],
        watch: Watch,
        regain: Callable[[], None] = _nothing,
        gpus: float = 0.0,
    ) -> None:
        self.store, self.study, self.watch, self.gpus = store, study, watch, gpus
        self.sampler, self.pruner = plugins
        self.able_here: Callable[[int], bool] = lambda _: True  # the agenda knows which trials cannot be trained again
        self.direction = study.direction
        self.spaces = Spaces.of(store, study)
        self.epoch = store.begin_session(study.id, gpus)
        fence.study_id, fence.epoch = study.id, self.epoch
        self.begun, self.noted = time.monotonic(), 0.0
        self.writer = Writer(store, study, self.epoch, self._noticed, regain)
        self._read()

    def _read(self) -> None:
        replayed = replay_left(self.store, self.study)
        sessions = [row for row in self.store.sessions(self.study.id) if row["epoch"] != self.epoch]
        self.used_before = used(sessions)
        self.history = History(self.store, self.study)
        rungs = tuple(self.pruner.rungs())
        self.assigning = Assigning(self.study, self.spaces, self.history, self.writer, rungs)
        self.plugins = self.store.rows(tables.plugins, self.study.id)
        evidence = self.store.rows(tables.evidence, self.study.id)
        self.mirror = Mirror(self.spaces, self.sampler, self.study.directions, self.seed, evidence)
        for number in sorted(self.trials):
            self._show_missing(number)
            curve = {} if self._several else self.history.curve(number)
            self.mirror.add(self.trials[number], held_against(self.trials[number]), curve)
        self.proposed: FrozenTrial | None = None
        for each in replayed:
            self.event("replayed", each)

    def _show_missing(self, number: int) -> None:
        """Show Optuna a report after which the driver was killed: the worker will not send it again."""
        trial = self.trials[number]
        if self._several or trial.state.is_finished():
            return
        for row in self.history.of("trial", number).reports:
            if row["step"] not in trial.intermediate_values:
                self._show(number, row["step"], row["value"])

    @property
    def space(self) -> Space:
        """The space that new trials are drawn from."""
        return self.spaces.now

    @property
    def trials(self) -> dict[int, FrozenTrial]:
        """Trials by number."""
        return self.history.trials

    @property
    def reruns(self) -> dict[int, Row]:
        """Reruns by number."""
        return self.history.reruns

    def params(self, number: int) -> dict[str, Any]:
        """All that a trial was built from, by plain names."""
        return self.assigning.params(number)

    @property
    def seed(self) -> int:
        """The study's seed."""
        return int(self.study.spec["seed"])

    @property
    def spent(self) -> float:
        """Seconds that drivers have worked on this study, over all sessions."""
        return self.used_before[0] + self._lasted

    @property
    def gpu_hours(self) -> float:
        """Hours for which GPUs were held, over all sessions."""
        return self.used_before[1] + self._lasted * self.gpus / 3600

    @property
    def _lasted(self) -> float:
        return time.monotonic() - self.begun

    def note_spent(self, after: float) -> None:
        """Write how long this session has lasted, where that was not written for more than `after` seconds."""
        lasted = self._lasted
        if lasted - self.noted > after:
            self.writer.write("spent", epoch=self.epoch, spent=lasted)
            self.noted = lasted

    def note_end(self) -> None:
        """Write how long this session has lasted, and wait for no disk: whoever has pressed Ctrl-C wants to leave."""
        if self.writer.away_since is None:
            self.store.note_spent(self.study.id, self.epoch, self._lasted)

    def unfinished(self) -> list[Key]:
        """Trials and reruns that have no end yet."""
        return self.history.unfinished()

    @property
    def _several(self) -> bool:
        return len(self.study.objectives) > 1

    # -- ask ---------------------------------------------------------------------------------------------------------

    def ask(self) -> Assignment | None:
        """Propose the next trial, write its row, and return what a worker needs; None while nothing can be written.

        Raises AllFailed, NothingInItsPlace and UsedUp where there is nothing to be proposed.
        """
        refuse_failing(self.trials.values(), self.history.failures_told, self.study.typed)
        number = len(self.trials)
        proposed = self.proposed = self.proposed or self._propose(number)
        failpoints.reach("mid_ask")
        row = self.writer.add_trial(number, proposed)
        if row is None:
            return None
        self.proposed = None
        self.trials[number] = row
        failpoints.reach("after_ask")
        return self.assigning.trial(number, "begun")

    def _propose(self, number: int) -> FrozenTrial:
        out = self._set_aside()
        barred = bar(out, self.space, self.seed, number)
        refuse_used_up(self.mirror.remaining(number, barred))
        proposed = self.mirror.ask(number, barred)
        write_known(proposed, self.history.seq, self.trials.values())
        refuse(out, self.study.spec["task"], self.space.complete(proposed.params), self.study.typed)
        return proposed

    def _set_aside(self) -> set[str]:
        return set_aside(self.trials.values(), as_they_are(self.plugins, len(self.trials)))

    def adopt(self, key: Key, because: Because) -> Assignment | None:
        """Go on with an unfinished one under the same number; None where the verdict on its last report ended it."""
        kind, number = key
        if kind == "rerun":
            return self.assigning.rerun(number, because)
        if self._ended_by_verdict(number):
            return None
        return self.assigning.trial(number, because)

    def _ended_by_verdict(self, number: int) -> bool:
        stopped = self.history.of("trial", number).stopped
        if stopped:
            self._stop(number, stopped)
            return True
        reported = [each.seq for each in self.history.reports if each.trial == number]
        # the driver may have been killed between a report and its verdict: it is computed again, and is the same
        return bool(reported) and reported[-1] not in self.history.judged and not self._decide(number, reported[-1])

    def add_rerun(self, trial: int, repeat: int) -> Assignment:
        """Write a rerun of a finalist, and return what a worker needs."""
        number = len(self.reruns)
        row: Row = {"number": number, "trial": trial, "repeat": repeat}
        self.writer.write("rerun", **row)
        self.reruns[number] = {**row, "state": "RUNNING"}
        failpoints.reach("mid_rerun")
        return self.assigning.rerun(number, "begun")

    # -- report and decide -------------------------------------------------------------------------------------------

    def report(self, assignment: Assignment, message: Reported, *, out_of_time: bool) -> bool:
        """Write a report, then the verdict on it; return whether the worker shall go on."""
        row = self._write_report(assignment, message)
        failpoints.reach("after_report")
        if assignment.kind == "rerun":
            return self._rerun_goes_on(assignment.key, out_of_time)
        number = assignment.number
        *earlier, _ = self.history.of("trial", number).reports
        if any(each["step"] == message.step for each in earlier):
            return True  # a step that was judged before the driver was killed
        self.history.reports.append(seen(row, self.study.objectives, self.study.limits))
        if not self._several:  # TPE cannot read intermediate values beside several objectives
            self._show(number, message.step, message.value)
            self.mirror.report(number, message.share, message.value)
        failpoints.reach("after_show")
        return self._decide(number, row["seq"], out_of_time)

    def _rerun_goes_on(self, key: Key, out_of_time: bool) -> bool:
        """No pruner judges a rerun, but what it costs and the deadline end it too. A driver that is killed before that
        leaves it to the next report."""
        passed = ends.costs_passed(self.history, key)
        if passed:
            self.end(key, Ended("limit", reason=passed))
        elif out_of_time:
            self.stop_at_deadline(key)
        return not (passed or out_of_time)

    def _decide(self, number: int, seq: int, out_of_time: bool = False) -> bool:
        verdict = judge(self.pruner, self.history.reports, seq)
        cause = self._cause(number, verdict, out_of_time)
        if verdict.rung is not None or cause:
            self._write_verdict(number, seq, verdict._replace(keep=not cause), cause or "")
            failpoints.reach("after_verdict")
        if cause:
            self._stop(number, cause)
        return not cause

    def _cause(self, number: int, verdict: Verdict, out_of_time: bool) -> Cause | None:
        if ends.costs_passed(self.history, ("trial", number)):
            return "limit"
        if not verdict.keep:
            return "pruned"
        return "deadline" if out_of_time else None

    def _write_report(self, assignment: Assignment, message: Reported) -> Row:
        self.history.seq += 1
        row = {
            "seq": self.history.seq,
            "kind": assignment.kind,
            "number": assignment.number,
            "attempt": assignment.attempt,
            "step": message.step,
            "share": message.share,
            "value": message.value,
            "metrics": ends.as_json(message.metrics, self.study),
            "checkpoint": message.checkpoint,
            "best_checkpoint": message.best_checkpoint,
            "seconds": message.seconds,
        }
        self.noted = self._lasted
        self.writer.write("report", report=row, epoch=self.epoch, spent=self.noted)
        self.history.of(assignment.kind, assignment.number).reports.append(row)
        return row

    def _show(self, number: int, step: int, value: float) -> None:
        trial = self.trials[number]
        self.writer.write("show", trial_id=trial._trial_id, step=step, value=value)
        trial.intermediate_values[step] = value

    def _write_verdict(self, number: int, seq: int, verdict: Verdict, cause: str) -> None:
        row = {"seq": seq, "number": number, **verdict._asdict(), "cause": cause}
        self.writer.write("verdict", **row)
        self.history.note_verdict(row)

    def _stop(self, number: int, cause: Cause) -> None:
        best = self.history.of("trial", number).best(self.direction)
        assert best is not None
        reason = ends.costs_passed(self.history, ("trial", number)) if cause == "limit" else ""
        self._finish(number, Ended(cause, best["value"], best["step"], best["best_checkpoint"], reason))

    def stop_at_deadline(self, key: Key) -> None:
        """End what runs between two reports, with its best checkpoint if it has one."""
        best = self.history.of(*key).best(self.direction)
        if best is None:
            self.end(key, Ended("deadline", reason="the time was over before its first evaluation"))
        else:
            facts = {"seconds": self.history.of(*key).reports[-1]["seconds"]}
            self.end(key, Ended("deadline", best["value"], best["step"], best["best_checkpoint"], facts=facts))

    def saved(self, assignment: Assignment, message: Saved) -> None:
        """Write which checkpoint a worker wrote between two reports; the one before the last is needed no more."""
        key = {"kind": assignment.kind, "number": assignment.number, "attempt": assignment.attempt}
        self.writer.write("save", **key, saved=message.checkpoint)
        self.history.of(*assignment.key).attempts[assignment.attempt - 1]["saved"] = message.checkpoint
        self._sweep()

    # -- tell --------------------------------------------------------------------------------------------------------

    def end(self, key: Key, message: Ended) -> None:
        """Write the end of a trial or rerun; written again, it changes nothing."""
        kind, number = key
        if not self.history.running(kind, number):
            return
        if kind == "rerun":
            self._finish_rerun(number, ends.rerun_within_limits(self.history, number, message))
        else:
            self._finish(number, ends.within_limits(self.history, number, message))

    def _finish(self, number: int, message: Ended) -> None:
        trial, told = self.trials[number], ends.told(self.history, number, message)
        failpoints.reach("before_tell")
        self.writer.write("tell", trial_id=trial._trial_id, **told._asdict())
        failpoints.reach("after_tell_commit")
        ends.carry_out(trial, told)
        self.mirror.tell(number, trial.state, told.values, held_against(trial))
        self._sweep()
        self._note_best(number)
        self._tell_watch(number, message)

    def _note_best(self, number: int) -> None:
        """Tell a dashboard of a new best; this is decoration, and waits for nothing."""
        values = self.history.best_values()
        best = finalists(self.trials.values(), values, self.direction)[:2]
        if best[:1] == [number] and self.writer.away_since is None:
            before = (best[1], values[best[1]]) if best[1:] else None
            note_trial(self.store, self.study, self.trials[number], best_note(self.study, values[number], before))

    def _sweep(self) -> None:
        """Delete the checkpoints that no decision can need any more. Without the database nothing is deleted: another
        driver may have taken the study over, and need them."""
        failpoints.reach("before_sweep")
        if self.writer.away_since is not None:
            return
        history = self.history
        keep = checkpoints_to_keep(self.trials, self.reruns, history.standing, self.direction, self.able_here)
        sweep(Path(self.study.folder), keep, being_written(self.trials, self.reruns, history.standing))

    def _tell_watch(self, number: int, message: Ended) -> None:
        if message.cause in TOLD:
            blamed = f" ({message.plugin})" if message.plugin else ""
            why = last_line(message.reason) or message.cause
            self.event("failed", f"trial {number} failed{blamed}: {why}", number)
            for plugin in self._set_aside() & {message.plugin or ""}:
                self.event("set aside", f"{plugin} raised in {SET_ASIDE_AFTER} trials and is set aside for this study")
        self.watch("ended", message.cause, number)

    def _finish_rerun(self, number: int, message: Ended) -> None:
        values = ends.of_rerun(message)
        self.writer.write("end rerun", number=number, values=values)
        row = self.reruns[number]
        row |= values
        self._sweep()
        if message.cause == "limit":
            told = f"rerun {row['repeat'] + 1} of trial {row['trial']} does not count: {message.reason}"
            self.event("limit", told, row["trial"])
        elif message.cause in TOLD:
            why = last_line(message.reason) or message.cause
            self.event("failed", f"rerun {row['repeat'] + 1} of trial {row['trial']} failed: {why}", row["trial"])
        self.watch("rerun ended", message.cause, number)

    def cancel(self, reason: str) -> list[Key]:
        """End what has no end: by the verdict on its last report, else as cancelled. Return what was cancelled."""
        left = self.history.unfinished()
        cancelled = [key for key in left if key[0] == "rerun" or not self._ended_by_verdict(key[1])]
        for key in cancelled:
            self.end(key, Ended("cancelled", reason=reason))
        return cancelled

    # -- and else ----------------------------------------------------------------------------------------------------

    def event(self, kind: str, text: str, trial: int | None = None) -> None:
        """Write an event, and tell whoever watches."""
        self.history.event += 1
        text = text.replace("\0", " ")
        row: Row = {"id": self.history.event, "at": now(), "kind": kind, "trial": trial, "text": text}
        self.writer.write("event", **row)
        self.history.note_event(row)
        self.watch(kind, text, trial)

    def write_result(self, result: Row) -> None:
        """Write what the finals found."""
        self.writer.write("result", result=result, epoch=self.epoch, spent=self._lasted)

    def _noticed(self, kind: str, text: str, trial: int | None) -> None:
        """Hear of the database from the writer; that the disk is full cannot be written."""
        if kind == "full":
            self.watch(kind, text, trial)
        else:
            self.event(kind, text, trial)

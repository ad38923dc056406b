"""The ledger: the one writer of a study. Each step is durable before the next begins, and every decision is a function
of rows, so that a restart decides the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from deepmine_auto.contracts import Direction, Pruner, Report, Sampler, Verdict
from deepmine_auto.errors import DeepmineError
from deepmine_auto.messages import Assignment, Cause, Ended, Reported
from deepmine_auto.space import Space, Value
from deepmine_auto.storage import tables
from deepmine_auto.storage.engine import Fence
from deepmine_auto.storage.store import Row, Store, StudyRow
from deepmine_auto.study.checkpoints import Standing, being_written, checkpoints_to_keep, sweep
from deepmine_auto.study.mirror import Mirror
from deepmine_auto.study.pruning import curve, judge, oriented
from deepmine_auto.study.seeding import seed_of

SET_ASIDE_AFTER = 3
"""A plugin that raised in so many different trials is not proposed again in this study."""

UNEXPLAINED_IN_A_ROW = 5
"""So many failures in a row that no plugin and no limit explains end the search."""


class End(NamedTuple):
    """What becomes of a trial: its state, and whether its params are to blame."""

    state: TrialState
    infeasible: bool


ENDS: dict[Cause, End] = {
    "budget": End(TrialState.COMPLETE, False),
    "patience": End(TrialState.COMPLETE, False),
    "pruned": End(TrialState.PRUNED, False),
    "deadline": End(TrialState.PRUNED, False),
    "limit": End(TrialState.PRUNED, True),
    "diverged": End(TrialState.PRUNED, True),
    "memory": End(TrialState.FAIL, True),
    "plugin": End(TrialState.FAIL, True),
    "error": End(TrialState.FAIL, False),
    "lost": End(TrialState.FAIL, False),
    "cancelled": End(TrialState.FAIL, False),
}

KINDS_OF_PARAMS = {"model": "backbone"}
"""The kind of plugin that a param's first word means, where it is another word."""

Watch = Callable[[str, str, int | None], None]
"""Told of events as (kind, text, trial)."""


class Ledger:
    """Rows of one study, kept in memory as they are in the database."""

    def __init__(
        self, store: Store, study: StudyRow, fence: Fence, plugins: tuple[Sampler, Pruner], watch: Watch
    ) -> None:
        self.store, self.study, self.watch = store, study, watch
        self.sampler, self.pruner = plugins
        self.direction: Direction = study.direction
        self.space = Space.from_json(study.spec["space"])
        self.epoch = store.begin_session(study.id)
        fence.study_id, fence.epoch = study.id, self.epoch
        self.begun = time.monotonic()
        self._read()

    def _read(self) -> None:
        rows = self.store.rows
        self.trials: dict[int, FrozenTrial] = {each.number: each for each in self.store.trials(self.study.id)}
        self.reruns: dict[int, Row] = {row["number"]: row for row in rows(tables.reruns, self.study.id)}
        self.standing: dict[tuple[str, int], Standing] = {}
        reports = rows(tables.reports, self.study.id)
        for row in reports:
            self._standing(row["kind"], row["number"]).reports.append(row)
        for row in rows(tables.attempts, self.study.id):
            self._standing(row["kind"], row["number"]).attempts += 1
        for row in rows(tables.verdicts, self.study.id):
            if not row["keep"]:
                self._standing("trial", row["number"]).stopped = row["cause"]
        self.reports: list[Report] = curve(reports, self.direction)
        self.seq = max((row["seq"] for row in reports), default=0)
        self.spent_before = sum(row["spent"] for row in self.store.sessions(self.study.id))
        self.mirror = Mirror(self.space, self.sampler, self.study.directions, self.seed)
        for number in sorted(self.trials):
            self._show_missing(number)
            self.mirror.add(self.trials[number], self._infeasible(self.trials[number]))

    def _show_missing(self, number: int) -> None:
        """Show Optuna a report after which the driver was killed: the worker will not send it again."""
        trial = self.trials[number]
        rows = [] if trial.state.is_finished() else self._standing("trial", number).reports
        for row in rows:
            if row["step"] not in trial.intermediate_values:
                self.store.storage.set_trial_intermediate_value(trial._trial_id, row["step"], row["value"])
                self.trials[number] = self.store.storage.get_trial(trial._trial_id)

    def _standing(self, kind: str, number: int) -> Standing:
        return self.standing.setdefault((kind, number), Standing())

    @staticmethod
    def _infeasible(trial: FrozenTrial) -> bool:
        cause = trial.user_attrs.get("cause")
        return cause in ENDS and ENDS[cause].infeasible

    @property
    def seed(self) -> int:
        """The study's seed."""
        return int(self.study.spec["seed"])

    @property
    def spent(self) -> float:
        """Seconds that drivers have worked on this study, over all sessions."""
        return float(self.spent_before) + time.monotonic() - self.begun

    # -- ask ---------------------------------------------------------------------------------------------------------

    def ask(self) -> Assignment:
        """Propose the next trial, write its row, and return what a worker needs."""
        number = len(self.trials)
        row = self.mirror.ask(number, self._bar(number))
        self._refuse_set_aside(row.params)
        self.trials[number] = self.store.add_trial(self.study.id, row)
        return self._assign("trial", number, row.params, "search", seed_of(self.seed, "trial", number))

    def unfinished(self) -> list[tuple[str, int]]:
        """Trials and reruns that an earlier driver left RUNNING."""
        trials = [("trial", each.number) for each in self.trials.values() if not each.state.is_finished()]
        return trials + [("rerun", row["number"]) for row in self.reruns.values() if row["state"] == "RUNNING"]

    def adopt(self, kind: str, number: int) -> Assignment | None:
        """Go on with an unfinished one under the same number; None where the verdict on its last report ended it."""
        if kind == "rerun":
            return self._assign_rerun(self.reruns[number])
        if self._ended_by_verdict(number):
            return None
        return self._assign("trial", number, self.trials[number].params, "search", seed_of(self.seed, "trial", number))

    def _ended_by_verdict(self, number: int) -> bool:
        standing = self._standing("trial", number)
        if standing.stopped:
            self._stop(number, standing.stopped)
            return True
        judged = [each.seq for each in self.reports if each.trial == number]
        written = {row["seq"] for row in self.store.rows(tables.verdicts, self.study.id)}
        # the driver may have been killed between a report and its verdict: it is computed again, and is the same
        return bool(judged) and judged[-1] not in written and not self._decide(number, judged[-1], out_of_time=False)

    def add_rerun(self, trial: int, repeat: int) -> Assignment:
        """Write a rerun of a finalist, and return what a worker needs."""
        number = len(self.reruns)
        row: Row = {"number": number, "trial": trial, "repeat": repeat, "state": "RUNNING"}
        self.store.add(tables.reruns, self.study.id, row)
        self.reruns[number] = row
        return self._assign_rerun(row)

    def _assign_rerun(self, row: Row) -> Assignment:
        seed = seed_of(self.seed, "rerun", row["repeat"])
        return self._assign("rerun", row["number"], self.trials[row["trial"]].params, f"rerun-{row['repeat']}", seed)

    def _assign(self, kind: Any, number: int, params: Mapping[str, Any], split: str, seed: int) -> Assignment:
        standing = self._standing(kind, number)
        standing.attempts += 1
        row = {"kind": kind, "number": number, "attempt": standing.attempts, "epoch": self.epoch}
        self.store.add(tables.attempts, self.study.id, row)
        return Assignment(
            kind=kind,
            number=number,
            attempt=standing.attempts,
            folder=self.study.folder,
            task=self.study.spec["task"],
            objective=self.study.spec["objective"],
            split=split,
            seed=seed,
            params=self.space.complete(params),
            checkpoints=standing.checkpoints(),
            rungs=tuple(self.pruner.rungs()) if kind == "trial" else (),
        )

    def set_aside(self) -> set[str]:
        """Plugins (`kind/name`) that raised in too many trials."""
        raised = Counter(each.user_attrs["plugin"] for each in self.trials.values() if "plugin" in each.user_attrs)
        return {plugin for plugin, count in raised.items() if count >= SET_ASIDE_AFTER}

    def _bar(self, number: int) -> Callable[[str, Value], Value | None]:
        out = self.set_aside()

        def bar(name: str, value: Value) -> Value | None:
            prefix, _, last = name.rpartition("/")
            kind = KINDS_OF_PARAMS.get(prefix, prefix)
            if last == "use":
                return False if value is True and kind in out else None
            if last != "kind" or f"{kind}/{value}" not in out:
                return None
            left = [each for each in self._options(name) if f"{kind}/{each}" not in out]
            return left[seed_of(self.seed, "instead", number, name) % len(left)] if left else None

        return bar

    def _refuse_set_aside(self, params: Mapping[str, Any]) -> None:
        out = self.set_aside()
        if not out:
            return
        from deepmine_auto.model.assemble import plugins_of

        for kind, name in plugins_of(self.study.spec["task"], self.space.complete(params)):
            if f"{kind}/{name}" in out:
                what = (
                    f"The {kind} '{name}' raised in {SET_ASIDE_AFTER} trials, and this space has nothing in its place."
                )
                raise DeepmineError(what, f"See `deepmine-auto trials {self.study.name}`.")

    def _options(self, name: str) -> tuple[Value, ...]:
        ranges = {each.name: each.range for each in self.space.params}
        return tuple(getattr(ranges[name], "options", ()))

    # -- report and decide -------------------------------------------------------------------------------------------

    def report(self, assignment: Assignment, message: Reported, *, out_of_time: bool) -> bool:
        """Write a report, then the verdict on it; return whether the worker shall go on."""
        row = self._write_report(assignment, message)
        if assignment.kind == "rerun":
            return True
        number = assignment.number
        if any(each.trial == number and each.share == message.share for each in self.reports):
            return True  # a step that was judged before the driver was killed
        self.reports.append(Report(number, message.share, oriented(message.value, self.direction), row["seq"]))
        self._show_report(number, message)
        return self._decide(number, row["seq"], out_of_time)

    def _decide(self, number: int, seq: int, out_of_time: bool) -> bool:
        verdict = judge(self.pruner, self.reports, seq)
        cause: Cause = "pruned" if not verdict.keep else "deadline"
        keep = verdict.keep and not out_of_time
        if verdict.rung is not None or not keep:
            self._write_verdict(number, seq, verdict._replace(keep=keep), cause)
        if not keep:
            self._stop(number, cause)
        return keep

    def _write_report(self, assignment: Assignment, message: Reported) -> Row:
        self.seq += 1
        row = {
            "seq": self.seq,
            "kind": assignment.kind,
            "number": assignment.number,
            "attempt": assignment.attempt,
            "step": message.step,
            "share": message.share,
            "value": message.value,
            "metrics": dict(message.metrics),
            "checkpoint": message.checkpoint,
            "best_checkpoint": message.best_checkpoint,
            "seconds": message.seconds,
        }
        self.store.add_report(self.study.id, row, self.epoch, time.monotonic() - self.begun)
        self._standing(assignment.kind, assignment.number).reports.append(row)
        return row

    def _show_report(self, number: int, message: Reported) -> None:
        trial_id = self.trials[number]._trial_id
        self.store.storage.set_trial_intermediate_value(trial_id, message.step, message.value)
        self.mirror.report(number, message.step, message.value)

    def _write_verdict(self, number: int, seq: int, verdict: Verdict, cause: Cause) -> None:
        row = {"seq": seq, "number": number, **verdict._asdict(), "cause": cause}
        self.store.add(tables.verdicts, self.study.id, row)
        if not verdict.keep:
            self._standing("trial", number).stopped = cause

    def _stop(self, number: int, cause: Cause) -> None:
        standing = self._standing("trial", number)
        best = standing.best(self.direction)
        assert best is not None
        seconds = standing.reports[-1]["seconds"]
        self._finish(
            number, Ended(cause, best["value"], best["step"], best["best_checkpoint"], facts={"seconds": seconds})
        )

    # -- tell --------------------------------------------------------------------------------------------------------

    def end(self, assignment: Assignment, message: Ended) -> None:
        """Write the end of a trial or rerun; written again, it changes nothing."""
        if assignment.kind == "rerun":
            if self.reruns[assignment.number]["state"] == "RUNNING":
                self._finish_rerun(assignment.number, message)
        elif not self.trials[assignment.number].state.is_finished():
            self._finish(assignment.number, message)

    def _finish(self, number: int, message: Ended) -> None:
        state, infeasible = ENDS[message.cause]
        attrs: dict[str, Any] = {"cause": message.cause, **message.facts}
        attrs |= {"reason": message.reason} if message.reason else {}
        attrs |= {"plugin": message.plugin} if message.plugin else {}
        attrs |= {"best_step": message.step, "checkpoint": message.checkpoint} if message.checkpoint else {}
        value = self._value(number, state, message)
        self.store.finish_trial(self.trials[number], state, value, attrs)
        self.trials[number] = self.store.storage.get_trial(self.trials[number]._trial_id)
        self.mirror.tell(number, state, value, infeasible)
        self._sweep()
        self._tell_watch(number, message)

    def _sweep(self) -> None:
        """Delete the checkpoints that no decision can need any more."""
        keep = checkpoints_to_keep(self.trials, self.reruns, self.standing, self.direction)
        sweep(Path(self.study.folder), keep, being_written(self.trials, self.reruns, self.standing))

    def _value(self, number: int, state: TrialState, message: Ended) -> float | None:
        # Optuna's own convention: a pruned trial is shown at its last point, a complete one at the task's best
        if state == TrialState.COMPLETE:
            return message.value
        reports = self._standing("trial", number).reports
        return reports[-1]["value"] if state == TrialState.PRUNED and reports else None

    def _tell_watch(self, number: int, message: Ended) -> None:
        last = message.reason.strip().splitlines()[-1] if message.reason.strip() else message.cause
        if message.cause in ("plugin", "error", "memory", "diverged"):
            blamed = f" ({message.plugin})" if message.plugin else ""
            self.event("failed", f"trial {number} failed{blamed}: {last}", number)
            for plugin in self.set_aside() & {message.plugin or ""}:
                self.event("set aside", f"{plugin} raised in {SET_ASIDE_AFTER} trials and is set aside for this study")
        self.watch("ended", message.cause, number)

    def _finish_rerun(self, number: int, message: Ended) -> None:
        done = ENDS[message.cause].state == TrialState.COMPLETE or message.cause == "deadline"
        values: Row = {
            "state": "COMPLETE" if done and message.value is not None else "FAIL",
            "value": message.value,
            "checkpoint": message.checkpoint,
            "seconds": message.facts.get("seconds"),
            "reason": message.reason or message.cause,
        }
        self.store.change(tables.reruns, self.study.id, number, values)
        self.reruns[number] |= values
        self._sweep()
        self.watch("rerun ended", message.cause, number)

    def unexplained(self) -> str | None:
        """The last reason, where too many trials in a row failed without a plugin to blame."""
        ended = [each for _, each in sorted(self.trials.items()) if each.state.is_finished()]
        last = ended[-UNEXPLAINED_IN_A_ROW:]
        if len(last) < UNEXPLAINED_IN_A_ROW or any(each.user_attrs.get("cause") != "error" for each in last):
            return None
        return str(last[-1].user_attrs.get("reason", "")).strip().splitlines()[-1]

    def event(self, kind: str, text: str, trial: int | None = None) -> None:
        """Write an event, and tell whoever watches."""
        self.store.add_event(self.study.id, kind, text, trial)
        self.watch(kind, text, trial)

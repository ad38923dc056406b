"""What must hold of a study's decisions, ends, checkpoints and finals: each is computed again from the reports."""

from __future__ import annotations

import json
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from deepmine_auto.audit.checks_of_rows import Findings, Seen, named
from deepmine_auto.contracts import Report, Verdict
from deepmine_auto.disk import sha256
from deepmine_auto.storage.store import Row
from deepmine_auto.study.budget import Budget
from deepmine_auto.study.causes import ENDS
from deepmine_auto.study.checkpoints import checkpoints_to_keep
from deepmine_auto.study.finals import Rerun, finalists, in_order
from deepmine_auto.study.finals import winner as the_winner
from deepmine_auto.study.pruning import costs_passed, judge

MANIFEST = "manifest.json"
"""The file of a checkpoint that has the sha256 of every other."""


def verdicts(seen: Seen) -> Findings:
    """A verdict stands where the pruner gives one at a rung or stops a trial, and nowhere else, and is that one."""
    written = {row["seq"]: row for row in seen.rows_of("verdicts")}
    rows = {row["seq"]: row for row in seen.rows_of("reports")}
    reports = seen.history.reports
    for report in reports:
        row, given = written.pop(report.seq, None), judge(seen.pruner, reports, report.seq)
        limited = bool(costs_passed(seen.record.study.limits, rows[report.seq]["metrics"]))
        if row is not None:
            yield _compared(row, given, limited)
        elif given.rung is not None or not given.keep or limited:
            yield "" if _undecided(report, seen) else f"report {report.seq} of trial {report.trial} has no verdict"
    yield from (f"the verdict on report {seq} is on none that is judged" for seq in written)


def _compared(row: Row, given: Verdict, limited: bool) -> str:
    cause = "limit" if limited else "" if given.keep else "pruned"
    as_computed = (row["value"], row["cutoff"], row["rung"]) == given[1:]
    if row["keep"]:
        right = as_computed and not cause and given.rung is not None
    else:
        right = as_computed and row["cause"] == (cause or "deadline")
    return "" if right else f"the verdict on report {row['seq']} of trial {row['number']} comes out otherwise: {given}"


def _undecided(report: Report, seen: Seen) -> bool:
    """Whether a driver's end may have come before the verdict on this report."""
    trial = seen.history.trials[report.trial]
    last = seen.history.of("trial", report.trial).reports[-1]["seq"]
    return report.seq == last and (not trial.state.is_finished() or trial.user_attrs.get("cause") == "cancelled")


def ends(seen: Seen) -> Findings:
    """A trial's state belongs to its cause, its cause to its verdict, and its values to its reports."""
    for trial in seen.trials:
        if not trial.state.is_finished():
            continue
        cause, standing = trial.user_attrs.get("cause"), seen.history.of("trial", trial.number)
        if cause not in ENDS:
            yield f"trial {trial.number} is {trial.state.name} for no reason"
        elif ENDS[cause].state != trial.state:
            yield f"trial {trial.number} is {trial.state.name}, and its cause is '{cause}'"
        elif (standing.stopped or _by_no_verdict(trial.number, cause, seen)) != cause:
            yield f"trial {trial.number} ended as '{cause}', and its verdict says '{standing.stopped or 'go on'}'"
        elif trial.values != _values(trial, seen):
            yield f"trial {trial.number} has the values {trial.values}, and its reports say {_values(trial, seen)}"
        else:
            yield ""


def _by_no_verdict(number: int, cause: str, seen: Seen) -> str:
    """The cause, where an end may have it without a verdict, else an empty string: the deadline may come between two
    reports, and a limit on a score is looked at when all is trained."""
    missed = cause == "limit" and _over_limit("trial", number, seen)
    return cause if missed or cause not in ("pruned", "limit") else ""


def _over_limit(kind: str, number: int, seen: Seen) -> bool:
    metrics = seen.history.metrics_at_best(number, kind)
    return any(each.excess(metrics) > 0 for each in seen.record.study.limits)


def _values(trial: FrozenTrial, seen: Seen) -> list[float] | None:
    study, standing = seen.record.study, seen.history.of("trial", trial.number)
    best = standing.best(seen.history.direction)
    if trial.state == TrialState.FAIL or best is None:
        return None
    if len(study.objectives) > 1:
        of_best = [best["metrics"][each.name] for each in study.objectives]
        return of_best if trial.state == TrialState.COMPLETE else None
    return [best["value"] if trial.state == TrialState.COMPLETE else standing.reports[-1]["value"]]


def budget(seen: Seen) -> Findings:
    """No more trials, seconds and GPU hours than the study was given."""
    study, asked = seen.record.study, Budget(**seen.record.study.spec["budget"])
    if asked.trials is not None:
        yield "" if len(seen.trials) <= asked.trials else f"there are {len(seen.trials)} trials of {asked.trials}"
    if asked.seconds is not None and study.result:
        took = study.result["seconds"]
        yield "" if took <= asked.seconds else f"it took {took:.1f} s of {asked.seconds:g} s"
    if asked.gpu_hours is not None:
        hours = sum(row["spent"] * row["gpus"] for row in seen.rows_of("sessions")) / 3600
        yield "" if hours <= asked.gpu_hours else f"it took {hours:.3f} GPU hours of {asked.gpu_hours:g}"


def running(seen: Seen) -> Findings:
    """Nothing runs that nobody drives."""
    unfinished = seen.history.unfinished()
    yield from ("" for _ in range(len(seen.trials) + len(seen.history.reruns) - len(unfinished)))
    for key in unfinished:
        remedy = "`resume` goes on with it, and `studies stop` ends it"
        yield "" if seen.driven else f"{named(key)} is RUNNING, and no driver is alive: {remedy}"


def checkpoints(seen: Seen) -> Findings:
    """Every checkpoint that a decision may still need is on the disk, and is what was written."""
    history = seen.history
    kept = checkpoints_to_keep(history.trials, history.reruns, history.standing, history.direction)
    for path in sorted(filter(None, kept)):
        damage = damage_of(seen.folder / path)
        yield f"{path}: {damage}" if damage else ""


def damage_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, or an empty string. It is not loaded: bytes are compared alone."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        changed = [name for name, written in manifest.items() if sha256(checkpoint / name) != written]
    except OSError as error:
        name = Path(error.filename or checkpoint).name  # a disk that fails in the middle of a file does not name it
        return f"{name} cannot be read: {error.strerror}"
    except (ValueError, AttributeError):
        return f"{MANIFEST} is not what was written"
    return f"{changed[0]} is not what was written" if changed else ""


def reruns(seen: Seen) -> Findings:
    """The finals followed their order, each rerun's value is the best of its reports, and none over a limit counts."""
    rows = seen.rows_of("reruns")
    begun = [Rerun(row["trial"], row["repeat"]) for row in rows]
    before = int(seen.record.study.spec.get("reopened", 0))
    due = iter(each for each in in_order(_finalists(seen)) if each not in begun[:before])
    for at, row in enumerate(rows):
        if row["number"] != at or begun.index(begun[at]) != at:
            yield f"rerun {row['number']} has no place"
        elif at >= before and begun[at] != next(due, None):
            yield f"rerun {at} is of trial {row['trial']}, whose turn it was not"
        else:
            yield _rerun_end(row, seen)


def _rerun_end(row: Row, seen: Seen) -> str:
    best = seen.history.of("rerun", row["number"]).best(seen.history.direction)
    if row["state"] == "COMPLETE" and (best is None or row["value"] != best["value"] or not row["checkpoint"]):
        return f"rerun {row['number']} has the value {row['value']}, and its reports say {best and best['value']}"
    if row["state"] == "COMPLETE" and _over_limit("rerun", row["number"], seen):
        return f"rerun {row['number']} counts, and is over a limit"
    return f"rerun {row['number']} failed for no reason" if row["state"] == "FAIL" and not row["reason"] else ""


def _finalists(seen: Seen) -> list[int]:
    """The finalists; where another trial was rerun, those whose plugins are gone were passed over."""
    able, begun = seen.trials, {row["trial"] for row in seen.rows_of("reruns")}
    while True:
        found = finalists(able, seen.history.best_values(), seen.history.direction)
        passed_over = [each for each in found if each not in begun and begun.difference(found) and _gone(each, seen)]
        if not passed_over:
            return found
        able = [each for each in able if each.number not in passed_over]


def _gone(number: int, seen: Seen) -> bool:
    params = seen.trials[number].params
    return bool(seen.unavailable(seen.record.spaces.complete(number, params)))


def winner(seen: Seen) -> Findings:
    """The winner that was named is the one that the reruns name."""
    result, done = seen.record.study.result, [row for row in seen.rows_of("reruns") if row["state"] == "COMPLETE"]
    if result is None:
        return
    counted = result["facts"]["trials"], result["facts"]["reruns"]
    again = the_winner(_finalists(seen), done, seen.history.best_values(), seen.history.direction)
    if counted != (len(seen.trials), len(done)):
        yield f"the result is of {counted} trials and reruns, and there are {len(seen.trials)} and {len(done)}"
    elif again is None or (again.trial, again.rerun) != (result["winner"], result["rerun"]):
        yield f"trial {result['winner']} (rerun {result['rerun']}) was named, and the rows name {again}"
    else:
        yield ""

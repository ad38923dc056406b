"""A study's outcome for people and for programs: best trials, winner, evidence, bundle, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from statistics import fmean
from typing import Any

from deepmine_auto.storage.place import Place
from deepmine_auto.storage.store import Row
from deepmine_auto.study.budget import duration
from deepmine_auto.terminal.looking import SeenStudy, SeenTrial
from deepmine_auto.terminal.words import model_words, table

SHOWN = 5


def as_text(study: SeenStudy, width: int | None, refit: Row | None = None) -> str:
    """The best trials, the verdict, what a refit came to, and the next commands."""
    verdict = _finished(study) if study.result else _unfinished(study)
    again = [("" if at else "refit", line) for at, line in enumerate(of_refit(refit).splitlines())] if refit else []
    facts = _aligned([("study", study.name), *_aims(study), *verdict, *again])
    return "\n\n".join([trial_table(study.best(SHOWN), width), facts, _aligned(_next(study))])


def of_refit(found: Row) -> str:
    """What a refit came to."""
    opened = f"the locked test was opened {found['facts']['test_opened']} times in this study"
    return f"{found['sentence']}\n{opened}, so these scores flatter both\n{found['folder']}"


def to_json(study: SeenStudy, storage: Place) -> dict[str, Any]:
    """The same as plain values; `result` is null while the study is unfinished."""
    return {
        "study": study.name,
        "storage": str(storage),
        "task": study.row.spec["task"],
        "objective": study.row.spec["objective"],
        "direction": study.direction,
        "objectives": [each._asdict() for each in study.row.objectives],
        "limits": [str(each) for each in study.row.limits],
        "result": study.result,
        "as_good": study.as_good,
        "seconds": round(study.seconds, 1),
        "trials": len(study.trials),
        "best": [each.to_json() for each in study.best(SHOWN)],
    }


def trial_table(trials: Iterable[SeenTrial], width: int | None) -> str:
    """One line a trial, with the value of each objective; a failed one shows its reason instead of its model."""
    shown = list(trials)
    names = max((list(each.values) for each in shown), key=len, default=[])
    heads = names if len(names) > 1 else ["value"]
    rows = [
        (
            str(each.number),
            *(_value(each.values.get(name)) for name in names or ["value"]),
            "over limit" if each.over_limit else each.state,
            "-" if each.seconds is None else f"{each.seconds:.1f}",
            "-" if each.size is None else f"{each.size:.2f}M",
            each.reason.splitlines()[-1] if each.state == "failed" and each.reason else model_words(each.params),
        )
        for each in shown
    ]
    return table(("trial", *heads, "state", "seconds", "params", "model"), rows, width) if rows else "no trials yet"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _aims(study: SeenStudy) -> list[tuple[str, str]]:
    """What was asked for, where that is more than one number."""
    names = " and ".join(each.name for each in study.row.objectives)
    front = [("front", f"{_counted(len(study.best(SHOWN)), 'trial')}, beaten by no other in {names}")]
    over = sum(each.over_limit for each in study.trials)
    limits = " and ".join(map(str, study.row.limits))
    kept = [("limits", f"{limits}: {_counted(over, 'trial')} over them")] if limits else []
    return [*(front if study.several else []), *kept]


def _finished(study: SeenStudy) -> list[tuple[str, str]]:
    found = study.result
    assert found is not None
    facts, number = found["facts"], found["winner"]
    size = f"{facts['params_million']:.2f}M parameters, " if "params_million" in facts else ""
    trials = f"{_counted(facts['trials'], 'trial')}, {100 * facts['pruned_share']:.0f} % pruned"
    return [
        ("winner", f"trial {number}: {model_words(study.trials[number].params)}"),
        *_finals(study, found["rerun_values"]),
        ("test", found["sentence"]),
        ("took", f"{duration(facts['search_seconds'])}, {trials}, {_counted(facts['reruns'], 'rerun')}"),
        ("cost", f"{size}{facts['ms_per_text']:.1f} ms a text"),
        ("bundle", found["bundle"]),
    ]


def _finals(study: SeenStudy, values: Sequence[float]) -> list[tuple[str, str]]:
    """What the winner's reruns came to, and whether they tell it from the other finalists."""
    if not values:
        return []
    told = [f"mean {fmean(values):.4f} over {_counted(len(values), f'other {study.row.varied}')}"]
    told += [f"ahead of {_numbered(study.behind)}"] if study.behind else []
    told += [f"{_numbered(study.as_good)} may be as good"] if study.as_good else []
    return [("finals", "; ".join(told if told[1:] else [*told, "no other trial was trained again"]))]


def _numbered(trials: Sequence[int]) -> str:
    return f"trial{'s' * (len(trials) > 1)} {' and '.join(map(str, trials))}"


def _unfinished(study: SeenStudy) -> list[tuple[str, str]]:
    running = sum(each.state == "running" for each in study.trials)
    counted = f"{_counted(len(study.trials), 'trial')}, {running} of them unfinished"
    return [("winner", "not yet: the finals have not been held"), ("so far", f"{duration(study.seconds)}, {counted}")]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _next(study: SeenStudy) -> list[tuple[str, str]]:
    typed = study.row.typed
    trials = f"deepmine-auto trials {typed}"
    if study.result is None:
        commands = [f"deepmine-auto resume {typed}", trials]
    else:
        bundle = shlex.quote(study.result["bundle"])
        commands = [f'deepmine-auto predict {bundle} "your text"', f"deepmine-auto best {typed}", trials]
    if find_spec("optuna_dashboard"):
        commands.append(f"deepmine-auto dashboard {typed}")
    return [("next" if at == 0 else "", command) for at, command in enumerate(commands)]


def _aligned(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<7} {text}" for name, text in pairs)

"""A dry run for people and for programs: what would be searched, and what that is expected to take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from textwrap import wrap
from typing import Any

from deepmine_auto.estimating import DryRun, Estimates
from deepmine_auto.objectives import Limit, Objective
from deepmine_auto.space import Choice, Int, Param, Range, Space
from deepmine_auto.study.budget import REFIT_SHARE, duration
from deepmine_auto.study.forecasting import Interval
from deepmine_auto.terminal.words import model_words, plain, table

CHOSEN = {"attention": "attention", "model": "backbone", "optimizer": "optimizer", "schedule": "schedule"}
"""Where one plugin of a kind is chosen: the first part of a param's name, and what is chosen."""

USED = {"attention": "modifier", "technique": "technique"}
"""Where a plugin is used or not."""

INDENT = 11

COPIED = ("task", "fingerprint", "described", "parts", "seed", "sampler", "pruner", "budget", "workers", "space_name")


def to_json(found: DryRun) -> dict[str, Any]:
    """Return all of it as plain values."""
    planned, spec = found.plan, found.plan.spec
    return {
        "study": planned.name,
        "storage": str(planned.storage),
        "folder": str(planned.folder),
        **{name: spec[name] for name in COPIED},
        "objectives": [each._asdict() for each in _objectives(found)],
        "limits": [str(Limit(*each)) for each in spec["limits"]],
        "plugins": plugins(found.space),
        "space": spec["space"],
        "notes": list(planned.notes),
        "estimates": {name: _plain(value) for name, value in vars(found.estimates).items()},
    }


def _plain(value: Any) -> Any:
    return value._asdict() if hasattr(value, "_asdict") else value


def _objectives(found: DryRun) -> list[Objective]:
    spec = found.plan.spec
    return [Objective(*each) for each in zip(spec["objectives"], spec["directions"], strict=True)]


def plugins(space: Space) -> dict[str, list[str]]:
    """The plugins that a space chooses from, by kind."""
    ranges = {each.name: each.range for each in space.params}
    options = {name: _options(each) for name, each in ranges.items()} | {
        name: [each] for name, each in space.fixed.items()
    }
    found = {kind: options.get(f"{first}/kind", []) for first, kind in CHOSEN.items()}
    for first, kind in USED.items():
        names = (name.split("/") for name, each in options.items() if name.endswith("/use") and True in each)
        found[kind] = [each[1] for each in names if each[0] == first]
    return found


def _options(each: Range) -> list[Any]:
    return list(each.options) if isinstance(each, Choice) else []


# -- as text ---------------------------------------------------------------------------------------------------------


def as_text(found: DryRun, width: int | None) -> str:
    """The study, what would be searched, and what it is expected to take."""
    chosen = [(kind, ", ".join(names)) for kind, names in plugins(found.space).items() if names]
    blocks = [_study(found), chosen, _estimates(found.estimates, found.plan.spec)]
    first, second, last = (_aligned(each, width) for each in blocks)
    return "\n\n".join([first, second, _params(found.space, width), *_recipes(found.space, width), last])


def _study(found: DryRun) -> list[tuple[str, str]]:
    planned, spec = found.plan, found.plan.spec
    parts = " / ".join(f"{spec['parts'][part]:,}" for part in ("train", "validation", "test"))
    limits = ", ".join(str(Limit(*each)) for each in spec["limits"])
    return [
        ("study", f"{planned.name} in {planned.storage}; this is a dry run, and nothing of it is written"),
        ("folder", str(planned.folder)),
        ("data", f"{parts} rows of the task {spec['task']}"),
        *(("note", each) for each in planned.notes),
        ("objective", ", ".join(f"{each.name}, {each.direction}" for each in _objectives(found))),
        *([("limits", limits)] if limits else []),
        ("budget", str(planned.budget)),
        (
            "search",
            f"space {spec['space_name']}  sampler {spec['sampler']}  pruner {spec['pruner']}  seed {spec['seed']}",
        ),
    ]


def _params(space: Space, width: int | None) -> str:
    """Every searched param that is not a plugin's being there, and what is fixed."""
    rows = [(each.name, _range(each.range), _condition(each)) for each in space.params if not _names_plugin(each.name)]
    rows += [(name, str(value), "") for name, value in space.fixed.items() if not _names_plugin(name)]
    return table(("param", "range", "only with"), rows, width)


def _names_plugin(name: str) -> bool:
    """Whether a param chooses a plugin, or says whether one is used."""
    first, *_, last = name.split("/")
    return (last == "kind" and first in CHOSEN) or (last == "use" and first in USED)


def _range(each: Range) -> str:
    if isinstance(each, Choice):
        return ", ".join(map(str, each.options))
    step = "" if each.step in (None, 1) else f", in steps of {each.step:g}"
    ends = f"{each.low} to {each.high}" if isinstance(each, Int) else f"{each.low:g} to {each.high:g}"
    return f"{ends}{', log' if each.log else ''}{step}"


def _condition(param: Param) -> str:
    """The plugin that must be there, or one of several."""
    if not param.when:
        return ""
    name, values = list(param.when.items())[-1]
    return name.split("/")[-2] if name.endswith("/use") else ", ".join(map(str, values))


def _recipes(space: Space, width: int | None) -> list[str]:
    words = [model_words({**space.fixed, **each}) for each in space.recipes]
    return [_aligned([("first" if at == 0 else "", each) for at, each in enumerate(words)], width)] if words else []


def _aligned(pairs: Iterable[tuple[str, str]], width: int | None) -> str:
    """Names and texts in two columns; a text that is longer than `width` allows goes on below its beginning."""
    lines = []
    for name, text in pairs:
        parts = wrap(plain(text), width - INDENT, break_long_words=False, break_on_hyphens=False) if width else [text]
        lines += [f"{name if at == 0 else '':<{INDENT}}{plain(each)}" for at, each in enumerate(parts)]
    return "\n".join(lines)


# -- estimates -------------------------------------------------------------------------------------------------------


def _estimates(found: Estimates, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    asked = spec["workers"]
    tried = f"{found.measured} of {found.drawn} models drawn at random were trained for a moment"
    left = f"the pruner leaves {100 * found.worked:.0f} % of that on average"
    before = ", and before that the start of Ray" if asked["executor"] == "ray" else ""
    return [
        ("expected", f"8 of 10 cases lie in these ranges, if nothing else runs here: {tried}"),
        ("workers", _workers(found, asked["address"])),
        ("trial", f"{_seconds(found.trial)} to its end; {left}"),
        ("trials", f"{_count(found.trials)} in {_seconds(found.search)}"),
        ("finals", f"{_count(found.reruns)} reruns in {_seconds(found.finals)}"),
        ("closing", f"{duration(found.closing)} for the export, its checks and the baseline"),
        *([("refit", _refit(found))] if spec["refit"] else []),
        ("whole", f"{_seconds(found.whole)}{before}"),
        ("memory", f"{_mb(found.peak_mb)} a model in training, the largest {_size(found.largest_mb)}"),
        ("process", f"{_size(found.process_mb)} a worker with its model"),
        ("disk", f"{_mb(found.disk_mb)} in the study's folder; a checkpoint has {_mb(found.checkpoint_mb)}"),
        *(("refused", each) for each in _refused(found)),
    ]


def _refit(found: Estimates) -> str:
    if found.refit:
        return f"{duration(found.refit)} for the winner trained once more, validation rows too"
    return f"nothing is kept for it: it would take more than {100 * REFIT_SHARE:.0f} % of the time"


def _workers(found: Estimates, address: str | None) -> str:
    where = f"if the cluster at {address} is like this machine" if address else "on this machine"
    gpus = found.crew.gpus_per_trial
    alone = f", each on {gpus:g} GPUs; times and memory are those of a trial on one" if gpus > 1 else ""
    return f"{found.crew.slots} {where} ({found.device}){alone}"


def _refused(found: Estimates) -> list[str]:
    return [f"{count} of {found.drawn} models cannot be trained: {why}" for why, count in found.refused.items()]


def _of(interval: Interval, words: Callable[[float], str]) -> str:
    low, high = words(interval.low), words(interval.high)
    return low if low == high else f"{low} to {high}"


def _seconds(interval: Interval) -> str:
    return _of(interval, lambda each: duration(each) if each >= 10 else f"{each:.1f}s")


def _count(interval: Interval) -> str:
    return _of(interval, "{:.0f}".format)


def _mb(interval: Interval) -> str:
    return _of(interval, _size)


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.3g} MB"

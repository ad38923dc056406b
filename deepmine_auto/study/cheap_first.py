"""The first trials of a search, for which no sampler has reasons yet, cheapest first: what they teach is known sooner.
Their params stay those that the seed draws; all that changes is which of them comes when.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import StudyDirection

from deepmine_auto.contracts import Sampler
from deepmine_auto.errors import BadInput, first_line
from deepmine_auto.host import Host
from deepmine_auto.model.assemble import Params, plugins_of
from deepmine_auto.space import plugin_from
from deepmine_auto.storage.store import Row
from deepmine_auto.study.mirror import Mirror
from deepmine_auto.study.spaces import Spaces


def turns(spec: Mapping[str, Any], sampler: Sampler, evidence: Sequence[Row], host: Host) -> list[int]:
    """Which draw each of the first trials is given, by number: recipes keep their turns. Empty where a sampler looks at
    trials from the beginning, its own or those of other studies. Raises BadInput where a plugin does not say its work.
    """
    most = spec["budget"]["trials"]
    count = 0 if evidence else min(sampler.startup(), most or math.inf)
    spaces, drawn = Spaces(spec, ()), _drawn(spec, sampler, int(count))
    free = [number for number in range(len(drawn)) if spaces.recipe(number) is None]
    cheapest_first = sorted(free, key=lambda number: work_of(spec["task"], drawn[number], host))
    given = dict(zip(free, cheapest_first, strict=True))
    return [given.get(number, number) for number in range(len(drawn))]


def _drawn(spec: Mapping[str, Any], sampler: Sampler, count: int) -> list[Params]:
    """The first params of a study, as its mirror will draw them."""
    spaces, directions = Spaces(spec, ()), [StudyDirection[each.upper()] for each in spec["directions"]]
    mirror = Mirror(spaces, sampler, directions, int(spec["seed"]))
    return [spaces.complete(number, mirror.ask(number, lambda *_: None).params) for number in range(count)]


def work_of(task: str, params: Params, host: Host) -> float:
    """How long a training with these params takes beside others of its study, about. Raises BadInput where a plugin
    does not say it."""
    named = [each for each in plugins_of(task, params) if each[0] != "task"]
    return float(params["training/epochs"]) * math.prod(_work(kind, name, params, host) for kind, name in named)


def _work(kind: str, name: str, params: Params, host: Host) -> float:
    prefixes = ("model", f"model/{name}") if kind == "backbone" else (f"{kind}/{name}",)
    plugin = plugin_from(host.get(kind, name), params, *prefixes)
    try:
        work = float(plugin.work())
        why = "" if 0.0 < work < math.inf else f"it says {work}"
    except BadInput:
        raise
    except Exception as error:  # a plugin may raise anything
        why = f"{type(error).__name__}: {first_line(error)}"
    if why:
        what = f"The {kind} '{name}' does not say how much work it makes: {why}."
        raise BadInput(what, "Let its method work() return a number above 0, or choose another plugin.")
    return work

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
from deepmine_auto.space import Value, plugin_from
from deepmine_auto.storage.store import Row
from deepmine_auto.study.mirror import Mirror
from deepmine_auto.study.spaces import Spaces
from deepmine_auto.training.recipe import Recipe

MOST = 100
"""So many trials are put in order at most."""


def first_draws(
    spec: Mapping[str, Any], sampler: Sampler, evidence: Sequence[Row], host: Host
) -> list[dict[str, Value]]:
    """The params that a sampler draws by chance after the recipes, the cheapest first. Empty where it looks at trials
    from the beginning, its own or those of other studies. Raises BadInput where a plugin does not say its work, or a
    sampler how many it draws so."""
    spaces = Spaces(spec, ())
    recipes = len(spaces.now.recipes)
    count = min(_startup(sampler) - len(evidence), spec["budget"]["trials"] or MOST, MOST)
    directions = [StudyDirection[each.upper()] for each in spec["directions"]]
    mirror = Mirror(spaces, sampler, directions, int(spec["seed"]))
    drawn = [dict(mirror.ask(number, lambda *_: None).params) for number in range(count)][recipes:]
    return sorted(drawn, key=lambda each: work_of(spec, spaces.now.complete(each), host))


def _startup(sampler: Sampler) -> int:
    told: Any = sampler.startup()
    if not isinstance(told, int) or told < 0:
        what = f"The sampler '{sampler.name}' says that it draws {told!r} trials by chance."
        raise BadInput(what, "Let its method startup() return a whole number, or choose another sampler.")
    return told


def work_of(spec: Mapping[str, Any], params: Params, host: Host) -> float:
    """How long a training with these params takes beside others of its study, as far as plugins say so; a variant that
    stands in a few layers does not count. Raises BadInput where a plugin does not say it."""
    left_out = (("task", spec["task"]), ("attention", params.get("placement/hybrid/kind")))
    named = [each for each in plugins_of(spec["task"], params) if each not in left_out]
    read = plugin_from(Recipe, params, "training").reads(spec["parts"]["train"])
    return read * math.prod(_work(kind, name, params, host) for kind, name in named)


def _work(kind: str, name: str, params: Params, host: Host) -> float:
    prefixes = ("model", f"model/{name}") if kind == "backbone" else (f"{kind}/{name}",)
    try:
        plugin = plugin_from(host.get(kind, name), params, *prefixes)
    except Exception:  # its trial will fail, and say why
        return 1.0
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

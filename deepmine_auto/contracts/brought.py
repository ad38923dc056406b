"""Plugins as the host finds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from deepmine_auto.contracts.attention import Attention
from deepmine_auto.contracts.backbone import Backbone, Tuning
from deepmine_auto.contracts.plugin import Plugin
from deepmine_auto.contracts.search import Pruner, Sampler
from deepmine_auto.contracts.task import Task
from deepmine_auto.contracts.training import Optimizer, Schedule, Technique

KINDS: dict[str, type[Plugin]] = {
    each.kind: each for each in (Attention, Task, Backbone, Tuning, Optimizer, Schedule, Technique, Sampler, Pruner)
}
"""Every kind of plugin that `plugins list` knows; commands are click commands and have no class of ours."""


@dataclass(frozen=True)
class Brought:
    """A plugin class or command together with who brought it."""

    kind: str
    name: str
    thing: Any
    distribution: str
    version: str
    path: str
    source: str = ""
    hash: str = field(default="", compare=False)

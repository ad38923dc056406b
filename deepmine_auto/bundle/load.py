"""Load a bundle: checked against its manifest, built by the plugins it names, and never by code of its own.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepmine_auto.bundle.compiled import Compiled, compiled
from deepmine_auto.bundle.manifest import checked
from deepmine_auto.bundle.plain import read_config
from deepmine_auto.bundle.probe import probe, same, separator_for
from deepmine_auto.bundle.weights import WEIGHTS, load_weights, shapes_of
from deepmine_auto.contracts import KINDS, Prepared, Task
from deepmine_auto.errors import BadInput, DeepmineError
from deepmine_auto.host import Host, the_host
from deepmine_auto.model.assemble import Model, build_model, plugins_of, task_of
from deepmine_auto.model.meta import lacks_numbers, on_meta
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import device_here
from deepmine_auto.training.outputs import outputs_of

MOST_BYTES_BESIDE = 400_000_000
"""So much may a model hold that no file brings, such as tables of positions; the masks of GPT-Neo take 134 MB."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """An exported model, ready to predict."""

    folder: Path
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    task: Task
    prepared: Prepared
    model: Model
    compiled: Compiled | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the classes; empty where the task has none."""
        return tuple(self.config.get("id2label", {}).values())

    def outputs(self, inputs: Sequence[Any]) -> np.ndarray:
        """The head's outputs (N, ...) for raw inputs, at least one."""
        columns = Columns.of(self.prepared.encode(inputs))
        return outputs_of(self.compiled or self.model, None, columns, next(self.model.parameters()).device)

    def predict(self, inputs: Sequence[Any] | str) -> list[dict[str, Any]]:
        """Answer raw inputs, one dict each, such as {"label": ..., "probability": ..., "probabilities": {...}}.

        Raises BadInput for what the task cannot read.
        """
        listed = [inputs] if isinstance(inputs, str) else list(inputs)
        return self.task.answers(self.outputs(listed), self.prepared) if listed else []


def load(folder: str | Path, *, compile: bool = False) -> Bundle:
    """Load the bundle in `folder`, onto the GPU if there is one. Nothing in it is unpickled or run.

    With `compile`, torch compiles the model, once for inputs of every length.

    Raises BadInput if a file was changed, if a plugin that it needs is not installed, if one that is installed
    computes something else than the version that the bundle was made with, or if the model cannot be compiled here.
    """
    place = Path(folder)
    manifest, config, host = checked(place), read_config(place), the_host()
    try:
        _need_plugins(config["deepmine"], manifest, host)
        task, prepared, model = _built(place, config["deepmine"], host)
        asked = prepared.vocabulary, separator_for(config["deepmine"]["params"], prepared, host)
        found = probe(model, *asked)
    except DeepmineError:
        raise
    except Exception as error:  # whatever a plugin raises at params and weights that do not fit
        what = f"The model in {place} cannot be built here ({type(error).__name__}: {error})."
        raise BadInput(what, _other_versions(manifest, host)) from error
    if not same(found, manifest["probe"]):
        what = f"What is installed here computes something else than what the bundle {place} was made with."
        raise BadInput(what, _other_versions(manifest, host))
    model.to(device_here())
    program = compiled(model, place, *asked) if compile else None
    return Bundle(place, manifest, config, task, prepared, model, program)


def _built(place: Path, ours: Mapping[str, Any], host: Host) -> tuple[Task, Prepared, Model]:
    task = task_of(ours["task"], ours["params"], host)
    prepared = task.load(place)
    _refuse_too_large(place, partial(build_model, ours["params"], task, prepared, host))
    with torch.random.fork_rng(
        devices=[]
    ):  # drawing weights that are replaced at once shall not move the caller's seed
        model = build_model(ours["params"], task, prepared, host)
    model.load_state_dict(load_weights(place / WEIGHTS))
    return task, prepared, model.eval()


def _refuse_too_large(place: Path, build: Callable[[], Model]) -> None:
    """Refuse a model that needs other memory than its file of weights says, before it is allocated."""
    try:
        with on_meta():
            model = build()
    except RuntimeError as error:
        if not lacks_numbers(error):
            raise
        return  # a plugin that computes while it is built: the checks that follow tell what does not fit
    shapes, state = shapes_of(place / WEIGHTS), model.state_dict()
    beside = sum(each.nbytes for name, each in model.named_buffers() if name not in state)
    if {name: tuple(each.shape) for name, each in state.items()} != shapes or beside > MOST_BYTES_BESIDE:
        what = f"The model that {place} describes is not of the size of its weights."
        raise BadInput(what, "Export the bundle again.")


# -- plugins of other versions -----------------------------------------------------------------------------------------


def _need_plugins(ours: Mapping[str, Any], manifest: Mapping[str, Any], host: Host) -> None:
    made_with = {(each["kind"], each["name"]): each for each in manifest["plugins"]}
    for kind, name in plugins_of(ours["task"], ours["params"]):
        if name not in host.offered(kind):
            by = made_with.get((kind, name))
            brings = f"{by['distribution']}=={by['version']}" if by else "what brings it"
            what = f"This bundle needs the {kind} '{name}', which cannot be used here."
            raise BadInput(what, f"Install {brings}, or see why: `deepmine-auto plugins list`.")


def _other_versions(manifest: Mapping[str, Any], host: Host) -> str:
    """The versions that the bundle was made with, and which plugins are others here."""
    made = ", ".join(f"{name} {manifest['versions'].get(name)}" for name in ("deepmine-auto", "torch"))
    changed = [_changed(each, host) for each in manifest["plugins"]]
    others = ", ".join(filter(None, changed))
    return f"It was made with {made}; install these, or export it again.{f' Other here: {others}.' if others else ''}"


def _changed(made: Mapping[str, str], host: Host) -> str:
    here = host.offered(made["kind"]).get(made["name"]) if made["kind"] in KINDS else None
    if here is None or here.hash == made["hash"]:
        return ""
    return f"{made['kind']} '{made['name']}' of {made['distribution']} {made['version']} (here {here.version})"

"""Load a bundle: checked against its manifest, built by the plugins it names, and never by code of its own.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from deepmine_auto.bundle.manifest import checked, read_config
from deepmine_auto.contracts import Prepared, Task
from deepmine_auto.errors import BadInput
from deepmine_auto.host import Host, the_host
from deepmine_auto.model.assemble import Model, build_model, plugins_of, task_of
from deepmine_auto.training.batching import Columns
from deepmine_auto.training.loop import device_here, outputs_of

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Bundle:
    """An exported model, ready to predict."""

    folder: Path
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    task: Task
    prepared: Prepared
    model: Model

    def outputs(self, inputs: Sequence[Any]) -> np.ndarray:
        """The head's outputs (N, ...) for raw inputs."""
        columns = Columns.of(self.prepared.encode(inputs), np.zeros(len(inputs), np.int64))
        return outputs_of(self.model, None, columns, next(self.model.parameters()).device)

    def predict(self, inputs: Sequence[Any] | str) -> list[dict[str, Any]]:
        """Answer raw inputs, one dict each, such as {"label": ..., "probability": ..., "probabilities": {...}}.

        Raises BadInput for what the task cannot read.
        """
        listed = [inputs] if isinstance(inputs, str) else list(inputs)
        return self.task.answers(self.outputs(listed), self.prepared) if listed else []


def load(folder: str | Path) -> Bundle:
    """Load the bundle in `folder`. Raises BadInput if a file was changed, or a plugin it needs is not installed."""
    place = Path(folder)
    manifest = checked(place)
    config = read_config(place)
    host = the_host()
    _need_plugins(config["deepmine"], manifest, host)
    params = config["deepmine"]["params"]
    task = task_of(config["deepmine"]["task"], params, host)
    prepared = task.load(place)
    model = build_model(params, task, prepared, host)
    model.load_state_dict(load_file(place / WEIGHTS))
    return Bundle(place, manifest, config, task, prepared, model.eval().to(device_here()))


def _need_plugins(config: Mapping[str, Any], manifest: Mapping[str, Any], host: Host) -> None:
    brought = {(each["kind"], each["name"]): each for each in manifest.get("plugins", ())}
    for kind, name in plugins_of(config["task"], config["params"]):
        if kind in ("optimizer", "technique") or name in host.offered(kind):
            continue
        by = brought.get((kind, name), {})
        named = f" of {by['distribution']} {by['version']}" if by else ""
        raise BadInput(f"This bundle needs the {kind} '{name}'{named}, which is not installed.", "Install it with pip.")


def build_empty(folder: Path) -> Model:
    """Build a bundle's model without its weights; used where another library loads them."""
    config = read_config(folder)["deepmine"]
    task = task_of(config["task"], config["params"], the_host())
    with torch.random.fork_rng():
        return build_model(config["params"], task, task.load(folder), the_host())

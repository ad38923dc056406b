"""A pretrained model as a trial begins with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_texts import rows

from deepmine_auto import Prepared
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import Model, build_model
from deepmine_auto.pretrained.files import original_of
from deepmine_plugins.backbones.pretrained import Pretrained
from deepmine_plugins.tasks.text_classification import OwnTexts


def begun(folder: Path, seed: int = 0, **params: Any) -> tuple[Prepared, Model]:
    """What cuts texts into the words of the model in a folder, and that model over them, without dropout."""
    told = {
        "attention/kind": "multi_head", "model/kind": "pretrained", "model/pretrained/origin": str(folder),
        "model/pretrained/dropout": 0.0, **params,
    }  # fmt: skip
    task = OwnTexts()
    prepared = task.prepare_for(rows(), original_of(str(folder)))
    torch.manual_seed(seed)
    model = build_model(told, task, prepared, the_host())
    Pretrained(origin=str(folder)).begin(model.backbone)
    return prepared, model

"""Parameter-efficient tuning through peft, which an extra installs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn

from deepmine_auto.errors import BadInput


def inject(config: str, model: nn.Module, **options: Any) -> None:
    """Freeze a model, and put into it what a config of peft describes, such as `LoraConfig`. Raises BadInput where peft
    is not installed."""
    if find_spec("peft") is None:
        raise BadInput("This tuning needs peft.", "Install it: pip install 'deepmine-auto[pretrained]'.")
    import peft

    peft.inject_adapter_in_model(getattr(peft, config)(**options), model)

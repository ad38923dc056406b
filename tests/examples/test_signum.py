"""The optimizer of the third party's package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn


def test_it_makes_one_momentum_a_weight_and_no_more_from_step_to_step(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(checkout / "examples" / "third_party"))
    from deepmine_brackets.signum import Signum

    weight, made, stock = nn.Parameter(torch.ones(3)), [], torch.zeros_like
    optimizer = Signum().build([weight])
    monkeypatch.setattr(torch, "zeros_like", lambda like: made.append(like) or stock(like))
    for _ in range(3):
        weight.grad = torch.ones(3)
        optimizer.step()
    assert len(made) == 1

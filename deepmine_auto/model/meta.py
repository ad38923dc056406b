"""Models without memory: built on torch's meta device, to look at their shapes and at what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

DRAWS = ("normal_", "uniform_")
"""What fills a tensor with first weights, beside the functions of `torch.nn.init`."""


@contextmanager
def on_meta() -> Iterator[None]:
    """Make what is made inside without memory. What computes with numbers while it is built raises there, see
    `lacks_numbers`."""
    with torch.device("meta"), Undrawn():
        yield


def lacks_numbers(error: BaseException) -> bool:
    """Whether an error says that something wanted to see numbers, and there are none on the meta device."""
    return isinstance(error, RuntimeError) and "meta" in str(error)  # NotImplementedError is a RuntimeError


class Undrawn(TorchFunctionMode):
    """Draws no first weights: on the meta device there are none, and torch would load its compiler to say so."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run `func`, but leave a tensor as it is that is to be filled with first weights."""
        told = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or getattr(func, "__name__", "") in DRAWS:
            return args[0] if args else told["tensor"]
        return func(*args, **told)

"""What a model says to rows, as many at a time as fit.

Shapes: B batch, L length, N rows, C outputs a token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from deepmine_auto.contracts import Mixed
from deepmine_auto.training.batching import Columns, evaluation_order
from deepmine_auto.training.ends import out_of_memory

EVALUATION_ROWS = 256
EVALUATION_TOKENS = {"cpu": 4_096, "cuda": 65_536}
"""A core reads a batch fastest that its cache holds; a GPU wants enough to do."""


def outputs_of(
    model: nn.Module,
    weights: Mapping[str, Tensor] | None,
    columns: Columns,
    device: torch.device,
    batch_rows: int = EVALUATION_ROWS,
) -> np.ndarray:
    """The model's outputs (N, ...) for all rows, in their order, with other weights put in its place if given. Where
    there are outputs for each token, those past a row's end are zero. What does not fit into memory is tried again with
    half as many rows at a time, down to one."""
    [outputs] = deque(outputs_in_turn(model, weights, columns, device, batch_rows), maxlen=1)
    return outputs


def outputs_in_turn(
    model: nn.Module,
    weights: Mapping[str, Tensor] | None,
    columns: Columns,
    device: torch.device,
    batch_rows: int = EVALUATION_ROWS,
) -> Iterator[np.ndarray]:
    """The same, with a turn for whoever waits after each batch: what comes last is whole."""
    while True:
        try:
            yield from _outputs(model, weights, columns, device, batch_rows)
            return
        except (MemoryError, RuntimeError) as error:
            if batch_rows == 1 or not out_of_memory(error):
                raise
        batch_rows //= 2  # out here the error is gone, and with it the memory that its frames held


def _outputs(
    model: nn.Module, weights: Mapping[str, Tensor] | None, columns: Columns, device: torch.device, batch_rows: int
) -> Iterator[np.ndarray]:
    outputs: np.ndarray | None = None
    tokens = EVALUATION_TOKENS.get(device.type, EVALUATION_TOKENS["cuda"]) * batch_rows // EVALUATION_ROWS
    model.eval()
    for indices in evaluation_order(columns.lengths, batch_rows, tokens):
        found = _of_rows(model, weights, columns, indices, device)
        if found.ndim == 3:
            found = _to_length(found, int(columns.lengths.max()))
        outputs = np.empty((len(columns), *found.shape[1:]), found.dtype) if outputs is None else outputs
        outputs[indices] = found
        yield outputs


@torch.inference_mode()
def _of_rows(
    model: nn.Module, weights: Mapping[str, Tensor] | None, columns: Columns, indices: np.ndarray, device: torch.device
) -> np.ndarray:
    batch = columns.batch(indices, device)  # here: what is compiled asks whether its input belongs to inference
    args = (batch.tokens_BL, batch.keep_BL)
    mixed = model(*args) if weights is None else _with_weights(model, weights, args)
    found: np.ndarray = mixed.out.float().cpu().numpy()
    return found * batch.keep_BL.cpu().numpy()[..., None] if found.ndim == 3 else found


def _with_weights(model: nn.Module, weights: Mapping[str, Tensor], args: tuple[Tensor, Tensor]) -> Mixed:
    """What a model says with other weights. A tied one is given under both its names: both say the same, but need not
    be one tensor. A module that stands in two places is given its own once: torch would not put them back."""
    paths = {path for path, _ in model.named_modules()}
    given = {name: each for name, each in weights.items() if name.rpartition(".")[0] in paths}
    mixed: Mixed = functional_call(model, given, args, tie_weights=False)
    return mixed


def _to_length(outputs_BLC: np.ndarray, length: int) -> np.ndarray:
    return np.pad(outputs_BLC, ((0, 0), (0, length - outputs_BLC.shape[1]), (0, 0)))

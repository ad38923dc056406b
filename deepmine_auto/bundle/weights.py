"""Weights as safetensors, whose header is checked before anything is mapped or allocated.

The library reads headers of up to 100 MB, which may name millions of tensors; ours are small, and so is what we accept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepmine_auto.errors import BadInput

WEIGHTS = "model.safetensors"
MOST_HEADER_BYTES = 8_000_000
MOST_TENSORS = 20_000
NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


def save_weights(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights, as readable by others as any new file."""
    # a storage of its own each: the library refuses tensors that share one
    save_file({name: each.detach().cpu().contiguous().clone() for name, each in weights.items()}, file)


def load_weights(file: Path) -> dict[str, Tensor]:
    """Read weights. Raises BadInput if the header is not that of a plain file of tensors."""
    with _told(file):
        check_header(file)
        weights: dict[str, Tensor] = load_file(file)
    return weights


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise BadInput(f"{file} holds no weights that can be read: {error}.", "Export the bundle again.") from error


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its header alone. Raises BadInput as `load_weights` does."""
    with _told(file):
        return {name: tuple(each["shape"]) for name, each in check_header(file).items()}


def check_header(file: Path) -> dict[str, Any]:
    """Check that tensors with allowed names fill the file without gap or overlap, and return what the header says of
    each. Raises ValueError and its like."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"its header has {length:,} bytes")
        header = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    if len(header) > MOST_TENSORS:
        raise ValueError(f"it names {len(header):,} tensors")
    end = 0
    for begin, stop, name in sorted((*each["data_offsets"], name) for name, each in header.items()):
        if begin != end or stop - begin != _bytes_of(header[name]) or not NAME.fullmatch(name):
            raise ValueError(f"its tensor {name[:64]!r} is not where its shape says")
        end = stop
    if 8 + length + end != file.stat().st_size:
        raise ValueError("its tensors do not fill it")
    return dict(header)


def _bytes_of(entry: Mapping[str, Any]) -> int:
    shape = entry["shape"]
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"it has a tensor of shape {shape}")
    size: int = math.prod(shape) * DTYPE_BYTES[entry["dtype"]]
    return size

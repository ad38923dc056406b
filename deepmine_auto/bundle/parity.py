"""The proof of an export: a clean process reloads the bundle, and its outputs are those of the model that was trained.

Run as `python -m deepmine_auto.bundle.parity FOLDER ASKED THREADS`, where ASKED holds `inputs.json` and
`outputs.safetensors`.

Shapes: N inputs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from deepmine_auto.errors import DeepmineError

INPUTS = 64
TOLERANCE = 1e-6
ROUNDING = 1e-3
"""Summed in another order, outputs differ by some 1e-6, of a deep model by 1e-5; another formula is off by far more."""

UNNAMED = "It was not given its name."


class NotEqual(DeepmineError):
    """A reloaded bundle does not do what the trained model does."""


def verify(folder: Path, inputs: Sequence[Any], outputs: np.ndarray) -> float:
    """Compare with outputs of the CPU in a clean process, and return the largest difference. Raises NotEqual if it is
    above 1e-6."""
    import torch

    with tempfile.TemporaryDirectory() as asked:
        (Path(asked) / "inputs.json").write_text(json.dumps(list(inputs)), encoding="utf-8")
        save_file({"outputs": np.ascontiguousarray(outputs)}, Path(asked) / "outputs.safetensors")
        # -P: a file torch.py in the folder where the user works must not be taken for the library
        command = [sys.executable, "-P", "-m", "deepmine_auto.bundle.parity", str(folder), asked]
        command.append(str(torch.get_num_threads()))  # other threads would sum in another order
        on_cpu = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
        }  # a GPU may have no room beside the training, or take one process alone
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=on_cpu
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotEqual(f"The exported model cannot be reloaded: {last}", UNNAMED)
    found = float(done.stdout.splitlines()[-1])
    if not found <= TOLERANCE:
        raise NotEqual(f"The exported model differs by {found:.1e} after reloading.", UNNAMED)
    return found


def refuse_beyond_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    """Raise NotEqual where what is written to a bundle does not say what was trained and judged."""
    off = difference(found, expected)
    if not off <= ROUNDING:
        raise NotEqual(f"The model differs by {off:.1e} once what it learned is merged into it.", UNNAMED)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference between outputs (N, ...): absolute up to 1, relative beyond; infinite between shapes."""
    if found.shape != expected.shape:
        return float("inf")
    return float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max())


def main(folder: str, asked: str, threads: str) -> None:
    """Print the largest difference between the bundle's outputs and the expected ones."""
    import torch

    from deepmine_auto.bundle.load import load

    torch.set_num_threads(int(threads))
    inputs = json.loads((Path(asked) / "inputs.json").read_text(encoding="utf-8"))
    expected = load_file(Path(asked) / "outputs.safetensors")["outputs"]
    bundle = load(folder)
    bundle.model.cpu()
    print(difference(bundle.outputs(inputs), expected))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Load what was exported, a bundle or an ensemble of bundles: whoever predicts need not know which."""

from __future__ import annotations

import os
from pathlib import Path

from deepmine_auto.bundle import load as bundle
from deepmine_auto.bundle.load import Bundle
from deepmine_auto.ensemble.load import ENSEMBLE, Ensemble, load_ensemble


def load(folder: str | Path, *, compile: bool = False) -> Bundle | Ensemble:
    """Load the bundle or the ensemble in `folder`, onto the GPU if there is one. Nothing in it is unpickled or run.

    With `compile`, torch compiles the model, once for inputs of every length: that takes up to a minute the first time
    on a machine, and pays for many inputs.

    Raises BadInput if a file was changed, if a plugin that it needs is not installed, if one that is installed computes
    something else than the version that it was made with, or if the model cannot be compiled here.
    """
    found = load_ensemble if os.path.exists(Path(folder) / ENSEMBLE) else bundle.load
    return found(Path(folder), compile=compile)

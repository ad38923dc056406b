"""Trials on Ray Tune: `started` opens a Ray, `resources_of` counts it, `run` works an agenda off on it.

This room alone knows Ray. Tune's own files are never read: what a resume needs is in the study database.
"""

import os

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # read when ray.tune is imported

from deepmine_auto.executors.ray.cluster import started
from deepmine_auto.executors.ray.machines import resources_of
from deepmine_auto.executors.ray.nodes import refuse_unseen
from deepmine_auto.executors.ray.running import run
from deepmine_auto.executors.resources import Resources

__all__ = ["Resources", "refuse_unseen", "resources_of", "run", "started"]

"""The actor that trains. It knows neither database nor study: it is given assignments, and gives back messages."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import ray
from ray import tune

from deepmine_auto.executors.cores import keep_to_cores
from deepmine_auto.executors.gpus import VISIBLE, keep_to_share
from deepmine_auto.host import the_host
from deepmine_auto.messages import Assignment, Message, to_plain
from deepmine_auto.training.preemption import ask_to_stop
from deepmine_auto.training.trial import messages


class Worker(tune.Trainable):  # type: ignore[misc]
    """Trains one assignment after the other; every step is one message."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first assignment. SIGTERM is the notice of a machine that is taken away."""
        signal.signal(signal.SIGTERM, ask_to_stop)
        if not ray.get_gpu_ids():  # Ray hides the other GPUs from whoever has one, and none from whoever has none
            os.environ[VISIBLE] = ""
        keep_to_cores(config.get("cores", 0))
        keep_to_share(ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0))
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Begin another assignment. Always true: Tune would fail the next trial without telling the searcher."""
        self.messages: Iterator[Message] = messages(Assignment.from_json(config["assignment"]), the_host())
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next message. After one that leaves there is none: that fails, and Tune takes the worker
        away; so does what a broken GPU raises."""
        return {"message": json.dumps(to_plain(next(self.messages)))}

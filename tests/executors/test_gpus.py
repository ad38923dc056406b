"""Where no GPU is asked for none is used, though the machine has some."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from deepmine_auto.executors.gpus import VISIBLE, gpus_here, keep_to_share
from deepmine_auto.executors.ray import access, cluster, worker
from deepmine_auto.executors.resources import Resources
from deepmine_auto.searching import workers
from deepmine_auto.training.loop import device_here

ASKED = [(None, "cuda"), (2, "cuda"), (0, "cpu")]
THERE = "0,1"


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch, tmp_path):
    """A machine whose torch has found two GPUs already, and a home without a token."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(VISIBLE, THERE)
    monkeypatch.setenv("HOME", str(tmp_path))
    for each in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", access.MODE):
        monkeypatch.delenv(each, raising=False)


def test_a_gpu_is_used_unless_all_are_hidden_even_where_torch_counted_them_before(monkeypatch):
    assert device_here().type == "cuda"
    monkeypatch.setenv(VISIBLE, "")
    assert device_here().type == "cpu"
    monkeypatch.delenv(VISIBLE)
    assert device_here().type == "cuda"


@pytest.mark.parametrize(("given", "device"), [([], "cpu"), ([1], "cuda")])
def test_a_worker_that_was_given_no_gpu_uses_none(monkeypatch, given, device):
    """Ray leaves all GPUs of its machine in its sight."""
    monkeypatch.setattr(worker.ray, "get_gpu_ids", lambda: given)
    monkeypatch.setattr(worker.ray, "get_runtime_context", lambda: SimpleNamespace(get_assigned_resources=dict))
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    used = []
    worker.Worker.setup(SimpleNamespace(reset_config=lambda _: used.append(device_here().type)), {})
    assert used == [device]


@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize(("asked", "device"), ASKED)
def test_the_driver_uses_no_gpu_where_none_was_asked_for_and_only_as_long(monkeypatch, executor, asked, device):
    monkeypatch.setattr(cluster.ray, "init", lambda **_: None)
    monkeypatch.setattr("deepmine_auto.executors.ray.resources_of", lambda *_: Resources(1))
    place = {"executor": executor, "gpus": asked, "gpus_per_trial": None, "workers": None, "address": None}
    with workers(place):
        assert device_here().type == device
    assert os.environ[VISIBLE] == THERE


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, 0.25 - 0.5 / 16), (0.02, 0.01), (1.0, None), (2.0, None), (0.0, None)]
)
def test_who_shares_a_gpu_takes_no_more_of_its_memory_than_its_share(monkeypatch, share, expected):
    set_to = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=16e9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", set_to.append)
    keep_to_share(share)
    assert set_to == ([] if expected is None else [pytest.approx(expected)])


@pytest.mark.parametrize(("able", "expected"), [(True, 8), (False, 0)])
def test_gpus_that_torch_cannot_use_are_none(monkeypatch, able, expected):
    """As with a driver that is too old."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: able)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert gpus_here() == expected

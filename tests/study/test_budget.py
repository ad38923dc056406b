"""What a study may use, in seconds."""

import math

import pytest

from deepmine_auto.errors import BadInput
from deepmine_auto.study.budget import Budget


def test_the_seconds_are_those_of_the_limit_that_is_reached_first():
    assert Budget(seconds=600.0, gpu_hours=1.0).seconds_on(2.0) == 600.0
    assert Budget(seconds=6000.0, gpu_hours=1.0).seconds_on(2.0) == 1800.0
    assert Budget(trials=3, gpu_hours=1.0).seconds_on(0.0) == math.inf


def test_gpu_hours_alone_are_refused_where_no_gpu_is_held():
    with pytest.raises(BadInput, match=r"--max-gpu-hours ends nothing where no GPU is held\. Give --time-budget"):
        Budget(gpu_hours=1.0).refuse_endless(0.0)

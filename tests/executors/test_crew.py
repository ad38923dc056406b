"""How many trials will run at a time is known before anything is started."""

import pytest

from deepmine_auto.errors import BadInput
from deepmine_auto.executors import crew
from deepmine_auto.executors.crew import Crew, crew_of

ASKED = {"executor": "ray", "gpus": 0, "gpus_per_trial": None, "workers": None, "address": None}


def test_inline_there_is_one_worker_and_no_gpu():
    assert crew_of({**ASKED, "executor": "inline"}) == Crew(1, 0.0)


def test_without_gpus_there_is_a_worker_a_core_unless_fewer_are_asked_for(monkeypatch):
    monkeypatch.setattr(crew, "cores_here", lambda: 6)
    assert crew_of(ASKED) == Crew(6, 0.0)
    assert crew_of({**ASKED, "workers": 2}) == Crew(2, 0.0)
    assert crew_of({**ASKED, "workers": 20}) == Crew(6, 0.0)


def test_gpus_are_those_asked_for_or_those_that_torch_sees(monkeypatch):
    monkeypatch.setattr(crew, "gpus_here", lambda: 8)
    assert crew_of({**ASKED, "gpus": 8}) == Crew(8, 8.0)
    assert crew_of({**ASKED, "gpus": 8, "gpus_per_trial": 0.25}) == Crew(32, 8.0)
    assert crew_of({**ASKED, "gpus": 8, "gpus_per_trial": 4.0, "workers": 1}) == Crew(1, 4.0)
    monkeypatch.setattr(crew, "gpus_here", lambda: 3)
    assert crew_of({**ASKED, "gpus": None}) == Crew(3, 3.0)
    assert crew_of({**ASKED, "gpus": 2, "gpus_per_trial": 0.6}) == Crew(2, 1.2), "a trial keeps to one GPU"


def test_gpus_that_the_search_would_not_find_are_refused_but_for_those_of_a_cluster():
    with pytest.raises(BadInput, match=r"4 GPUs were asked for, and Ray reports 0"):
        crew_of({**ASKED, "gpus": 4})
    assert crew_of({**ASKED, "gpus": 4, "address": "10.0.0.1:6379"}) == Crew(4, 4.0)

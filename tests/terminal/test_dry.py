"""A dry run says what its figures stand for."""

from types import SimpleNamespace

from deepmine_auto.executors.crew import Crew
from deepmine_auto.terminal.dry import _workers


def said(crew, address=None):
    return _workers(SimpleNamespace(crew=crew, device="cuda"), address)


def test_workers_are_those_of_this_machine():
    assert said(Crew(2, 0.0)) == said(Crew(2, 1.0)) == said(Crew(2, 2.0)) == "2 on this machine (cuda)"


def test_where_a_trial_holds_several_gpus_one_of_them_was_measured():
    lone = "times and memory are those of a trial on one"
    assert said(Crew(2, 8.0)) == f"2 on this machine (cuda), each on 4 GPUs; {lone}"


def test_a_cluster_is_taken_to_be_like_this_machine():
    assert said(Crew(8, 8.0), "head:6379") == "8 if the cluster at head:6379 is like this machine (cuda)"

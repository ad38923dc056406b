"""Failpoints do nothing unless the environment names them."""

import os
import signal

import pytest

from deepmine_auto import failpoints


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    failpoints._reached.clear()
    yield
    failpoints._reached.clear()


def test_without_the_variable_nothing_happens():
    failpoints.reach("here")


def test_another_place_than_the_named_one_is_passed(monkeypatch):
    monkeypatch.setenv(failpoints.VARIABLE, "there:raise")
    failpoints.reach("here")


def test_the_named_place_raises_the_first_time_and_no_more(monkeypatch):
    monkeypatch.setenv(failpoints.VARIABLE, "here:raise")
    with pytest.raises(OSError, match="failpoint here"):
        failpoints.reach("here")
    failpoints.reach("here")


def test_the_nth_time_is_the_one_that_counts(monkeypatch):
    monkeypatch.setenv(failpoints.VARIABLE, "here:raise:3")
    failpoints.reach("here")
    failpoints.reach("here")
    with pytest.raises(OSError, match="failpoint here"):
        failpoints.reach("here")


def test_kill_is_sigkill_to_this_process_alone(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda *each: sent.append(each))
    monkeypatch.setenv(failpoints.VARIABLE, "here:kill")
    with pytest.raises(OSError, match="failpoint here"):  # a process that is really killed does not come so far
        failpoints.reach("here")
    assert sent == [(os.getpid(), signal.SIGKILL)]

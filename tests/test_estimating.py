"""A dry run foretells a search, and what it foretells comes true."""

import statistics
from dataclasses import replace

import pytest
from tiny_texts import as_csv, rows

from deepmine_auto import estimating
from deepmine_auto.data.kept import SEARCH, keep
from deepmine_auto.data.split import split
from deepmine_auto.errors import BadInput
from deepmine_auto.estimating import baseline_seconds, dry_run
from deepmine_auto.host import the_host
from deepmine_auto.planning import calibrating
from deepmine_auto.planning.calibrating import Measured, Sample, Sized
from deepmine_auto.searching import search
from deepmine_auto.storage import tables
from deepmine_auto.storage.place import place_of
from deepmine_auto.storage.store import Store
from deepmine_auto.study.closing import VERIFY_SECONDS
from deepmine_auto.watcher import Watcher


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a file of texts, and a hurry."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moods.csv").write_text(as_csv())
    monkeypatch.setattr(calibrating, "DRAWN", 6)
    monkeypatch.setattr(calibrating, "FEWEST_DRAWN", 6)
    monkeypatch.setattr(calibrating, "MEASURING_SECONDS", 0.0)
    monkeypatch.setattr(calibrating, "STEPPING_SECONDS", 0.0)
    return tmp_path


@pytest.fixture
def alike(here, monkeypatch):
    """Nothing is trained: all models are alike, and their trials take ten seconds."""
    sized = [Sized({}, 100, 9, 10, 1000, 1000, 0.1, 5.0)] * 6
    found = Sample(6, sized, {0: Measured(10.0, 5.0, 1.0), 5: Measured(10.0, 5.0, 1.0)}, {})
    monkeypatch.setattr(estimating, "sample", lambda *_: found)


def foretold(**fields):
    asked = {"task": "text_classification", "data": "moods.csv", "executor": "inline", "trials": 4, **fields}
    return dry_run(**asked).estimates


# -- what it is reckoned from ------------------------------------------------------------------------------------------


def test_a_baseline_of_some_rows_is_taken_times_those_left_out(alike, monkeypatch):
    class Clock:
        now = 0.0

        def perf_counter(self):
            self.now += 1.0
            return self.now

    monkeypatch.setattr(estimating, "time", Clock())
    monkeypatch.setattr(estimating, "BASELINE_ROWS", 16)
    found = foretold()
    assert found.closing == VERIFY_SECONDS + 2 * 64 / 16


def test_a_baseline_of_some_rows_knows_every_label(tmp_path, monkeypatch):
    monkeypatch.setattr(estimating, "BASELINE_ROWS", 8)
    made = replace(rows(), labels=["seldom"] * 3 + ["often"] * 77)
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        keep(folder, made, {SEARCH: split(made.labels, seed)})
        assert baseline_seconds("text_classification", the_host(), folder) > 0


# -- what it says ------------------------------------------------------------------------------------------------------


def test_every_interval_is_in_order_and_the_whole_is_the_sum_of_its_parts(here):
    found = foretold()
    intervals = [each for each in vars(found).values() if isinstance(each, estimating.Interval)]
    assert len(intervals) == 10
    assert all(each == tuple(sorted(each)) and each.low >= 0 for each in intervals)
    assert found.whole.middle == pytest.approx(found.search.middle + found.finals.middle + found.closing)
    assert found.trials == (4, 4, 4)
    assert (found.drawn, found.measured) == (6, 3)
    assert found.largest_mb >= found.peak_mb.middle
    assert found.process_mb > 100


def test_more_trials_take_longer_and_pruned_ones_less(alike):
    few, many = foretold(pruner="none"), foretold(pruner="none", trials=40)
    assert few.trial == pytest.approx((10.0, 10.0, 10.0))
    assert (few.search.middle, many.search.middle) == pytest.approx((40.0, 400.0))
    assert few.worked == 1.0
    pruned = foretold(trials=40)
    assert pruned.search.middle == pytest.approx(400.0 * pruned.worked)
    assert pruned.worked < 0.5


def test_nothing_is_pruned_of_the_steps_before_those_of_the_task(here, monkeypatch):
    def worked(before):
        sized = [Sized({}, 100, 9, 10, 1000, 1000, 0.1, 5.0, before=each) for each in before]
        found = Sample(6, sized, {0: Measured(10.0, 5.0, 1.0), 5: Measured(10.0, 5.0, 1.0)}, {})
        monkeypatch.setattr(estimating, "sample", lambda *_: found)
        return foretold(trials=40).worked

    assert worked([0, 50] * 3) == pytest.approx(0.25 + 0.75 * worked([0] * 6))


def test_a_time_budget_is_not_passed(alike):
    found = foretold(trials=None, time_budget="10m")
    assert found.whole.high <= 600.0
    assert found.trials.low > 60 * (1 - 0.3 - found.closing / 600) - 1


def test_what_is_kept_for_a_refit_is_taken_off_the_search_and_it_has_a_bundle_of_its_own(alike):
    without, with_it = (foretold(trials=None, time_budget="10m", refit=each) for each in (False, True))
    assert without.refit == 0.0 < with_it.refit <= 120.0
    assert with_it.search.middle < without.search.middle
    assert with_it.whole.high <= 600.0
    assert with_it.disk_mb.low > without.disk_mb.low


def test_for_a_refit_that_has_no_share_nothing_is_kept(alike):
    assert foretold(trials=None, time_budget="50s", refit=True).refit == 0.0


def test_the_disk_holds_every_checkpoint_that_is_kept_at_once(alike):
    found = foretold(trials=40)
    assert found.checkpoint_mb == pytest.approx((1.0, 1.0, 1.0))
    low, middle, high = found.disk_mb
    assert (middle - low, high - middle) == pytest.approx((9.0, 9.0)), "nine reruns; nine evaluations of one trial"
    assert low > 2 + 1 + 3, "the last two and the best of what runs, and three finalists"


def test_what_the_search_would_refuse_is_refused(here):
    with pytest.raises(BadInput, match="Did you mean 'linear'"):
        foretold(attention=["linaer"])
    (here / "full").mkdir()
    (here / "full" / "precious").touch()
    with pytest.raises(BadInput, match="full exists already"):
        foretold(output="full")


# -- whether it comes true ---------------------------------------------------------------------------------------------


class UntilTheFinals(Watcher):
    """Ends a study as Ctrl-C does when its trials are over."""

    def opened(self, agenda, notes, baseline):
        self.study = agenda.ledger.study

    def happened(self, kind, text, trial):
        if (kind, text) == ("begun", "rerun"):
            raise KeyboardInterrupt


@pytest.mark.slow
def test_the_trials_of_a_search_take_as_long_as_was_foretold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"space": "tiny", "executor": "inline", "trials": 3, "pruner": "none"}
    found = dry_run(**asked).estimates
    watcher = UntilTheFinals()
    with pytest.raises(KeyboardInterrupt):
        search(watcher, **asked)
    reports = Store(place_of().open_reader()).rows(tables.reports, watcher.study.id)
    last = {each["number"]: each for each in reports}
    seconds = [each["seconds"] * 1000 / each["share"] for each in last.values()]
    print(f"foretold {found.trial}, mean {statistics.fmean(seconds):.1f} of {[round(each, 1) for each in seconds]}")
    assert len(seconds) == 3
    assert found.trial.low <= statistics.fmean(seconds) <= found.trial.high
    costs = [each["metrics"]["peak_mb"] for each in last.values()]
    assert found.peak_mb.low <= statistics.fmean(costs) <= max(found.peak_mb.high, found.largest_mb)

"""The stock pages in a real browser, behind our guard: drawn, whole and quietly, and no study runs a script."""

import json
from contextlib import contextmanager

import pytest
from asking import serving
from browsing import browser_in
from fakes import Desk
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from searched_studies import COSTLY, TRIALS, begin

from deepmine_auto.dashboard.guard import Guard
from deepmine_auto.dashboard.serve import application
from deepmine_auto.objectives import Objective
from deepmine_auto.storage.sqlite import SqliteFile
from deepmine_auto.storage.store import Store
from deepmine_auto.study.showing import attach, note_study, note_trial

pytestmark = pytest.mark.slow

PLOT = 'class="main-svg"'
DRAWN_LINE = 'class="js-line"'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    return browser_in(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def look(shown, browser):
    """Open a page of the dashboard by its path."""
    with looking_at(shown, browser) as look:
        yield look


@contextmanager
def looking_at(shown, browser):
    with serving(shown.app()) as url:
        yield lambda path, name: browser.page(f"{url}/dashboard{path}", name)


# -- drawn, whole and quietly ------------------------------------------------------------------------------------------


def test_the_home_page_names_the_studies(look):
    page = look("", "home")
    assert "curves" in page.text
    assert "front" in page.text
    assert page.console == []


def best_of(shown):
    """The complete trial with the best value; an infeasible one has a better one."""
    complete = [each for each in shown.desk.trials(shown.curves) if each.state == TrialState.COMPLETE]
    return max(complete, key=lambda each: each.value)


def test_a_studys_page_draws_history_importance_timeline_every_curve_and_what_is_infeasible(shown_anywhere, browser):
    shown = shown_anywhere
    with looking_at(shown, browser) as look:
        page = look(f"/studies/{shown.curves.id}", "study")
    for heading in ("History", "Hyperparameter Importance", "Timeline", "Best Trial", "Intermediate values", "Pruned"):
        assert heading in page.text
    assert f"trial #{COSTLY} (infeasible)" in page.text
    assert f"Best Trial (number={best_of(shown).number})" in page.text
    assert "confusion.png" in page.text
    assert page.html.count(PLOT) >= 4
    curves = page.html.partition("Intermediate values")[2]
    reported = sum(bool(each.intermediate_values) for each in shown.desk.trials(shown.curves))
    assert curves.count(DRAWN_LINE) >= reported
    assert page.console == []


def test_a_trials_page_says_pruned_and_what_the_trial_cost(shown, look):
    pruned = next(each for each in shown.desk.trials(shown.curves) if each.state == TrialState.PRUNED)
    page = look(f"/studies/{shown.curves.id}/trials?numbers={pruned.number}", "pruned")
    assert f"Trial {pruned.number} (trial_id={pruned._trial_id})" in page.text
    for words in ("Pruned", "params_million", "latency_ms", "peak_mb", "seconds"):
        assert words in page.text
    assert page.console == []


def test_the_best_trial_shows_its_note_and_its_picture(shown, look):
    best = best_of(shown)
    page = look(f"/studies/{shown.curves.id}/trials?numbers={best.number}", "best")
    assert f"Trial {best.number} Complete Best Trial" in page.text
    assert "A new best : val/f" in page.text
    assert "config.json" in page.text
    assert f'src="/artifacts/{shown.curves.id}/{best._trial_id}/' in page.html
    assert page.console == []


def test_the_note_of_the_study_is_drawn_with_its_tables(shown, look):
    page = look(f"/studies/{shown.curves.id}/note", "note")
    for words in ("maximize val/f", "latency_ms<=5".replace("<", "&lt;"), f"{TRIALS} trials", "tf-idf, 0.8100"):
        assert words in page.text
    assert page.html.count("<table") == 2
    assert page.console == []


def test_several_objectives_show_their_pareto_front(shown_anywhere, browser):
    with looking_at(shown_anywhere, browser) as look:
        page = look(f"/studies/{shown_anywhere.front.id}", "front")
    for words in ("Pareto Front", "val/f", "latency_ms", "Best Trials"):
        assert words in page.text
    assert PLOT in page.html
    assert page.console == []


def test_parallel_coordinates_are_drawn(shown, look, browser):
    """They alone need 'unsafe-eval'; without it the page says that the browser has no WebGL."""
    script = b"document.title = document.createElement('canvas').getContext('webgl') ? 'yes' : 'no'"
    with serving(saying(b"<title>?</title><script>" + script + b"</script>")) as url:
        if browser.page(url).title != "yes":
            pytest.skip("this browser has no WebGL")
    page = look(f"/studies/{shown.curves.id}/smartSelection", "parallel")
    assert "Parallel Coordinate" in page.text
    assert "WebGL is not supported" not in page.text
    assert page.console == []


# -- no study runs a script --------------------------------------------------------------------------------------------

OWN = "document.title='OWNED'"
HOSTILE = f'"><img src=x onerror="{OWN}"><script>{OWN}</script><svg onload={OWN}>[x](javascript:{OWN})'


def saying(html: bytes):
    """An application that says one page."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [html]

    return app


def test_a_script_in_a_page_runs_without_the_guard_and_not_behind_it(browser):
    app = saying(f"<title>mine</title><p>{HOSTILE}</p>".encode())
    with serving(app) as url:
        assert browser.page(url).title == "OWNED"
    with serving(Guard(app, None)) as url:
        page = browser.page(url)
    assert page.title == "mine"
    assert any("Content Security Policy" in each for each in page.console)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A database in which every name and text is an attack, as whoever may write it could leave it."""
    desk = Desk(tmp_path_factory.mktemp("hostile"))
    study = begin(desk, "hostile", [Objective("f", "maximize")])
    storage = desk.store.storage
    storage.create_new_study(list(study.directions), HOSTILE)
    storage.set_study_system_attr(study.id, "study:metric_names", [HOSTILE])
    storage.set_study_user_attr(study.id, HOSTILE, HOSTILE)
    template = create_trial(
        state=TrialState.COMPLETE,
        value=1.0,
        params={HOSTILE: HOSTILE},
        distributions={HOSTILE: CategoricalDistribution([HOSTILE, "b"])},
        user_attrs={HOSTILE: HOSTILE, "reason": HOSTILE},
        intermediate_values={1: 1.0},
    )
    trial = storage.get_trial(storage.create_new_trial(study.id, template))
    storage.create_new_trial(study.id, template)
    note_study(desk.store, study, f"{HOSTILE}\n\n{HOSTILE}\n\n```\n{HOSTILE}\n```\n\n$\\href{{javascript:{OWN}}}{{x}}$")
    note_trial(desk.store, study, trial, HOSTILE)
    attach(desk.store, study, f"{HOSTILE}.png", json.dumps(HOSTILE).encode(), trial)
    attach(desk.store, study, f"{HOSTILE}.html", f"<script>{OWN}</script>".encode())
    return application(Store(SqliteFile(desk.folder / "studies.db").open_reader()), None), study


@pytest.mark.parametrize("path", ["", "/studies/{}", "/studies/{}/trials", "/studies/{}/note", "/studies/{}/analytics"])
def test_no_name_and_no_text_of_a_study_runs_a_script(browser, hostile, path):
    app, study = hostile
    with serving(app) as url:
        page = browser.page(f"{url}/dashboard{path.format(study.id)}", "hostile")
    assert page.title == "Optuna Dashboard"
    assert "hostile" in page.text
    assert not any("Content Security Policy" in each for each in page.console)

"""What the stock dashboard tells of a study is what the study's rows say."""

import pytest
from asking import ask
from searched_studies import COSTLY, FAILING

from deepmine_auto.storage import tables

COSTS = ("params_million", "latency_ms", "peak_mb", "seconds")


@pytest.fixture(scope="module")
def told(shown_anywhere):
    """What the dashboard's pages are drawn from: the studies by name."""
    app, studies = shown_anywhere.app(), (shown_anywhere.curves, shown_anywhere.front)
    return {each.name: ask(app, f"/api/studies/{each.id}").json() for each in studies}


def test_each_trial_has_the_state_that_it_ended_in(shown_anywhere, told):
    states = [each["state"] for each in told["curves"]["trials"]]
    assert states == [each.state.name.capitalize() for each in shown_anywhere.desk.trials(shown_anywhere.curves)]
    assert set(states) == {"Complete", "Pruned", "Fail"}


def test_every_curve_is_whole(shown_anywhere, told):
    """Each point that was reported is there, a pruned trial's last one too."""
    reported = {FAILING: []}
    of_trials = (
        each
        for each in shown_anywhere.desk.store.rows(tables.reports, shown_anywhere.curves.id)
        if each["kind"] == "trial"
    )
    for row in of_trials:
        reported.setdefault(row["number"], []).append({"step": row["step"], "value": row["value"]})
    drawn = {each["number"]: each["intermediate_values"] for each in told["curves"]["trials"]}
    assert drawn == reported
    assert any(len(drawn[each["number"]]) > 1 for each in told["curves"]["trials"] if each["state"] == "Pruned")


def test_what_a_trial_costs_is_a_number_to_draw_for_every_trial_that_reported(told):
    for study in told.values():
        attributes = {each["key"]: each["sortable"] for each in study["union_user_attrs"]}
        assert {name: attributes[name] for name in COSTS} == dict.fromkeys(COSTS, True)
        for trial in (each for each in study["trials"] if each["state"] != "Fail"):
            assert set(COSTS) <= {each["key"] for each in trial["user_attrs"]}


def test_a_trial_over_a_limit_is_infeasible_and_never_the_best(told):
    trials = told["curves"]["trials"]
    over = [each for each in trials if any(number > 0 for number in each["constraints"])]
    assert [(each["number"], each["constraints"], each["state"]) for each in over] == [(COSTLY, [3.0], "Pruned")]
    assert max(trials, key=lambda each: each.get("values", [0.0]))["number"] == COSTLY
    assert [each["number"] for each in told["curves"]["best_trials"]] not in ([], [COSTLY])


def test_of_several_objectives_the_pareto_front_is_shown_with_the_names_of_its_axes(shown_anywhere, told):
    front = told["front"]
    assert front["directions"] == ["maximize", "minimize"]
    assert front["objective_names"] == ["val/f", "latency_ms"]
    values = [each.values for each in shown_anywhere.desk.trials(shown_anywhere.front) if each.values]
    undominated = [
        each for each in values if not any(a >= each[0] and b <= each[1] and [a, b] != each for a, b in values)
    ]
    assert [each["values"] for each in front["best_trials"]] == undominated


def test_the_study_has_its_note_and_its_picture(shown_anywhere, told):
    study = told["curves"]
    assert "maximize val/f" in study["note"]["body"].replace("\\", "")
    assert [each["filename"] for each in study["artifacts"]] == ["confusion.png"]


def test_the_best_trial_has_its_note_its_params_and_its_picture(shown_anywhere, told):
    (best,) = told["curves"]["best_trials"]
    assert best["note"]["body"].startswith("**A new best**: val/f")
    assert sorted(each["filename"] for each in best["artifacts"]) == ["config.json", "confusion.png"]


def test_an_artifact_is_read_from_its_studys_folder(shown_anywhere, told):
    meta = told["curves"]["artifacts"][0]
    answer = ask(shown_anywhere.app(), f"/artifacts/{shown_anywhere.curves.id}/{meta['artifact_id']}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.body.startswith(b"\x89PNG")

"""A study in words: what its note says, and that nobody's words become marks in it."""

import re
import string
from dataclasses import replace

import pytest
from fakes import SPACE
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from optuna.study import StudyDirection

from deepmine_auto.storage.store import StudyRow
from deepmine_auto.study.notes import best_note, plain, study_note

SPEC = {
    "task": "sentiment",
    "objective": "macro_f1",
    "objectives": ["macro_f1", "latency_ms"],
    "limits": [["latency_ms", 1, 5.0]],
    "seed": 7,
    "space": SPACE.to_json(),
    "space_name": "tiny.toml",
    "fingerprint": "ab12",
    "described": {"rows": 4140, "labels": {"bad": 1000, "good": 3140}},
    "parts": {"train": 3312, "validation": 414, "test": 414},
    "budget": {"trials": 100, "seconds": 300.0},
    "sampler": "tpe",
    "pruner": "asha",
}
STUDY = StudyRow(1, "tweets_1", (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE), "/folder", SPEC, None)
RESULT = {"winner": 3, "sentence": "macro-F1 0.871 [0.836, 0.903], 6.3 points over tf-idf"}
RERUNS = [
    {"trial": 3, "repeat": 0, "state": "COMPLETE", "value": 0.86},
    {"trial": 3, "repeat": 1, "state": "COMPLETE", "value": 0.88},
    {"trial": 8, "repeat": 0, "state": "COMPLETE", "value": 0.85},
    {"trial": 9, "repeat": 0, "state": "FAIL", "value": None},
    {"trial": 5, "repeat": 0, "state": "COMPLETE", "value": 0.76},
    {"trial": 5, "repeat": 1, "state": "COMPLETE", "value": 0.78},
]


def seen(text: str) -> str:
    """What a person reads of Markdown, tables included."""
    html = MarkdownIt("commonmark").enable("table").render(text)
    for code, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        html = re.sub(r"<[^>]*>", " ", html) if code == "&lt;" else html
        html = html.replace(code, character)
    return " ".join(html.split())


def test_the_note_says_what_is_searched_for_in_what_and_how_long():
    words = seen(study_note(STUDY, ("tf-idf", 0.8421)))
    for each in (
        "tweets_1",
        "goal maximize val/macro_f1, minimize latency_ms",
        "limits latency_ms<=5",
        "task sentiment",
        "rows 3,312 train, 414 validation, 414 test",
        "labels bad 1,000, good 3,140",
        "fingerprint ab12",
        "budget 100 trials or 300 s",
        "sampler tpe",
        "baseline tf-idf, 0.8421 on the validation rows",
    ):
        assert each in words
    assert "Result" not in words


def test_at_the_end_it_says_the_verdict_and_the_finalists():
    words = seen(study_note(STUDY, None, RESULT, RERUNS))
    assert "Result macro-F1 0.871 [0.836, 0.903], 6.3 points over tf-idf" in words
    assert "3, the winner 0.8700 0.8600, 0.8800 5 0.7700 0.7600, 0.7800 8, may be as good 0.8500 0.8500" in words
    assert " 9 " not in words.partition("Finalists")[2]


def test_finalists_that_were_not_rerun_have_no_table():
    assert "Finalists" not in study_note(STUDY, None, RESULT, [])


def test_a_study_of_which_little_is_known_has_a_note_too():
    spec = {name: SPEC[name] for name in ("task", "objective", "fingerprint")}
    study = replace(STUDY, spec=spec, directions=STUDY.directions[:1])
    assert "goal maximize val/macro_f1" in seen(study_note(study))


def test_a_new_best_says_how_far_ahead_it_is():
    assert seen(best_note(STUDY, 0.9, None)) == "A new best : val/macro_f1 0.9000."
    assert seen(best_note(STUDY, 0.9, (4, 0.85))) == "A new best : val/macro_f1 0.9000, +0.0500 against trial 4."


@given(st.text(string.printable, min_size=1, max_size=40))
@example("<script>alert(1)</script>")
@example("a | b")
@example("[x](javascript:alert(1)) ![x](y) `code` **bold** $x$ &lt; ~~x~~")
@example("# head")
def test_nobodys_words_become_marks(text):
    words = " ".join(f"x{text}x".split())
    assert seen(plain(words)) == words
    table = study_note(replace(STUDY, spec={**SPEC, "task": words}))
    assert f"task {words} rows" in seen(table)
    assert MarkdownIt("commonmark").enable("table").render(table).count("<tr>") == 12


@pytest.mark.parametrize("text", ["1. one", "- one", "+ one", "= =", "http://a.example"])
def test_a_line_of_text_stays_a_line(text):
    assert seen(f"x {plain(text)}") == f"x {text}"

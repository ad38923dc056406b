"""The card is short, complete and honest."""

import pytest
import tiny

from deepmine_auto.bundle.card import card


def test_a_card_tells_where_the_model_comes_from():
    told = card(tiny.story(evidence=tiny.EVIDENCE, sentence="macro-F1 0.750 [0.600, 0.900]", facts={"trials": 24}))
    for part in (
        "Macro-F1 0.750 [0.600, 0.900].",
        "| macro_f1 | 0.7500 | 0.7000 |",
        "macro_f1 0.600 to 0.900",
        "+0.050 (-0.100 to +0.200)",
        "negative: 40, positive: 80",
        "f" * 64,
        "| attention/kind | multi_head |",
        "| trials | 24 |",
        "| torch | 2.13.0 |",
        "| attention multi_head | deepmine-auto 0.1.0 |",
        "not calibrated",
    ):
        assert part in told


def test_a_card_without_evidence_says_that_the_test_was_not_opened():
    told = card(tiny.story())
    assert told.count("The locked test was not opened for these weights") == 2
    assert "tf-idf" not in told


def test_a_card_of_rows_that_are_no_texts_names_no_tool_that_would_refuse_them():
    texts, others = card(tiny.story()), card(tiny.story(), False)
    for part in ("pipeline(", "`deepmine-auto evaluate`", "`tokenizer.json`"):
        assert part in texts
        assert part not in others
    assert others.count("The locked test was not opened for these weights.\n") == 2


@pytest.mark.parametrize(("times", "said"), [(1, False), (2, True)])
def test_a_card_says_so_from_the_second_opening_of_the_test_on(times, said):
    told = card(tiny.story(evidence=tiny.EVIDENCE, facts={"test_opened": times}))
    assert ("The test was opened 2 times" in told) == said


def test_a_card_gives_away_no_folder_of_the_user():
    assert "somebody" not in card(tiny.story())


def test_a_label_cannot_write_html_or_another_cell():
    told = card(tiny.story(data={"labels": {"<script>": 1, "a|b\nc": 2}}))
    assert "&lt;script>: 1, a\\|b c: 2" in told

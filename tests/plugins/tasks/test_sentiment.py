import pytest

from deepmine_auto import Source
from deepmine_auto.testing.task import ClassificationPromises
from deepmine_plugins.tasks.sentiment import Sentiment


class TestSentiment(ClassificationPromises):
    task = Sentiment


@pytest.fixture(scope="module")
def tweets():
    return Sentiment().read(Source())


def test_it_brings_4200_tweets_of_which_2901_are_positive(tweets):
    assert len(tweets) == 4_200
    assert sorted(set(tweets.labels)) == ["negative", "positive"]
    assert list(tweets.labels).count("positive") == 2_901


def test_escapes_of_html_are_undone(tweets):
    assert "We were 17 deep last night & the love was so strong everybody felt it." in tweets.inputs[2]
    assert not any("&amp;" in each or "&lt;" in each for each in tweets.inputs)


def test_a_users_files_take_the_place_of_the_tweets(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text("review,sentiment\n" + "fine,good\nugly,bad\n" * 4)
    rows = Sentiment().read(Source({"all": file}))
    assert (rows.inputs[0], rows.labels[0], len(rows)) == ("fine", "good", 8)

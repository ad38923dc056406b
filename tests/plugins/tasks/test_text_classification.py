import pytest

from deepmine_auto import BadInput, Rows, Source
from deepmine_auto.testing.task import ClassificationPromises
from deepmine_plugins.tasks.text_classification import OwnTexts

SUBJECTS = {
    "weather": "rain sun wind snow cloud",
    "food": "bread rice soup cheese apple",
    "sport": "goal race match team",
}


def some_rows():
    texts = [(f"{word} and {i} {other}", label) for label, words in SUBJECTS.items() for word in words.split()
             for i, other in enumerate(words.split())]  # fmt: skip
    return Rows([text for text, _ in texts], [label for _, label in texts])


class TestOwnTexts(ClassificationPromises):
    task = OwnTexts

    def rows(self):
        return some_rows()


def test_without_files_it_asks_for_some():
    with pytest.raises(BadInput, match=r"brings no data\. Name your own: --data"):
        OwnTexts().read(Source())


def test_it_reads_a_users_files(tmp_path):
    file = tmp_path / "news.csv"
    rows = some_rows()
    lines = [f"{text},{label}" for text, label in zip(rows.inputs, rows.labels, strict=True)]
    file.write_text("\n".join(["text,label", *lines]))
    assert OwnTexts().read(Source({"all": file})) == rows

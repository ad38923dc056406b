"""A task that answers with symbols leads to a bundle, on every backbone that can learn it."""

import pytest

import deepmine_auto

SPACE = """
[plugins]
attention = ["multi_head"]
backbone = ["{backbone}"]
optimizer = ["adamw"]
[ranges]
"model/depth" = 1
"model/dim" = [32]
"model/heads" = [2]
"training/epochs" = 1
"training/batch" = [64]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "backbone", "asked"),
    [
        ("reversal", "encoder_decoder", "s1 s2 s3 |"),
        ("reversal", "lstm", "s1 s2 s3 |"),
        ("reversal", "decoder", "s1 s2 s3 |"),
        ("copy_memory", "decoder", "1 2 3"),
    ],
)
def test_a_search_ends_with_a_bundle_that_answers(task, backbone, asked, tmp_path):
    (tmp_path / "space.toml").write_text(SPACE.format(backbone=backbone))
    result = deepmine_auto.search(
        task=task,
        space=str(tmp_path / "space.toml"),
        storage=str(tmp_path / "s.db"),
        output=str(tmp_path / "study"),
        trials=1,
        executor="inline",
    )
    (answer,) = deepmine_auto.load(result.bundle).predict([asked])
    assert len(answer["answers"]) == len(asked.split())

"""JSON of a stranger is read with care, and never asks for code."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.bundle.plain import MOST_BYTES, REMOTE_CODE, read_config, read_json
from deepmine_auto.errors import BadInput

OURS = {"model_type": "deepmine_auto", "deepmine": {"task": "sentiment", "params": {}}}


def _nested(inner, path):
    for step in path:
        inner = {step: inner} if step else [0, inner]
    return inner


@given(key=st.sampled_from(REMOTE_CODE), path=st.lists(st.sampled_from(["", "text_config", "a"]), max_size=6))
def test_a_config_that_asks_for_code_at_any_depth_is_refused(tmp_path_factory, key, path):
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "config.json").write_text(
        json.dumps({**OURS, "inner": _nested({key: {"AutoModel": "evil.Model"}}, path)})
    )
    with pytest.raises(BadInput, match=r"config\.json asks to run code of its own"):
        read_config(folder)


def test_a_tokenizer_config_that_asks_for_code_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(OURS))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    with pytest.raises(BadInput, match=r"tokenizer_config\.json asks to run code"):
        read_config(tmp_path)


@pytest.mark.parametrize("other", [{"model_type": "bert"}, {"deepmine": 3}, {"deepmine": {"task": "sentiment"}}])
def test_a_config_of_another_library_is_refused(tmp_path, other):
    (tmp_path / "config.json").write_text(json.dumps({**OURS, **other}))
    with pytest.raises(BadInput, match="describes no model of ours"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff", "[" * 200_000, '"a"'])
def test_what_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match="cannot be read"):
        read_json(tmp_path / "config.json")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "config.json", "wb") as opened:
        opened.truncate(MOST_BYTES + 1)
    with pytest.raises(BadInput, match="more than 8,000,000 bytes"):
        read_json(tmp_path / "config.json")

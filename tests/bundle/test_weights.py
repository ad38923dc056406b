"""Weights come back as they were saved; a file whose header lies is refused before it is mapped."""

import json
import pickle
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepmine_auto.bundle.weights import MOST_HEADER_BYTES, MOST_TENSORS, load_weights, save_weights
from deepmine_auto.errors import BadInput


def _write(file, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def _entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_weights_come_back_even_where_tensors_share_memory(tmp_path):
    table = torch.randn(3, 2)
    save_weights(tmp_path / "w", {"a.weight": table, "tied": table, "turned": table.T, "empty": torch.zeros(0)})
    loaded = load_weights(tmp_path / "w")
    assert torch.equal(loaded["a.weight"], table)
    assert torch.equal(loaded["turned"], table.T)
    assert loaded["empty"].shape == (0,)


@pytest.mark.parametrize(
    ("header", "data", "why"),
    [
        ({"a": _entry([2], 0, 8)}, b"1234", "do not fill it"),
        ({"a": _entry([2], 0, 8)}, b"12345678+", "do not fill it"),
        ({"a": _entry([3], 0, 8)}, b"12345678", "not where its shape says"),
        ({"a": _entry([2], 0, 8), "b": _entry([2], 0, 8)}, b"12345678", "not where its shape says"),
        ({"a": _entry([1], 4, 8)}, b"12345678", "not where its shape says"),
        ({"a": _entry([-2], 0, -8)}, b"", "shape"),
        ({"a": _entry([True], 0, 4)}, b"1234", "shape"),
        ({"a": _entry([1], 0, 4, "F8_E9")}, b"1234", "F8_E9"),
        ({"../a": _entry([1], 0, 4)}, b"1234", "not where"),
        ({"a": {}}, b"", "data_offsets"),
        ({"a": 1}, b"", "subscriptable"),
        ([1], b"", "pop"),
        (b"{", b"", "Expecting"),
        (b"[" * 100_000, b"", "recursion"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header, data, why):
    with pytest.raises(BadInput, match=rf"holds no weights that can be read: .*{why}"):
        load_weights(_write(tmp_path / "w", header, data))


def test_too_many_tensors_are_refused(tmp_path):
    header = {f"t{number}": _entry([0], 0, 0) for number in range(MOST_TENSORS + 1)}
    with pytest.raises(BadInput, match="names 20,001 tensors"):
        load_weights(_write(tmp_path / "w", header))


def test_a_header_of_more_than_8_mb_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "w").write_bytes((MOST_HEADER_BYTES + 1).to_bytes(8, "little"))
    with pytest.raises(BadInput, match="its header has 8,000,001 bytes"):
        load_weights(tmp_path / "w")


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "w").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BadInput, match="holds no weights"):
        load_weights(tmp_path / "w")


@given(raw=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(tmp_path_factory, raw):
    file = tmp_path_factory.mktemp("weights") / "w"
    file.write_bytes(raw)
    with suppress(BadInput):
        load_weights(file)

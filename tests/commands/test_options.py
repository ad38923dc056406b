"""What several commands print alike."""

import io
import json
import sys

import pytest

from deepmine_auto.commands.options import print_json


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_is_whole_whatever_standard_output_can_hold(encoding, monkeypatch):
    raw = io.BytesIO()
    value = {"label": "\u2026 \xe9 \U0001f600"}
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace"))
        print_json(value)
        sys.stdout.flush()
        assert json.loads(raw.getvalue().decode("latin-1" if encoding == "ascii" else encoding)) == value

"""Examples are run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SPACE = """
[plugins]
attention = ["linear"]
optimizer = ["adamw"]
[ranges]
"model/depth" = 1
"model/dim" = [32]
"training/epochs" = 1
"""


@pytest.mark.slow
def test_the_first_search_prints_a_sentence_and_two_answers(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    script = [sys.executable, str(checkout / "examples" / "001_first_search.py")]
    options = ["--space", "space.toml", "--trials", "1", "--executor", "inline"]
    done = subprocess.run([*script, *options], capture_output=True, text=True, cwd=tmp_path, check=False)

    assert done.returncode == 0, done.stderr
    *_, first, second = done.stdout.splitlines()
    assert {json.loads(each)["label"] for each in (first, second)} <= {"positive", "negative"}
    assert "macro-F1" in done.stdout

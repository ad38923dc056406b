"""The command as it is typed, in a process of its own, and a search that is small enough for it."""

import subprocess
import sys
from pathlib import Path

SPACE = """
[plugins]
attention = ["multi_head", "linear"]
backbone = ["encoder"]
optimizer = ["adamw"]
technique = []
pruner = "none"
[budget]
trials = 2
[ranges]
"model/depth" = 1
"model/dim" = [32]
"model/encoder/widen" = [1]
"training/epochs" = 1
"training/batch" = [64]
"data/tokens" = ["word"]
"""

PROGRAM = [sys.executable, "-c", "from deepmine_auto.cli import main; main()"]


def command(*args, folder, **options):
    """Run the command in a process of its own, in a folder."""
    return subprocess.run([*PROGRAM, *args], cwd=folder, capture_output=True, text=True, check=False, **options)


def space_in(folder: Path) -> Path:
    """Write the small space into a folder."""
    file = folder / "small.toml"
    file.write_text(SPACE)
    return file


def search_args(folder: Path, *more: str) -> list[str]:
    """A search of the small space in this process, with a study named `small`."""
    return ["search", "--executor", "inline", "--space", str(space_in(folder)), "--study", "small", *more]

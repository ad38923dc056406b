"""Fresh environments for tests, which borrow the libraries of the one that runs the tests.

Only what is installed into it counts as installed: editable installs and dist-infos of ours are looked up there first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path


class Environment:
    """A virtual environment at `place`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
        self.packages = Path(self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        (self.packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))

    def install(self, project: Path) -> None:
        """Install a project from a folder, without its dependencies and without the network."""
        options = ["--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "--quiet"]
        command = [sys.executable, "-m", "pip", "--python", str(self.place / "bin" / "python"), "install", *options]
        subprocess.run([*command, str(project)], check=True, capture_output=True)

    def run(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        """Run a program of this environment and return what it prints; a failure shows all of its output."""
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        command = [str(self.place / "bin" / program), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=environment, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

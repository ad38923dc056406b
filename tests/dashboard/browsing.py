"""Pages as a headless Chromium shows them."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage --hide-scrollbars --enable-logging=stderr --virtual-time-budget=20000 "
    "--use-angle=swiftshader --use-gl=angle --ignore-gpu-blocklist"
)
ABOUT_GRAPHICS = re.compile(r"GL Driver Message|software WebGL")
"""What a browser without a graphics card says of itself."""

SECONDS = 90


@dataclass
class Page:
    """What stands in a page after its scripts have run, what they said on the console, and its picture."""

    html: str
    console: list[str]
    picture: Path

    @property
    def text(self) -> str:
        """The words that a person reads."""
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<(script|style).*?</\1>", " ", self.html)))

    @property
    def title(self) -> str:
        """Its title."""
        return re.search(r"<title>(.*?)</title>", self.html)[1]


@dataclass
class Browser:
    """A Chromium with a profile of its own."""

    program: str
    folder: Path

    def page(self, url: str, name: str = "page", size: str = "1400,2200") -> Page:
        """Open a page, let its scripts run, and look at it."""
        picture = self.folder / f"{name}.png"
        args = [f"--user-data-dir={self.folder / 'profile'}", f"--window-size={size}", f"--screenshot={picture}"]
        done = subprocess.run(
            [self.program, *FLAGS.split(), *args, "--dump-dom", url],
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
        said = [each for each in done.stderr.splitlines() if ":CONSOLE" in each and not ABOUT_GRAPHICS.search(each)]
        return Page(done.stdout, said, picture)


def browser_in(folder: Path) -> Browser:
    """The browser of this machine; skips where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    return Browser(program, folder)

"""The table of faults names every one of them, and tests that exist."""

import re

import pytest

ROWS = 70
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


@pytest.fixture(scope="module")
def rows(checkout):
    """Number, fault and what shows it, of each row."""
    lines = (checkout / "tests" / "faults.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d+ \|", line)]


def test_every_fault_has_its_row(rows):
    assert [int(number) for number, *_ in rows] == list(range(1, ROWS + 1))


def test_every_row_has_a_test_or_says_why_not(rows):
    reason = re.compile(r"^(out of scope|not testable here|not shown by a test of its own): \w")
    assert not [number for number, _, shown in rows if not NAMED.search(shown) and not reason.match(shown)]


def test_every_named_test_exists(rows, checkout):
    named = {each for *_, shown in rows for each in NAMED.findall(shown)}
    assert len(named) > ROWS / 2
    for file, name in sorted(named):
        found = (checkout / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def test_{name}\(", found, re.MULTILINE), f"{file} has no test_{name}"

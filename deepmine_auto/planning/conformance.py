"""Whether attention variants of others keep their promises: a search asks before it trusts one, once a version.

Ours are held to the same promises by our own tests.
"""

from __future__ import annotations

from importlib.metadata import version

from deepmine_auto import cache
from deepmine_auto.contracts import Brought
from deepmine_auto.errors import MissingExtra

OURS = "deepmine-auto"
KEPT = "conformance"


def fault(brought: Brought) -> str:
    """The first promise that a variant breaks and what is wrong with it, or an empty string.

    Raises MissingExtra where what a check needs is not installed.
    """
    if brought.distribution == OURS:
        return ""
    known = cache.read(KEPT)
    key = f"{brought.path} {brought.hash} {version(OURS)}"
    if key not in known:
        known[key] = _checked(brought)
        cache.write(KEPT, known)
    return str(known[key])


def _checked(brought: Brought) -> str:
    try:
        from deepmine_auto.testing.checks import kit_of, run

        promises = run(kit_of(brought.thing))  # one after the other: what comes after the first fault is not computed
    except (MissingExtra, ModuleNotFoundError) as missing:
        what = f"Whether the attention '{brought.name}' keeps its promises cannot be checked without pytest."
        remedy = "Install it: pip install 'deepmine-auto[test]'; or trust the plugin: --unchecked."
        raise MissingExtra(what, remedy) from missing
    return next((f"{each.promise}: {each.detail}" for each in promises if each.ok is False), "")

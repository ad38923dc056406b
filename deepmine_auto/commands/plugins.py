"""`deepmine-auto plugins`: what is installed, what each is and looks like, whether it keeps its promises, and how to
begin one of your own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from shlex import quote

import click

from deepmine_auto import __version__
from deepmine_auto.commands.options import as_json, print_json, width
from deepmine_auto.contracts import Brought
from deepmine_auto.errors import BadInput, DeepmineError, MissingExtra, unknown
from deepmine_auto.host import DOOR, HOOKS, Door, Host, the_host
from deepmine_auto.terminal.words import plain, table
from deepmine_auto.testing.checks import CHECKED, Promise


class BrokenPromise(DeepmineError):
    """A plugin does not keep what every plugin of its kind promises."""


@click.group()
def plugins() -> None:
    """List, show, check and begin plugins."""


@plugins.command("list")
@click.option("--kind", metavar="KIND", help=f"One kind only: {', '.join(HOOKS)}.")
@click.option("--names", is_flag=True, help="What the doors say, without importing what is behind them.")
@as_json
def list_plugins(kind: str | None, names: bool, as_json: bool) -> None:
    """List the installed plugins with the paper that each follows, and those that cannot be used."""
    if kind is not None and kind not in HOOKS:
        raise unknown(kind, HOOKS, "kind of plugin")
    kinds = [kind] if kind else list(HOOKS)
    heads = ("kind", "path", "distribution", "version") if names else _HEADS
    rows = named(the_host(), kinds) if names else listed(the_host(), kinds)
    aside = set_aside(the_host(), kinds)
    if as_json:
        print_json({"plugins": rows, "set_aside": aside})
        return
    click.echo(table(heads, [[row[head] for head in heads] for row in rows], width()))
    for each in aside:
        click.echo(plain(f"set aside: {each['kind']} {each['name']} of {each['distribution']}: {each['error']}"))


_HEADS = ("kind", "name", "version", "distribution", "source")


def named(host: Host, kinds: list[str]) -> list[dict[str, str]]:
    """What the doors say, as `module:Class`."""
    return [
        {"kind": kind, "path": path, "distribution": door.distribution, "version": door.version}
        for kind in kinds
        for path, door in host.paths(kind)
    ]


def listed(host: Host, kinds: list[str]) -> list[dict[str, str]]:
    """Every usable plugin of these kinds."""
    offered = [each for kind in kinds for each in host.offered(kind).values()]
    return [
        dict(zip(_HEADS, (each.kind, each.name, each.version, each.distribution, each.source), strict=True))
        for each in offered
    ]


def set_aside(host: Host, kinds: list[str]) -> list[dict[str, str]]:
    """What cannot be used, and why."""
    return [
        {"kind": each.kind, "name": each.what, "distribution": each.distribution, "error": each.why}
        for each in host.broken
        if each.kind in (*kinds, DOOR)
    ]


# -- show --------------------------------------------------------------------------------------------------------------


@plugins.command()
@click.argument("name")
@click.option("--kind", metavar="KIND", help="Where several kinds have a plugin of this name.")
@click.option("--svg", metavar="FILE", help="Write the picture of an attention variant into a new file too.")
@as_json
def show(name: str, kind: str | None, svg: str | None, as_json: bool) -> None:
    """Show the plugin NAME: what it does, what it searches, what it costs, and who looks at whom in it."""
    from deepmine_auto.commands.showing import as_text, card_of, free, svg_of, to_json, write

    if kind is not None and kind not in HOOKS:
        raise unknown(kind, HOOKS, "kind of plugin")
    path = None if svg is None else free(svg, "--svg")
    card = card_of(_find(the_host(), name, [kind] if kind else list(HOOKS)))
    if path is not None:
        write(path, svg_of(card), "--svg")
    if as_json:
        print_json(to_json(card))
    else:
        click.echo(as_text(card, width()))


@plugins.command()
@click.option("--output", metavar="FILE", required=True, help="The new HTML file.")
def gallery(output: str) -> None:
    """Write one HTML page of all attention variants with their pictures, and print its path."""
    from deepmine_auto.commands.showing import free, page_of, write

    path = free(output, "--output")
    write(path, page_of(the_host().offered("attention").values(), __version__), "--output")
    for each in set_aside(the_host(), ["attention"]):
        click.echo(plain(f"left out: {each['name']} of {each['distribution']}: {each['error']}"), err=True)
    click.echo(path)


# -- check -------------------------------------------------------------------------------------------------------------


@plugins.command()
@click.argument("name")
@click.option("--kind", metavar="KIND", help="Where several kinds have a plugin of this name.")
@as_json
def check(name: str, kind: str | None, as_json: bool) -> None:
    """Hold the plugin NAME to the promises of its kind. Ends with 1 if one is broken."""
    _need_test_libraries()
    if kind is not None and kind not in CHECKED:
        raise unknown(kind, CHECKED, "kind of plugin with promises")
    brought = _find(the_host(), name, [kind] if kind else CHECKED, "plugin that can be checked")
    promises = _promises(brought, _door_of(the_host(), brought.kind, brought.path))
    if as_json:
        print_json({"kind": brought.kind, "name": name, "promises": [each._asdict() for each in promises]})
    else:
        words = {True: "kept", False: "broken", None: "not given"}
        rows = [(words[each.ok], each.promise, each.detail) for each in promises]
        click.echo(table(("", "promise", "detail"), rows, width()))
    broken = sum(each.ok is False for each in promises)
    if broken:
        raise BrokenPromise(f"{broken} of {len(promises)} promises of the {brought.kind} '{name}' are broken.")


def _need_test_libraries() -> None:
    missing = [each for each in ("pytest", "hypothesis") if find_spec(each) is None]
    if missing:
        raise MissingExtra(f"A check needs {' and '.join(missing)}.", "Install it: pip install 'deepmine-auto[test]'.")


def _promises(brought: Brought, door: Door) -> list[Promise]:
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = scratch  # or it would leave a folder where the command is typed
        from deepmine_auto.testing.checks import check as promises_of

        return [Promise(*_light(door)), *promises_of(brought.thing)]


def _find(host: Host, name: str, kinds: Collection[str], what: str = "plugin") -> Brought:
    """The one plugin of this name among these kinds. Raises BadInput with the nearest, or that there are several."""
    found = [each for each in kinds if name in host.offered(each)]
    if len(found) > 1:
        raise BadInput(f"There is a '{name}' among {' and '.join(found)}.", "Say which with --kind.")
    if found or len(kinds) == 1:
        return host.brought([*found, *kinds][0], name)  # raises with the nearest name, or why it was set aside
    host.refuse_broken(name, kinds)
    everything = {each for kind in kinds for each in host.offered(kind)}
    raise unknown(name, everything, what, "`deepmine-auto plugins list` lists them all.")


def _door_of(host: Host, kind: str, path: str) -> Door:
    return next(door for each, door in host.paths(kind) if each == path)


def _light(door: Door) -> tuple[str, bool, str]:
    """Import the door in a process of its own, and look whether torch came with it."""
    code = f"import sys, {door.entry.module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    promise = "its door imports no torch"
    if done.returncode:
        return promise, False, (done.stderr.strip().splitlines() or ["it cannot be imported"])[-1]
    if done.stdout.split()[-1] == "True":
        return promise, False, f"{door.entry.module} imports torch: return strings, and import nothing heavy"
    return promise, True, ""


# -- new ---------------------------------------------------------------------------------------------------------------


@plugins.command()
@click.argument("name")
@click.option("--kind", metavar="KIND", required=True, help=f"One of {', '.join(CHECKED)}.")
@click.option("--output", metavar="FOLDER", default=".", help="Where the new folder goes. [default: here]")
def new(name: str, kind: str, output: str) -> None:
    """Write a distribution with one plugin NAME, its door and its tests: four short files that run as they are."""
    from deepmine_auto.testing.template import begin

    if kind in CHECKED and name in the_host().offered(kind):
        raise BadInput(f"The {kind} '{name}' is there already, and of two neither is used.", "Give another name.")
    folder = begin(name, kind, Path(output).expanduser())
    click.echo(f"{folder} is written. Now: pip install -e {quote(str(folder))} && deepmine-auto plugins check {name}")

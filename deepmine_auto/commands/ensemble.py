"""`deepmine-auto ensemble`: several trials of a study as one model."""

from __future__ import annotations

from typing import Any

import click

from deepmine_auto.commands.options import as_json, database, print_json, storage_options


@click.command()
@click.argument("study")
@click.option(
    "--members", type=int, default=5, show_default=True, metavar="N", help="Picks; a trial may be picked again."
)
@click.option("--output", metavar="DIR", help="The new folder. [default: in the study's folder]")
@storage_options
@as_json
def ensemble(
    study: str, members: int, output: str | None, storage: str | None, storage_file: str | None, as_json: bool
) -> None:
    """Average the best trials of STUDY, and compare that with the winner.

    The members are chosen on the validation rows among the trials whose weights were kept. The locked test is opened
    once more, which is recorded, and the folder that is made answers to `predict` and `evaluate` as a bundle does.
    """
    from pathlib import Path

    from deepmine_auto.ensemble.forming import form

    found = form(study, database(storage, storage_file), members, Path(output).expanduser() if output else None)
    print_json(found) if as_json else click.echo(_as_text(found))


def _as_text(found: dict[str, Any]) -> str:
    """Both scores, their difference and the cost; never the ensemble alone."""
    from deepmine_auto.study.evidence import spoken

    evidence, chosen = found["evidence"], found["validation"]
    objective, beside = spoken(evidence["objective"]), evidence["baseline"][evidence["objective"]]
    low, high = evidence["lead_interval"]
    shares = ", ".join(f"{trial} ({share:.0%})" for trial, share in found["shares"].items())
    times = found["test_opened"]
    pairs = [
        ("ensemble", f"trials {shares}; there were {chosen['candidates']} to choose from"),
        ("validation", f"{objective} {chosen['value']:.4f}; trial {chosen['best']} alone {chosen['alone']:.4f}"),
        ("test", found["sentence"]),
        ("winner", f"{objective} {beside:.4f}, by trial {found['winner']} on the same rows"),
        ("lead", f"{evidence['lead']:+.4f} [{low:+.4f}, {high:+.4f}] ahead of the winner"),
        ("cost", _cost(found["cost"])),
        *([("limits", f"{', '.join(found['limits'])}: each member keeps them")] if found["limits"] else []),
        ("opened", f"the locked test was opened {times} times in this study, so these scores flatter both"),
        ("folder", found["folder"]),
    ]
    return "\n".join(f"{name:<10} {text}" for name, text in pairs)


def _cost(cost: dict[str, Any]) -> str:
    size, took = cost["params_million"], cost["ms_per_text"]
    return (
        f"{size['times']:.1f} times the parameters ({size['ensemble']:.2f}M for {size['winner']:.2f}M), "
        f"{took['times']:.1f} times the time ({took['ensemble']:.1f} for {took['winner']:.1f} ms a text)"
    )

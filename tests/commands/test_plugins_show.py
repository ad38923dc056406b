"""`plugins show` and `plugins gallery`, as they are typed."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from deepmine_auto.cli import run
from deepmine_auto.commands.showing import as_text, card_of
from deepmine_auto.contracts import Brought
from deepmine_auto.gallery.pattern import TOKENS
from deepmine_auto.host import HOOKS, the_host
from deepmine_auto.terminal.words import CONTROL

ATTENTION = sorted(the_host().offered("attention"))
EVERY = [(kind, name) for kind in HOOKS for name in sorted(the_host().offered(kind))]


def shown(capsys, *args, code=0):
    assert run(["plugins", *args], the_host()) == code
    return capsys.readouterr()


def test_a_plugin_says_who_brought_it_and_what_it_searches(capsys):
    out = shown(capsys, "show", "adamw").out
    assert "adamw, optimizer" in out
    assert "deepmine-auto" in out
    assert "https://arxiv.org/abs/" in out
    assert out.split("field", 1)[1].split("\n")[1].split()[0] == "lr"
    assert "a number from" in out


def test_an_attention_variant_says_what_it_declares_and_what_it_costs(capsys):
    out = " ".join(shown(capsys, "show", "sliding_window").out.split())
    for words in (
        "a core: it mixes values",
        "bidirectional, causal",
        "causal, padding, window",
        "a whole number from 16 to 512, by orders of magnitude",
        "its cost grows with the length",
        "8,192",
        "Weights of one head for 24 random tokens, with window = 4.",
    ):
        assert words in out


def test_a_variant_that_exports_says_so(capsys):
    assert "to ONNX, for any batch and length" in shown(capsys, "show", "multi_head").out
    assert "to ONNX" not in shown(capsys, "show", "sliding_window").out


@pytest.mark.parametrize("name", ATTENTION)
def test_every_installed_attention_variant_is_shown_whole(name, capsys):
    out = shown(capsys, "show", name, "--kind", "attention").out
    variant = the_host().get("attention", name)
    assert "it cannot be drawn" not in out
    assert "its cost cannot be told" not in out
    assert "8,192" in out or variant.caps.max_len is not None
    drawn = {"bidirectional", "causal"} & variant.caps.modes if variant.caps.weights != "none" else set()
    assert {each for each in out.splitlines() if each in ("bidirectional", "causal")} == drawn
    assert drawn or "No picture: it " in out


@pytest.mark.parametrize(("kind", "name"), [each for each in EVERY if each[0] != "attention"])
def test_every_other_plugin_is_shown_with_its_fields(kind, name, capsys):
    found = json.loads(shown(capsys, "show", name, "--kind", kind, "--json").out)
    assert (found["kind"], found["name"]) == (kind, name)
    assert found["text"], "it has a docstring"
    assert "attention" not in found


def test_programs_get_the_weights_as_numbers(capsys):
    found = json.loads(shown(capsys, "show", "sliding_window", "--json").out)["attention"]
    assert [each["length"] for each in found["costs"]] == [128, 1024, 8192]
    assert [each["mode"] for each in found["patterns"]] == ["bidirectional", "causal"]
    for each in found["patterns"]:
        assert [len(row) for row in each["weights"]] == [TOKENS] * TOKENS
        assert [sum(row) for row in each["weights"]] == pytest.approx([1.0] * TOKENS, abs=0.01)


def test_a_modifier_says_what_it_needs_and_where_it_is_neutral(capsys):
    out = " ".join(shown(capsys, "show", "learned_temperature").out.split())
    assert "needs any core" in out
    assert "equals softmax attention at start = 0.0" in out
    assert "what it adds grows with the length" in out


# -- slips -------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_with_the_nearest(capsys):
    told = shown(capsys, "show", "slidng_window", code=2)
    assert told.err.startswith("'slidng_window' is no plugin. Did you mean 'sliding_window'?")
    assert told.out == ""
    told = shown(capsys, "show", "slidng_window", "--kind", "attention", code=2)
    assert "is no attention. Did you mean 'sliding_window'?" in told.err


def test_an_unknown_kind_is_told_with_the_nearest(capsys):
    told = shown(capsys, "show", "linear", "--kind", "atention", code=2).err
    assert told == "'atention' is no kind of plugin. Did you mean 'attention'?\n"


def test_a_name_of_two_kinds_asks_for_the_kind(capsys):
    told = shown(capsys, "show", "linear", code=2).err
    assert told == "There is a 'linear' among attention and schedule. Say which with --kind.\n"
    assert "linear, attention" in shown(capsys, "show", "linear", "--kind", "attention").out
    assert "linear, schedule" in shown(capsys, "show", "linear", "--kind", "schedule").out


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['deepmine-auto', 'plugins', 'show', '--help']; from deepmine_auto import cli\n"
        "try: cli.main()\n"
        "finally: print(sorted({'torch', 'numpy', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--svg" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


# -- files -------------------------------------------------------------------------------------------------------------


def test_the_picture_is_written_as_svg(capsys, tmp_path):
    shown(capsys, "show", "strided", "--svg", str(tmp_path / "strided.svg"))
    root = ElementTree.parse(tmp_path / "strided.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "strided" in " ".join(root.itertext())


@pytest.mark.parametrize(
    ("args", "option"), [(["show", "strided", "--svg"], "--svg"), (["gallery", "--output"], "--output")]
)
def test_a_file_is_never_written_over_nor_into_a_missing_folder(args, option, capsys, tmp_path):
    there = tmp_path / "there"
    there.write_text("mine")
    told = shown(capsys, *args, str(there), code=2)
    assert (told.out, told.err) == ("", f"{there} exists already. Give another {option}, or move it away.\n")
    assert there.read_text() == "mine"
    missing = tmp_path / "missing" / "file"
    told = shown(capsys, *args, str(missing), code=2)
    assert (told.out, told.err) == (
        "",
        f"There is no folder {missing.parent}. Make it first, or give another {option}.\n",
    )


def test_a_link_to_nowhere_is_not_followed(capsys, tmp_path):
    (tmp_path / "link.svg").symlink_to(tmp_path / "elsewhere")
    assert "exists already" in shown(capsys, "show", "strided", "--svg", str(tmp_path / "link.svg"), code=2).err
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_may_not_be_written_to_is_one_sentence(capsys):
    told = shown(capsys, "show", "strided", "--svg", "/proc/strided.svg", code=2).err
    assert told.startswith("/proc/strided.svg cannot be written: ")
    assert told.endswith(". Give another --svg.\n")


def test_only_attention_has_a_picture(capsys, tmp_path):
    told = shown(capsys, "show", "adamw", "--svg", str(tmp_path / "adamw.svg"), code=2).err
    assert told == "'adamw' is no attention variant and has no picture. Leave out --svg.\n"
    assert list(tmp_path.iterdir()) == []


def test_the_gallery_is_written_and_its_path_printed(capsys, tmp_path):
    told = shown(capsys, "gallery", "--output", str(tmp_path / "all.html"))
    assert told.out == f"{tmp_path / 'all.html'}\n"
    text = (tmp_path / "all.html").read_text()
    assert [name for name in ATTENTION if f">{name}</h3>" not in text] == []


# -- what others write -------------------------------------------------------------------------------------------------


def test_a_hostile_docstring_cannot_rewrite_the_terminal():
    linear = the_host().get("attention", "linear")
    hostile = type("Hostile", (linear,), {"__doc__": "\x1b[2Jgone \x1b]0;title\x07 <b>\u202ebackwards\x00"})
    card = card_of(Brought("attention", "ho\x1b[31mstile", hostile, "di\x07st", "1", "a:b", "arXiv:\x1b[0m1"))
    text = as_text(card, 80)
    assert CONTROL.search(text.replace("\n", "")) is None
    assert "gone" in text
    assert "hostile" in text

"""A folder of an ensemble is loaded as it was made, or refused in a sentence."""

import json
import shutil
import subprocess
import sys

import pytest

import deepmine_auto
from deepmine_auto.bundle.manifest import sealed
from deepmine_auto.ensemble.load import CARD, CONFIG, ENSEMBLE, write
from deepmine_auto.errors import BadInput


@pytest.fixture
def copied(formed, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(formed.folder, tmp_path / "copy")


def resealed(folder, change):
    """Write `ensemble.json` anew, as a stranger could."""
    plain = json.loads((folder / ENSEMBLE).read_text())
    plain.pop("seal")
    change(plain)
    (folder / ENSEMBLE).write_text(sealed(plain))


def members_of(folder):
    return sorted(folder.glob("trial-*"))


def test_a_copy_is_as_good(copied, formed):
    assert deepmine_auto.load(copied).predict("so good") == deepmine_auto.load(formed.folder).predict("so good")


def test_every_changed_byte_of_ensemble_json_is_refused(copied):
    file = copied / ENSEMBLE
    whole = file.read_bytes()
    for at in range(0, len(whole), 97):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BadInput, match=r"was changed after|cannot be read"):
            deepmine_auto.load(copied)


def test_changed_weights_of_a_member_are_refused(copied):
    file = members_of(copied)[1] / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BadInput, match=r"model\.safetensors was changed after the bundle was made"):
        deepmine_auto.load(copied)


@pytest.mark.parametrize("spoil", [lambda card: card.unlink(), lambda card: card.write_text("Better than all.")])
def test_a_card_that_is_another_or_gone_is_refused(copied, spoil):
    spoil(copied / CARD)
    with pytest.raises(BadInput, match=r"README\.md was changed after the ensemble was made"):
        deepmine_auto.load(copied)


def test_the_card_names_the_tokenizer_of_members_that_have_one(formed, tmp_path):
    for each in (0, 1):
        (tmp_path / f"trial-{each}").mkdir()
        (tmp_path / f"trial-{each}" / "manifest.json").touch()
    write(tmp_path, {0: 0.5, 1: 0.5}, formed.told)
    assert "tokenizer.json" in (formed.folder / CARD).read_text()
    assert "tokenizer.json" not in (tmp_path / CARD).read_text()


@pytest.mark.parametrize("auto", ["AutoConfig", "AutoTokenizer", "AutoModelForSequenceClassification"])
def test_transformers_is_told_that_it_is_no_model_of_its_own(formed, auto):
    from deepmine_auto import hf

    told = r"is an ensemble, and transformers loads one model\. Load it with `deepmine_auto\.load`, or give the folder"
    with pytest.raises(BadInput, match=told):
        getattr(hf, auto).from_pretrained(formed.folder)


def test_what_it_says_to_transformers_cannot_change_and_an_older_ensemble_says_nothing(copied):
    (copied / CONFIG).write_text('{"auto_map": {"AutoConfig": "evil.Evil"}}')
    with pytest.raises(BadInput, match=r"config\.json was changed after the ensemble was made"):
        deepmine_auto.load(copied)
    (copied / CONFIG).unlink()
    assert deepmine_auto.load(copied).predict("so good")


def test_another_bundle_in_the_place_of_a_member_is_refused(copied):
    first, second, *_ = members_of(copied)
    shutil.rmtree(first)
    shutil.copytree(second, first)
    with pytest.raises(BadInput, match=rf"{first.name} is not the member that the ensemble was made with"):
        deepmine_auto.load(copied)


def test_a_member_that_is_gone_is_refused(copied):
    shutil.rmtree(members_of(copied)[0])
    with pytest.raises(BadInput, match="is not the member that the ensemble was made with"):
        deepmine_auto.load(copied)


@pytest.mark.parametrize("name", ["code.py", "weights.pkl"])
def test_a_file_that_nobody_vouches_for_is_refused(copied, name):
    (copied / name).write_text("print('hello')")
    with pytest.raises(BadInput, match=rf"{name} does not belong to the ensemble"):
        deepmine_auto.load(copied)


def test_a_link_is_refused(copied, tmp_path):
    first = members_of(copied)[0]
    first.rename(tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="is a link"):
        deepmine_auto.load(copied)


CHANGES = {
    "a newer format": lambda plain: plain.update(format=2),
    "no members": lambda plain: plain.pop("members"),
    "one member": lambda plain: plain.update(members=plain["members"][:1]),
    "members of another kind": lambda plain: plain.update(members=[1, 2]),
    "a folder elsewhere": lambda plain: plain["members"][0].update(folder="../elsewhere"),
    "a folder that is none": lambda plain: plain["members"][0].update(folder=3),
    "a member twice": lambda plain: plain["members"][1].update(plain["members"][0]),
    "a weight below zero": lambda plain: plain["members"][0].update(weight=-0.5),
    "weights of another sum": lambda plain: plain["members"][0].update(weight=1.0),
    "a weight that is no number": lambda plain: plain["members"][0].update(weight="much"),
    "no hash of the card": lambda plain: plain.pop("card"),
    "no hash": lambda plain: plain["members"][0].pop("manifest"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_stranger_sealed_is_refused_in_a_sentence(copied, change):
    resealed(copied, change)
    with pytest.raises(BadInput, match="is not of a format that this version reads"):
        deepmine_auto.load(copied)


def test_members_that_answer_other_questions_are_refused(copied, formed):
    import tiny

    from deepmine_auto.bundle.manifest import MANIFEST
    from deepmine_auto.disk import sha256

    first = members_of(copied)[0]
    shutil.rmtree(first)
    shutil.copytree(tiny.bundle(), first)
    resealed(copied, lambda plain: [each.update(manifest=sha256(first / MANIFEST))
                                    for each in plain["members"] if each["folder"] == first.name])  # fmt: skip
    with pytest.raises(BadInput, match="do not answer the same question"):
        deepmine_auto.load(copied)


def test_loading_imports_none_of_the_heavy_libraries(formed):
    code = (
        "import sys, deepmine_auto\n"
        "deepmine_auto.load(sys.argv[1]).predict('hello')\n"
        "heavy = {'optuna', 'ray', 'transformers', 'sklearn', 'pandas', 'pyarrow', 'sqlalchemy'}\n"
        "print(sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, formed.folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

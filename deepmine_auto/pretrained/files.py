"""The files of a model that others trained, in a folder or on the hub. None of them is unpickled or run."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from deepmine_auto.bundle.plain import read_json
from deepmine_auto.contracts import Original
from deepmine_auto.data.foreign import load_foreign
from deepmine_auto.disk import sha256
from deepmine_auto.errors import BadInput, first_line
from deepmine_auto.pretrained.trust import trusted

WANTED = ("*.json", "*.safetensors")
"""What is fetched from the hub; weights in any other form would have to be unpickled."""

UNWANTED = ("*/*", "consolidated*")
"""What is not: folders of other formats, and the same weights once more under the names of those who trained them."""

WEIGHTS = "model.safetensors"
DISTRIBUTED = "shard-*-model-*-of-*.safetensors"
"""Files that transformers reads in the place of all others where a folder holds one of them."""

AGAIN = "Download the model again."
CHECK = "Check the path, or give a name of the hub."
WHOLE = "A pretrained model is a folder with config.json, tokenizer.json and model.safetensors."
SAVED = ".from_pretrained(MODEL).save_pretrained(FOLDER)` writes it; save"
WRITTEN = {
    "tokenizer.json": f"Where there is a fast tokenizer, `AutoTokenizer{SAVED} the model there too, and give FOLDER.",
    WEIGHTS: f"Where other weights may be unpickled, `AutoModel{SAVED} the tokenizer there too, and give FOLDER.",
}
"""How transformers writes a file that a model was published without."""


def pinned(name: str) -> str:
    """A name that will mean the same model tomorrow: an absolute folder, or NAME@COMMIT on the hub. Raises BadInput."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    return f"{name.partition('@')[0]}@{folder_of(name).name}"  # the hub keeps a revision under its commit


def folder_of(name: str) -> Path:
    """The folder of a model, or that of NAME or NAME@REVISION on the hub, fetched if need be. Raises BadInput."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith(("/", ".", "~")):  # no name of the hub begins so
        raise BadInput(f"There is no folder {folder}.", CHECK)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]

    repository, _, revision = name.partition("@")
    fetch = partial(snapshot_download, repository, revision=revision or None,
                    allow_patterns=[*WANTED], ignore_patterns=[*UNWANTED])  # fmt: skip
    try:
        with suppress(LocalEntryNotFoundError):
            cached = Path(str(fetch(local_files_only=True)))
            if _is_whole(cached):  # another library may have fetched a part of it
                return cached
        return Path(str(fetch()))
    except (HFValidationError, HTTPError, OSError, RuntimeError) as error:
        # a proxy or a line that is cut is an error of the HTTP library, and a RuntimeError where Xet fetches
        why, remedy = _why_not(name, error)
        raise BadInput(f"The model '{name}' is no folder, and the hub did not give it: {why}.", remedy) from error


def _why_not(name: str, error: Exception) -> tuple[str, str]:
    """Why the hub does not give a model, and what helps; what it says itself of a request would tell neither."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):  # which is a RepositoryNotFoundError too
        return "it is gated", "Accept its licence on its page there, and log in here: `hf auth login`."
    if isinstance(error, RepositoryNotFoundError):
        return "it shows you none of this name", "Check the name, or log in where it is private: `hf auth login`."
    return first_line(error), CHECK if isinstance(error, HFValidationError) else _by_hand(name)


def _by_hand(name: str) -> str:
    """How a model comes to a machine that does not reach the hub."""
    repository, _, revision = name.partition("@")
    asked = f"{repository} --revision {revision}" if revision else repository
    fetch = f"`hf download {asked} --local-dir FOLDER`"
    return f"Check the name, or fetch it where there is a network, {fetch}, and give that folder."


def original_of(name: str) -> Original:
    """How a model reads and is built. Raises BadInput where a file is missing, foreign, or asks for code."""
    folder = folder_of(name)
    plain = architecture(folder)  # first, because it knows a bundle, whose tokenizer is none of others
    return Original(load_foreign(_there(folder, "tokenizer.json")), plain)


def architecture(folder: Path) -> dict[str, Any]:
    """What config.json says of how a model is built. Raises BadInput where it cannot be trusted, or where the weights
    are quantised, which would be read as if they were not."""
    config = _config(_there(folder, "config.json"))
    if config.get("quantization_config"):
        raise BadInput(f"The model in {folder} is quantised.", "Give the model in full precision.")
    return trusted(config, str(folder / "config.json"))


def _config(file: Path) -> dict[str, Any]:
    try:
        return read_json(file).plain
    except BadInput as error:
        raise BadInput(error.what, AGAIN) from error


def weights_of(folder: Path) -> list[Path]:
    """The files of weights. Raises BadInput where there is none that can be read without unpickling, or where they are
    not all of the model."""
    if (folder / "adapter_config.json").is_file():
        what = f"{folder} holds an adapter beside the model."
        raise BadInput(what, "Merge it into the model first, and give the folder of the merged model.")
    if parts := sorted(each.name for each in folder.glob(DISTRIBUTED)):
        what = f"{folder} holds parts of a distributed checkpoint, such as {parts[0]}, which would be read instead."
        raise BadInput(what, f"Consolidate them into {WEIGHTS}, and give a folder that holds no other weights.")
    index = folder / f"{WEIGHTS}.index.json"
    sharded = index.is_file() and not (folder / WEIGHTS).is_file()  # of both, transformers reads the whole file
    return [_there(folder, name) for name in (_shards(index) if sharded else [WEIGHTS])]


def _shards(index: Path) -> list[str]:
    try:
        told = json.loads(index.read_bytes())
        shards = sorted({str(each) for each in told["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{index} does not say which files hold the weights.", AGAIN) from error
    if not isinstance(told.get("metadata"), dict):  # transformers reads it, and adds to it
        raise BadInput(f"{index} lacks its metadata.", 'Write "metadata": {} into it, or download the model again.')
    return shards


def content_of(folder: Path) -> str:
    """The sha256, in hex, of a model's files. Raises BadInput where one is missing."""
    return hashlib.sha256("".join(sha256(each) for each in _files(folder)).encode()).hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        return bool(_files(folder))
    except BadInput:
        return False


def _files(folder: Path) -> list[Path]:
    return [_there(folder, "config.json"), _there(folder, "tokenizer.json"), *weights_of(folder)]


def _there(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise BadInput(f"{folder} has no {name}.", WRITTEN.get(name, WHOLE))
    return folder / name

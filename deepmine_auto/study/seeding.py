"""Seeds are arguments: each is a hash of the study's seed and of what it is for, never a hyperparameter. A training is
told its split with its seed: who builds it again, to export it, must take the same."""

import hashlib

from deepmine_auto.data.kept import SEARCH


def seed_of(study_seed: int, *purpose: str | int) -> int:
    """A seed of 31 bits for a purpose, such as ("trial", 7)."""
    text = "/".join(map(str, (study_seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def of_trial(study_seed: int, number: int) -> tuple[str, int]:
    """The split and the seed of a trial: all trials are compared on one split."""
    return SEARCH, seed_of(study_seed, "trial", number)


def of_rerun(study_seed: int, repeat: int) -> tuple[str, int]:
    """The split and the seed of a finalist's rerun: whoever is trained again, is so on the same ones."""
    return rerun_split(repeat), seed_of(study_seed, "rerun", repeat)


def rerun_split(repeat: int) -> str:
    """What the split of the finals' repeat is called."""
    return f"rerun-{repeat}"

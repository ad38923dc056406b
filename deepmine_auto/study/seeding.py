"""Seeds are arguments: each is a hash of the study's seed and of what it is for, never a hyperparameter."""

import hashlib


def seed_of(study_seed: int, *purpose: str | int) -> int:
    """A seed of 31 bits for a purpose, such as ("trial", 7)."""
    text = "/".join(map(str, (study_seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1

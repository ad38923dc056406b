"""What a config of somebody else may say. It is asked of a model's folder, and of a stranger's bundle again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepmine_auto.bundle.plain import MODEL_TYPE, asks_for_code
from deepmine_auto.errors import BadInput

ORIGIN = "model/pretrained/origin"
"""The param that names a pretrained model."""

ELSEWHERE = ("transformers_version", "transformers_weights", "architectures", "torch_dtype", "dtype",
             "quantization_config", "attn_implementation", "experts_implementation")  # fmt: skip
"""What says where a model comes from and what runs it, and not how it is built; a name of the hub may stand there, or
another file of weights than the one that was looked at."""


def trusted(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a config says of how a model is built. Raises BadInput where it asks to run code, is a bundle's, or
    names no architecture of the installed transformers; `where` names it."""
    if asks_for_code(dict(config)):
        raise BadInput(f"{where} asks to run code of its own.", "Such a model is not loaded.")
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if isinstance(kind, str) and kind.startswith(MODEL_TYPE):  # an ensemble's begins so too
        raise BadInput(f"{where} is that of a bundle, which is trained no further.", _instead_of_bundle(config))
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        what = f"{where} names the architecture {kind!r}, which the installed transformers has not."
        raise BadInput(what, "Use a model of a known architecture.")
    return {key: value for key, value in config.items() if not _tells_nothing(key, value)}


def _instead_of_bundle(config: Mapping[str, Any]) -> str:
    """What a search can begin with: the model that a bundle was made from, where it tells, or what its study found."""
    ours = config.get("deepmine")
    params = ours.get("params") if isinstance(ours, dict) else None
    origin = params.get(ORIGIN) if isinstance(params, dict) else None
    model = f"the model that it was made from, --backbone {origin}, or " if isinstance(origin, str) else ""
    return f"Begin with {model}what its study found: --warm-start STUDY."


def _tells_nothing(key: str, value: Any) -> bool:
    """Some configs on the hub say that padding is token -1, and mean that there is none."""
    return key in ELSEWHERE or key.startswith("_") or (key == "pad_token_id" and value == -1)

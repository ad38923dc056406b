"""A model that others trained, as a backbone.

Shapes: B batch, L length, D dim.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepmine_auto.contracts import Mixed, Prepared
from deepmine_auto.errors import BadInput, first_line
from deepmine_auto.pretrained.files import AGAIN, architecture, folder_of, weights_of
from deepmine_auto.pretrained.memory import Memory
from deepmine_auto.pretrained.packing import Packing
from deepmine_auto.pretrained.peft import take_lengths
from deepmine_auto.pretrained.surgery import Attend, losses_of, operate
from deepmine_auto.pretrained.trust import trusted

HIDDEN_DROPOUT = (
    "hidden_dropout_prob", "hidden_dropout", "dropout", "dropout_rate", "resid_pdrop", "embd_pdrop", "emb_pdrop",
    "resid_dropout", "residual_dropout", "embed_dropout", "embedding_dropout", "mlp_dropout",
)  # fmt: skip
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
"""What the architectures of transformers call their dropout. That of attention is off: it keeps torch from its fused
kernel on the CPU, and the other one does its work."""


class PretrainedStack(nn.Module):
    """A model of transformers that reads token ids and writes a vector each.

    It is built with random weights, from what `prepared.architecture` says; `take_weights` gives it those that others
    trained. What it has for pooling is left away, because heads are the task's. `attention(shape)` takes the place of
    its own attention where it is something else than softmax. While it trains, it `packs` texts where it can.
    """

    def __init__(self, prepared: Prepared, attention: Attend, dropout: float, packs: bool = True) -> None:
        super().__init__()
        self.packs = packs
        self.architecture = _architecture(prepared)
        config = _config(self.architecture, dropout)
        self.model = _built(config)
        self.padding = int(config.pad_token_id or 0)
        self.dim = int(config.hidden_size)
        self.own = frozenset(self.model.state_dict())  # the names of what others trained
        operate(self.model, attention, prepared.max_len)
        self.memory: Memory | None = None
        self.packing: Packing | None = None
        self.given: Tensor | None = None
        self.asked = False

    def forward(self, tokens_BL: Tensor, keep_BL: Tensor, *, weights: bool = False) -> Mixed:
        """Return out (B, L, D); its weights are not known."""
        del weights
        self.given = None if self.memory is None else self.memory.recall(tokens_BL, keep_BL)
        try:
            out_BLD = self._read(tokens_BL.masked_fill(~keep_BL, self.padding), keep_BL)
            return Mixed(out_BLD, losses=losses_of(self))
        finally:
            self.given = None

    def _read(self, ids_BL: Tensor, keep_BL: Tensor) -> Tensor:
        if self.packing and self.training and not self.asked:
            packed_BLD = self.packing.read(self, ids_BL, keep_BL)
            if packed_BLD is not None:
                return packed_BLD
        out_BLD: Tensor = self.model(input_ids=ids_BL, attention_mask=keep_BL.long()).last_hidden_state
        return out_BLD

    def vectors(self, tokens_N: Tensor) -> Tensor:
        """What the model knows of tokens before it reads a text, (N, D)."""
        vectors_ND: Tensor = self.model.get_input_embeddings()(tokens_N)
        return vectors_ND

    def take_weights(self, name: str) -> None:
        """Take over the weights of a folder or of the hub. Raises BadInput where some are missing or do not fit."""
        given, state = weights_for(self.model, self.own, folder_of(name)), self.model.state_dict()
        wrapped = {key: key.replace(".base_layer", "") for key in state}
        self.model.load_state_dict({key: given.get(wrapped[key], each) for key, each in state.items()})
        take_lengths(self.model)


def size_of(name: str) -> int:
    """The depth of a model, times its dim. Raises BadInput for one that cannot be built."""
    config = _config(architecture(folder_of(name)), 0.0)
    return int(getattr(config, "num_hidden_layers", 1) * config.hidden_size)


def _architecture(prepared: Prepared) -> dict[str, Any]:
    architecture = getattr(prepared, "architecture", None)
    if architecture is None:
        raise BadInput("A pretrained backbone has no architecture to build.", "Give --backbone the folder of a model.")
    return trusted(architecture, "What a pretrained model is built from")


def _config(architecture: Mapping[str, Any], dropout: float) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    plain = dict(architecture)
    try:
        config = AutoConfig.for_model(plain.pop("model_type"), **plain)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise BadInput(f"The model's config.json cannot be used: {first_line(error)}.", AGAIN) from error
    for name in HIDDEN_DROPOUT:
        if isinstance(getattr(config, name, None), float | int):
            setattr(config, name, dropout)
    for name in ATTENTION_DROPOUT:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config.use_cache = False
    if not hasattr(config, "hidden_size"):  # as where it is made of several models
        what = f"The architecture '{config.model_type}' does not say how long its vectors are."
        raise BadInput(what, "Choose a model that reads text alone.")
    return config


def _built(config: Any) -> Any:
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoModel, AutoModelForTextEncoding

    factory = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
    called = f"A model of the architecture '{config.model_type}'"
    if getattr(config, "is_encoder_decoder", False) and factory is AutoModel:
        what = f"{called} has a decoder too, and a text alone is read here."
        raise BadInput(what, "Choose an encoder, a decoder, or a t5, of which the encoder reads.")
    if getattr(config, "attention_type", None) == "block_sparse":
        what = f"{called} looks at blocks of a text only until it reads a short one, and at all of it ever after."
        raise BadInput(what, 'Write "attention_type": "original_full" into the config.json of its folder.')
    model = factory.from_config(config, dtype=torch.float32, trust_remote_code=False)
    _leave_pooling(model)
    if not _reads_words(model):
        raise BadInput(f"{called} reads no text.", "Choose another one.")
    if not _ignores_padding(model):
        what = f"{called} cannot be told what is padding, which would change its answers."
        raise BadInput(what, "Choose one that takes an attention mask.")
    return model


def _leave_pooling(model: Any) -> None:
    """Take away what pools. Some models call it without a look whether it is there, so what does nothing stays."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = nn.Identity()


def _reads_words(model: Any) -> bool:
    try:
        return isinstance(model.get_input_embeddings(), nn.Embedding)
    except NotImplementedError:
        return False


def _ignores_padding(model: Any) -> bool:
    """Whether padding changes nothing: a model is told of it, or goes from word to word and reads it last."""
    return "attention_mask" in inspect.signature(model.forward).parameters or bool(model._is_stateful)


def weights_for(model: Any, own: frozenset[str], folder: Path) -> dict[str, Tensor]:
    """The weights of a folder, by the names that a model of this architecture and configuration has for them. Raises
    BadInput where some of its `own` are missing, do not fit, or cannot be read."""
    weights_of(folder)
    found, told = _read(type(model), model.config, folder)
    _leave_pooling(found)
    given: dict[str, Tensor] = found.state_dict()
    lacking = sorted(own.intersection(told["missing_keys"]) | own.difference(given))
    if lacking:
        what = f"The weights in {folder} lack {len(lacking)} that the model needs, such as '{lacking[0]}'."
        raise BadInput(what, "Give the folder of a whole model.")
    return given


def _read(kind: Any, config: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    """A model with the weights of a folder, and what transformers tells of them. Raises BadInput where they cannot be
    read, or are of other shapes."""
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True, "dtype": torch.float32}
    try:
        with torch.random.fork_rng(devices=[]):  # it draws what it does not find, on the CPU
            found, told = kind.from_pretrained(folder, config=config, **options)
    except (RuntimeError, SafetensorError) as error:
        what = (
            f"The weights in {folder} are not those of the model in its config.json ({type(error).__name__}: {error})."
        )
        raise BadInput(what, AGAIN) from error
    return found, told

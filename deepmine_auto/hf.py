"""`import deepmine_auto.hf` lets transformers load our bundles: AutoConfig, AutoTokenizer,
AutoModelForSequenceClassification and `pipeline("text-classification", model=FOLDER)`.

Bundles carry no code, so transformers knows our architecture from this import alone. Every road leads through the
bundle's own checks, and what comes out is what `deepmine_auto.load(FOLDER)` gives. An ensemble is several models, which
may read other tokens each, and is refused.

Shapes: B batch, L length, C classes.
"""

# transformers says nothing of its types to mypy, so its classes are Any there
# mypy: disallow_subclassing_any=False

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from deepmine_auto.bundle.load import load
from deepmine_auto.bundle.manifest import checked
from deepmine_auto.bundle.plain import MODEL_TYPE, read_config, read_json
from deepmine_auto.classification import TextPrepared
from deepmine_auto.ensemble.load import ENSEMBLE_TYPE
from deepmine_auto.errors import BadInput
from deepmine_auto.model.assemble import Model
from deepmine_auto.pretrained.stack import PretrainedStack

NOT_OURS = ("quantization_config", "device_map", "state_dict", "adapter_kwargs", "gguf_file", "variant")


def _beyond_the_hub(adapter: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is asked of an adapter beside where it lies, which transformers always says where peft is installed."""
    return {name: each for name, each in (adapter or {}).items() if name not in ("revision", "token")}


def _dtype(wanted: Any) -> torch.dtype | None:
    """The type that weights are cast to, which may be named; None where they stay as they are. Raises BadInput."""
    if wanted in (None, "auto"):
        return None
    found = getattr(torch, wanted, None) if isinstance(wanted, str) else wanted
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise BadInput(f"A bundle cannot be loaded as {wanted!r}.", "Give float32, float16 or bfloat16.")
    return found


class DeepmineConfig(PreTrainedConfig):
    """What config.json says; `deepmine` holds the task and the params that the model is built from."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make the configuration of a bundle, which is checked. Raises BadInput."""
        folder = kwargs.get("name_or_path")
        if folder is not None:
            checked(Path(folder))
            read_config(Path(folder))
        labels = config_dict.get("id2label", {})
        named = {**config_dict, "label2id": {label: int(at) for at, label in labels.items()}}
        return super().from_dict(named, **kwargs)


class DeepmineEnsembleConfig(PreTrainedConfig):
    """What an ensemble's config.json says: that it is one."""

    model_type = ENSEMBLE_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Raise BadInput, with the way that an ensemble is loaded."""
        del config_dict
        what = f"{kwargs.get('name_or_path')} is an ensemble, and transformers loads one model."
        raise BadInput(what, "Load it with `deepmine_auto.load`, or give the folder of a member.")


class DeepmineForSequenceClassification(PreTrainedModel):
    """A bundle's model under the name and the signature that transformers expects; the weights keep their names."""

    config_class = DeepmineConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"

    def __init__(self, config: DeepmineConfig, model: Model | None = None) -> None:
        super().__init__(config)
        if model is None:
            raise BadInput("A configuration alone makes no model.", "Load the bundle: `from_pretrained(FOLDER)`.")
        self.backbone, self.head = model.backbone, model.head
        self.post_init()

    def init_weights(self) -> None:
        """Leave the weights as the bundle has them, those too that were put into a model of transformers: it would draw
        them again."""

    @classmethod
    def from_pretrained(cls, folder: Any, *_: Any, config: DeepmineConfig | None = None, **options: Any) -> Any:
        """Load a checked bundle, cast to `dtype` if given. Raises BadInput, also for options that change weights."""
        asked = {**options, "adapter_kwargs": _beyond_the_hub(options.get("adapter_kwargs"))}
        for name in NOT_OURS:
            if asked.get(name):
                raise BadInput(f"A bundle cannot be loaded with {name}.", "Leave it out.")
        bundle = load(folder)
        config = config or DeepmineConfig.from_dict(dict(bundle.config), name_or_path=str(folder))
        dtype = _dtype(options.get("dtype", options.get("torch_dtype")))
        model = cls(config, bundle.model.cpu()).eval()  # as transformers does: whoever wants a GPU moves it there
        return model if dtype is None else model.to(dtype)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Return logits (B, C) for input_ids and attention_mask (B, L), 1 for real tokens; labels (B,) add a loss."""
        keep_BL = self._real(input_ids) if attention_mask is None else attention_mask.bool()
        logits_BC = self.head(self.backbone(input_ids, keep_BL).out, keep_BL)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits_BC, labels)
        output = SequenceClassifierOutput(loss=loss, logits=logits_BC)
        return output.to_tuple() if return_dict is False else output

    def _real(self, input_ids: Tensor) -> Tensor:
        """Which tokens (B, L) are no padding: all, where a pretrained model has no token for it, and what fills rows up
        may be a word."""
        real_BL: Tensor = input_ids != self.config.pad_token_id
        has_none = isinstance(self.backbone, PretrainedStack) and self.backbone.model.config.pad_token_id is None
        return torch.ones_like(real_BL) if has_none else real_BL


class DeepmineTokenizer(PreTrainedTokenizerFast):
    """A bundle's tokenizer: long texts are always cut, "[PAD]" in a text is text, an empty text is one unknown word."""

    model_input_names = ["input_ids", "attention_mask"]
    prepared: TextPrepared

    @classmethod
    def from_pretrained(cls, folder: Any, *_: Any, **__: Any) -> DeepmineTokenizer:
        """Load a checked bundle's tokenizer. Raises BadInput."""
        place = Path(folder)
        checked(place)
        read_config(place)
        options = read_json(place / "tokenizer_config.json").plain
        options.pop("tokenizer_class", None)
        prepared = TextPrepared.load(place)
        made = cls(tokenizer_object=prepared.tokenizer, name_or_path=str(folder), **options)
        made.prepared = prepared
        return made

    def _encode_plus(self, text: str | Sequence[str], text_pair: Any = None, **options: Any) -> BatchEncoding:
        """Do what `deepmine_auto.load(FOLDER)` does with texts; padding and tensors are transformers' own."""
        if text_pair is not None:
            raise BadInput("A text pair was given, and this model reads single texts.", "Join the two.")
        if options.get("is_split_into_words"):
            raise BadInput("Words were given, and this model reads whole texts.", "Join them with blanks.")
        texts = [text] if isinstance(text, str) else text
        limit = min(options.get("max_length") or self.model_max_length, self.model_max_length)
        ids = self.prepared.ids(texts, limit)
        padded = self.pad(
            {"input_ids": ids},
            padding=options["padding_strategy"],
            max_length=options.get("max_length"),
            pad_to_multiple_of=options.get("pad_to_multiple_of"),
            padding_side=options.get("padding_side"),
        )
        tensors = options.get("return_tensors")
        if isinstance(text, str) and tensors is None:
            return BatchEncoding({name: rows[0] for name, rows in padded.items()})
        return BatchEncoding(dict(padded), tensor_type=tensors)


AutoConfig.register(MODEL_TYPE, DeepmineConfig, exist_ok=True)
AutoConfig.register(ENSEMBLE_TYPE, DeepmineEnsembleConfig, exist_ok=True)
AutoModelForSequenceClassification.register(DeepmineConfig, DeepmineForSequenceClassification, exist_ok=True)
AutoTokenizer.register(DeepmineConfig, fast_tokenizer_class=DeepmineTokenizer, exist_ok=True)

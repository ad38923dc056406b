"""The architectures that are named as those whose attention can be replaced are such."""

import originals
import pytest
import torch
from tiny_texts import rows

from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.model.assemble import build_model
from deepmine_auto.model.multi_head import token_mixer
from deepmine_auto.pretrained import surgery
from deepmine_auto.pretrained.files import original_of
from deepmine_plugins.attention.sliding_window import SlidingWindow
from deepmine_plugins.tasks.text_classification import OwnTexts


def windowed(folder):
    params = {
        "attention/kind": "sliding_window", "model/kind": "pretrained", "model/pretrained/origin": str(folder),
        "model/pretrained/dropout": 0.0,
    }  # fmt: skip
    task = OwnTexts()
    return build_model(params, task, task.prepare_for(rows(), original_of(str(folder))), the_host()).backbone.eval()


@pytest.mark.parametrize("architecture", surgery.REPLACEABLE)
def test_what_is_named_takes_another_attention_in_every_layer(tmp_path, architecture):
    stack = windowed(getattr(originals, architecture)(tmp_path / architecture))
    assert stack.model.config.model_type == architecture
    put_in = [each for each in stack.modules() if isinstance(each, surgery.Transplant)]
    assert [each.mixing.variants[0].name for each in put_in] == ["sliding_window"] * 3
    with torch.no_grad():
        out_BLD = stack(torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.bool)).out
    assert out_BLD.isfinite().all()


def test_a_model_that_computes_its_attention_by_itself_is_refused_with_those_that_do_not():
    from transformers import MPNetConfig, MPNetModel

    model = MPNetModel(MPNetConfig(vocab_size=40, max_position_embeddings=66, **originals.SIZES))
    named = ", ".join(surgery.REPLACEABLE)
    told = rf"^MPNetModel computes .* as it can in {named}\. .* multi_head alone, or choose such a model\.$"
    with pytest.raises(BadInput, match=told):
        surgery.operate(model, lambda shape: token_mixer(SlidingWindow(), [], shape), max_len=64)

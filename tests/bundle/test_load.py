"""A loaded bundle answers as the trained model did, with light imports, and only where it would still be the same."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

import deepmine_auto
from deepmine_auto.bundle import load as loading
from deepmine_auto.bundle import manifest
from deepmine_auto.bundle.weights import WEIGHTS, load_weights, save_weights
from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.model.meta import on_meta
from deepmine_auto.model.multi_head import MultiHead


def _resealed(folder, **changed):
    """Write the manifest anew, as a stranger could."""
    plain = manifest.checked(tiny.bundle())
    (folder / manifest.MANIFEST).unlink()
    manifest.write(folder, {**{name: each for name, each in plain.items() if name != "files"}, **changed})
    return folder


def _with_params(folder, **changed):
    config = json.loads((folder / "config.json").read_text())
    config["deepmine"]["params"].update(changed)
    (folder / "config.json").write_text(json.dumps(config))
    return _resealed(folder)


def test_outputs_are_those_of_the_trained_model():
    inputs, expected = tiny.asked()
    found = deepmine_auto.load(tiny.bundle()).outputs(inputs)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_answers_carry_label_and_probabilities_that_sum_to_one():
    bundle = deepmine_auto.load(tiny.bundle())
    (answer,) = bundle.predict("so good")
    assert answer["label"] in bundle.labels == ("negative", "positive")
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert bundle.predict([]) == []


def test_loading_does_not_move_the_callers_seed():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    deepmine_auto.load(tiny.bundle())
    assert torch.equal(torch.rand(1), expected)


def test_what_is_no_text_is_refused():
    with pytest.raises(BadInput, match="3 is no text"):
        deepmine_auto.load(tiny.bundle()).predict([3])


def test_load_and_predict_import_none_of_the_heavy_libraries():
    code = (
        "import sys, deepmine_auto\n"
        "deepmine_auto.load(sys.argv[1]).predict('hello')\n"
        "heavy = {'optuna', 'ray', 'transformers', 'sklearn', 'pandas', 'pyarrow', 'sqlalchemy'}\n"
        "print(sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, tiny.bundle()], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- plugins that are missing, or others than they were ----------------------------------------------------------------


def test_a_missing_plugin_is_named_with_the_version_that_brings_it(tmp_path):
    folder = _with_params(tiny.copy(tmp_path), **{"attention/kind": "starlight"})
    told = {"kind": "attention", "name": "starlight", "distribution": "star", "version": "1.2", "hash": ""}
    _resealed(folder, plugins=[told])
    with pytest.raises(
        BadInput, match=r"needs the attention 'starlight', which cannot be used here\. Install star==1\.2"
    ):
        deepmine_auto.load(folder)


def test_code_that_computes_something_else_is_refused_with_both_versions(monkeypatch):
    forward = MultiHead.forward

    def changed(*args, **options):
        mixed, state = forward(*args, **options)
        return mixed._replace(out=2 * mixed.out), state

    monkeypatch.setattr(MultiHead, "forward", changed)
    brought = the_host().brought("attention", "multi_head")
    monkeypatch.setitem(the_host().offered("attention"), "multi_head", replace(brought, version="9.9", hash="other"))
    told = r"computes something else .* deepmine-auto 0\.1\.0, .* 'multi_head' of deepmine-auto 0\.1\.0 \(here 9\.9\)"
    with pytest.raises(BadInput, match=told):
        deepmine_auto.load(tiny.bundle())


def test_changed_code_that_computes_the_same_is_welcome(monkeypatch):
    brought = the_host().brought("attention", "multi_head")
    monkeypatch.setitem(the_host().offered("attention"), "multi_head", replace(brought, hash="other"))
    assert deepmine_auto.load(tiny.bundle()).predict("hello")


# -- what a stranger may send ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed", [{"model/dim": "wide"}, {"model/heads": 5}, {"model/dim": 64}, {"model/depth": None}]
)
def test_params_that_do_not_fit_are_refused_in_a_sentence(tmp_path, changed):
    with pytest.raises(BadInput, match=r"cannot be built here|do not divide|not of the size of its weights"):
        deepmine_auto.load(_with_params(tiny.copy(tmp_path), **changed))


@pytest.mark.parametrize("changed", [{"model/dim": 2**17}, {"model/depth": 3}])
def test_a_model_that_is_larger_than_its_weights_is_refused_before_it_is_allocated(tmp_path, monkeypatch, changed):
    allocated = []
    build = loading.build_model
    monkeypatch.setattr(loading, "build_model", lambda *given: allocated.append(torch.empty(0).device) or build(*given))
    with pytest.raises(BadInput, match=r"describes is not of the size of its weights"):
        deepmine_auto.load(_with_params(tiny.copy(tmp_path), **changed))
    assert [each.type for each in allocated] == ["meta"]


def test_tables_that_no_file_brings_have_a_limit(monkeypatch):
    monkeypatch.setattr(loading, "MOST_BYTES_BESIDE", -1)
    with pytest.raises(BadInput, match=r"describes is not of the size of its weights"):
        deepmine_auto.load(tiny.bundle())


def gpt_neo():
    """As deep as the largest, whose blocks have a mask of 2048 x 2048 each that no file brings."""
    from transformers import GPTNeoConfig, GPTNeoModel

    kinds = [[["global", "local"], 16]]
    return GPTNeoModel(GPTNeoConfig(vocab_size=8, hidden_size=16, num_heads=2, num_layers=32, attention_types=kinds))


def test_tables_are_measured_in_bytes_so_that_the_masks_of_a_deep_model_may_stand_beside_its_weights(
    tmp_path, monkeypatch
):
    with on_meta():
        shapes = {name: each.shape for name, each in gpt_neo().state_dict().items()}
    save_weights(tmp_path / WEIGHTS, {name: torch.zeros(each) for name, each in shapes.items()})
    loading._refuse_too_large(tmp_path, gpt_neo)
    monkeypatch.setattr(loading, "MOST_BYTES_BESIDE", 32 * 2048**2 - 1)
    with pytest.raises(BadInput, match=r"describes is not of the size of its weights"):
        loading._refuse_too_large(tmp_path, gpt_neo)


def test_a_plugin_that_computes_while_it_is_built_can_be_loaded(monkeypatch):
    build = loading.build_model

    def computing(*given):
        float(torch.ones(()))
        return build(*given)

    monkeypatch.setattr(loading, "build_model", computing)
    assert deepmine_auto.load(tiny.bundle()).predict("hello")


def test_other_weights_under_a_good_manifest_are_found_by_the_probe(tmp_path):
    folder = tiny.copy(tmp_path)
    weights = load_weights(folder / WEIGHTS)
    weights["head.to_classes.bias"] += 0.1
    save_weights(folder / WEIGHTS, weights)
    with pytest.raises(BadInput, match="computes something else"):
        deepmine_auto.load(_resealed(folder))


@pytest.mark.parametrize(
    "changed", [{"plugins": 3}, {"plugins": [{}]}, {"probe": None}, {"versions": [1]}, {"probe": ["a"]}]
)
def test_a_manifest_of_other_shapes_is_refused_in_a_sentence(tmp_path, changed):
    with pytest.raises(BadInput, match="does not tell what a bundle's manifest must"):
        deepmine_auto.load(_resealed(tiny.copy(tmp_path), **changed))


def test_a_foreign_tokenizer_is_refused(tmp_path):
    folder = tiny.copy(tmp_path)
    plain = json.loads((folder / "tokenizer.json").read_text())
    plain["pre_tokenizer"]["pattern"]["Regex"] = "(a+)+$"
    (folder / "tokenizer.json").write_text(json.dumps(plain))
    with pytest.raises(BadInput, match="is no tokenizer of ours"):
        loading.load(_resealed(folder))


def test_loading_does_not_wait_for_the_compiler_of_torch():
    """On the meta device, where a model is measured before it is allocated, some functions would import it."""
    code = "import deepmine_auto, sys; deepmine_auto.load(sys.argv[1]); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tiny.bundle())], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"

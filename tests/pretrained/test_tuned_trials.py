"""What is learned beside a pretrained model goes through a trial and into a bundle as everything else does."""

import json
import math
from dataclasses import replace

import originals
import pytest
import torch
from tiny_texts import assignment, kept, rows

import deepmine_auto
from deepmine_auto.host import the_host
from deepmine_auto.messages import Beat, Reported
from deepmine_auto.pretrained.healing import Healer
from deepmine_auto.training import checkpoint
from deepmine_auto.training.loop import Training
from deepmine_plugins.techniques.mixed_precision import autocast

NEW = ["adalora", "prefix", "prompt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study") / "study")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return originals.bert(tmp_path_factory.mktemp("model") / "bert")


def work(folder, bert, tuning, number, halvings=0, **changed):
    params = {
        "model/kind": "pretrained", "model/pretrained/origin": str(bert), "model/pretrained/dropout": 0.1,
        "tuning/kind": tuning, "data/tokens": "subword", "training/epochs": 3, "optimizer/adamw/lr": 1e-2, **changed,
    }  # fmt: skip
    return assignment(folder, number=number, halvings=halvings, params=params)


def run(asked):
    return [each for each in Training(asked, the_host()).messages() if not isinstance(each, Beat)]


def reports(messages):
    return [each for each in messages if isinstance(each, Reported)]


def same(messages):
    return [
        (each.step, {name: n for name, n in each.metrics.items() if name != "latency_ms"})
        if isinstance(each, Reported)
        else (each.cause, each.value, each.step)
        for each in messages
    ]


@pytest.mark.parametrize("tuning", NEW)
def test_a_training_interrupted_after_any_report_goes_on_bit_for_bit(folder, bert, tuning, monkeypatch):
    monkeypatch.setattr(Training, "_due", lambda self: True)
    asked = work(folder, bert, tuning, NEW.index(tuning), **{"training/epochs": 2})
    whole = run(asked)
    last = checkpoint.load(folder / reports(whole)[-1].checkpoint)[0]
    for at, message in enumerate(whole[:-1]):
        torch.manual_seed(at)
        again = run(replace(asked, attempt=2 + at, checkpoints=(message.checkpoint,)))
        assert same(again) == same(whole[at + 1 :]), f"interrupted after step {message.step}"
        if reports(again):
            tensors = checkpoint.load(folder / reports(again)[-1].checkpoint)[0]
            assert all(torch.equal(each, tensors[name]) for name, each in last.items())


@pytest.mark.parametrize("tuning", NEW)
def test_a_trial_learns_by_it(folder, bert, tuning):
    told = reports(run(work(folder, bert, tuning, 10 + NEW.index(tuning), **{"optimizer/adamw/lr": 3e-3})))
    assert told[-1].value < told[0].value


def test_what_is_to_be_paid_for_skew_is_reported_by_name_and_falls(folder, bert):
    told = reports(run(work(folder, bert, "adalora", 20, **{"tuning/adalora/price": 0.5})))
    prices = [each.metrics["loss/orthogonality"] for each in told]
    assert prices[0] > prices[-1] > 0.0


def test_a_batch_in_parts_pays_for_skew_once(folder, bert):
    training, halved = (Training(work(folder, bert, "adalora", 30, each), the_host()) for each in (0, 2))
    batch = training.train.batch(range(16), training.device)
    whole, parts = (each.forward(batch.tokens_BL, batch.keep_BL).losses for each in (training, halved))
    torch.testing.assert_close(parts["orthogonality"], whole["orthogonality"])


def test_ranks_are_taken_away_while_a_trial_trains(folder, bert):
    training = Training(work(folder, bert, "adalora", 31), the_host())
    assert [*training.messages()]
    kept_R = torch.cat([each for name, each in training.model.named_buffers() if name.endswith("kept_R")])
    matrices = sum(name.endswith("gains_R") for name, _ in training.model.named_parameters())
    assert (int(kept_R.sum()), len(kept_R)) == (8 * matrices, 12 * matrices)


@pytest.mark.parametrize("tuning", NEW)
def test_it_learns_in_mixed_precision(folder, bert, tuning):
    training = Training(work(folder, bert, tuning, 40), the_host())
    autocast(training.model, "cpu", torch.bfloat16)
    batch = training.train.batch(range(16), training.device)
    training.model.train()(batch.tokens_BL, batch.keep_BL).out.square().sum().backward()
    beside = [name for name, each in training.model.backbone.named_parameters() if each.requires_grad]
    assert all(training.model.backbone.get_parameter(name).grad.isfinite().all() for name in beside)


@pytest.mark.parametrize("tuning", NEW)
def test_the_weights_that_a_technique_judges_are_those_beside_the_model_too(folder, bert, tuning):
    changed = {"technique/ema/use": True, "technique/denoising/use": True, "technique/fgm/use": True}
    told = reports(run(work(folder, bert, tuning, 50 + NEW.index(tuning), **changed)))
    assert all(torch.tensor(each.value).isfinite() for each in told)


# -- healing -----------------------------------------------------------------------------------------------------------


def test_a_model_behind_a_prompt_heals_in_its_words(folder, bert):
    params = {"attention/kind": "sliding_window", "model/pretrained/dropout": 0.0}
    training = Training(work(folder, bert, "prompt", 60, **params), the_host())
    healer, batch = Healer(training.model.backbone), training.train.batch(range(8), training.device)
    assert healer.before.model.before is not training.model.backbone.model.before
    training.model.companions.append(healer)
    mixed = training.model.train()(batch.tokens_BL, batch.keep_BL)
    assert mixed.losses["healing"] < 1e-9, "a window wider than the texts has nothing to heal"
    with torch.no_grad():
        training.model.backbone.model.before.vectors.added_PE.normal_()
    assert training.model(batch.tokens_BL, batch.keep_BL).losses["healing"] > 1e-6


def test_a_trial_with_other_attention_and_a_prompt_heals(folder, bert):
    changed = {"attention/kind": "sigmoid", "technique/healing/use": True}
    assert reports(run(work(folder, bert, "prompt", 61, **changed)))


# -- bundles -----------------------------------------------------------------------------------------------------------

SPACE = """
[plugins]
attention = ["multi_head"]
backbone = ["pretrained"]
tuning = ["{tuning}"]
optimizer = ["adamw"]
[ranges]
"training/epochs" = 2
"training/batch" = 32
"optimizer/adamw/lr" = 1e-2
"data/tokens" = "subword"
"""


@pytest.mark.slow
@pytest.mark.parametrize("tuning", NEW)
def test_a_bundle_holds_what_was_learned_and_says_the_same(tmp_path, bert, tuning):
    made = rows()
    lines = [f'"{text}",{label}' for text, label in zip(made.inputs, made.labels, strict=True)]
    (tmp_path / "moods.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    (tmp_path / "space.toml").write_text(SPACE.format(tuning=tuning))
    result = deepmine_auto.search(
        task="text_classification", data=str(tmp_path / "moods.csv"), backbone=str(bert), trials=1,
        space=str(tmp_path / "space.toml"), executor="inline", storage=str(tmp_path / "s.db"),
    )  # fmt: skip
    bundle = deepmine_auto.load(result.bundle)  # refuses what computes something else than it did when it was written
    params = json.loads((bundle.folder / "config.json").read_text())["deepmine"]["params"]
    names = [name for name, _ in bundle.model.named_parameters()]
    beside = [each for each in names if "gains_R" in each or "gate_H" in each or "added_PE" in each]
    layers = math.ceil(3 * params.get("tuning/prefix/top", 1.0))
    assert len(beside) == {"adalora": 0, "prefix": layers, "prompt": 1}[tuning]
    assert ("tuning/kind" in params) == (tuning != "adalora")
    assert bundle.predict(["good day", "the cold road of my house"])

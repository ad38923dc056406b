"""Shapes: B batch, L length, C classes, V vocabulary, E dim of word vectors."""

import os
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.func import functional_call

from deepmine_auto import Mixed, TrainingFacts
from deepmine_auto.testing.technique import (
    CLASSES,
    DIM,
    STEPS,
    VOCABULARY,
    Classifier,
    TechniquePromises,
    Words,
    batch_of,
    copied,
    gradients,
    loss_of,
    same_tensors,
    same_weights,
)
from deepmine_auto.training.parallel import LOOPBACK
from deepmine_auto.training.parts import InParts
from deepmine_auto.training.step import OneStep
from deepmine_auto.training.team import NEVER, Ranks
from deepmine_plugins.techniques.vat import Vat


class TestVat(TechniquePromises):
    technique = Vat


class Frozen(nn.Module):
    """A model whose table is frozen: before the first matrix that is trained stands a vector that is, and there is a
    layer that no pass uses."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(1)
            self.table = nn.Embedding(VOCABULARY, DIM, padding_idx=0).requires_grad_(False)
            self.scale = nn.Parameter(torch.ones(DIM))
            self.first = nn.Linear(DIM, 6)
            self.second = nn.Linear(6, CLASSES)
            self.idle = nn.Linear(2, 2)

    def forward(self, tokens_BL, keep_BL):
        x_BLD = torch.tanh(self.first(self.table(tokens_BL) * self.scale))
        return Mixed(self.second((x_BLD * keep_BL[..., None]).sum(1)))


class Placed(nn.Module):
    """A model whose first trained matrix is a table too, but one of positions."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(5, DIM)
        self.rest = Frozen()

    def forward(self, tokens_BL, keep_BL):
        far = self.positions(torch.arange(5)).sum() * torch.arange(CLASSES)
        return Mixed(self.rest(tokens_BL, keep_BL).out + far)


class Tagger(Classifier):
    """A model with an answer for each token, also where there is none."""

    def __init__(self):
        super().__init__(each_token=True)


def step_of(technique, model, forward, seed=0):
    """A step of the host in float64."""
    generator = torch.Generator().manual_seed(seed)
    applied = technique.build(TrainingFacts(model.double(), Words(), STEPS, generator))
    task = SimpleNamespace(loss=lambda outputs, targets, prepared: loss_of(outputs, targets))
    training = SimpleNamespace(techniques={"vat": applied}, forward=forward, task=task, model=model, prepared=None)
    return OneStep(training, batch_of(0))


def more_of(step, outputs=None):
    """What the technique adds to the loss."""
    (applied,) = step.training.techniques.values()
    return applied.more_loss(step, step.outputs() if outputs is None else outputs)


def whole(technique, model, parts=1):
    return step_of(technique, model, InParts(model, parts))


# -- the same, written plainly -----------------------------------------------------------------------------------------


def divergence(true, other):
    rows = slice(None) if true.ndim == 2 else batch_of(0).keep_BL
    p_NC, q_NC = true.softmax(-1)[rows], other.softmax(-1)[rows]
    return (p_NC * (p_NC / q_NC).log()).sum() / len(p_NC)


def plainly(chosen, model, name, rows):
    """The virtual adversarial loss as a function of a model's weights, and the place where the words then stand."""
    batch, weights = batch_of(0), dict(model.named_parameters())

    def outputs(weights, way):
        return functional_call(model, {**weights, name: weights[name] + way}, (batch.tokens_BL, batch.keep_BL)).out

    clean = outputs(weights, 0.0).detach()
    way = torch.zeros_like(weights[name])
    way[rows] = torch.randn(way[rows].shape, generator=torch.Generator().manual_seed(0)).double()
    close = outputs(weights, chosen.xi * way / way.norm())
    (slope,) = torch.autograd.grad(divergence(clean, close), weights[name])
    far = chosen.epsilon * slope / slope.norm()
    return lambda weights: chosen.alpha * divergence(clean, outputs(weights, far))


READ = batch_of(0).tokens_BL.unique()[1:]
MODELS = {
    "a table": (Classifier, "backbone.table.weight", READ),
    "a frozen table": (Frozen, "first.weight", torch.arange(6)),
    "an answer for each token": (Tagger, "backbone.table.weight", READ),
}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("kind", "name", "rows"), MODELS.values(), ids=MODELS)
def test_loss_and_gradients_are_the_papers_written_plainly_also_in_parts(kind, name, rows, parts):
    chosen, model = Vat(alpha=1.5, epsilon=0.8), kind()
    ours = more_of(whole(chosen, model, parts))
    loss = plainly(chosen, model, name, rows)(dict(model.named_parameters()))
    assert loss > 1e-4
    torch.testing.assert_close(ours, loss.detach(), rtol=1e-9, atol=0.0)
    trained = [each for each in model.parameters() if each.requires_grad]
    expected = torch.autograd.grad(loss, trained, materialize_grads=True)
    found = torch.autograd.grad(3.0 * ours, trained, materialize_grads=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, 3.0 * other, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_every_weight_is_that_of_finite_differences():
    model, by = Frozen(), 1e-6
    step = whole(Vat(), model)
    loss = plainly(Vat(), model, *MODELS["a frozen table"][1:])
    step.backward(more_of(step))
    weights = {name: each.detach().clone() for name, each in model.named_parameters()}
    for name, slope in gradients(model).items():
        for at in range(slope.numel()):
            up, down = ({**weights, name: weights[name].clone()} for _ in range(2))
            up[name].view(-1)[at] += by
            down[name].view(-1)[at] -= by
            assert slope.view(-1)[at].item() == pytest.approx(((loss(up) - loss(down)) / (2 * by)).item(), abs=1e-7)


def test_the_gradients_of_the_clean_pass_are_its_own():
    """Its graph was made before the words moved, and is used afterwards."""
    model = Frozen()
    step = whole(Vat(), model)
    outputs_BC = step.outputs()
    more_of(step, outputs_BC)
    step.backward(step.loss(outputs_BC))
    ours = copied(gradients(model))
    model.zero_grad()
    step.backward(step.loss(step.outputs()))
    assert same_tensors(ours, gradients(model))


# -- what stays as it is -----------------------------------------------------------------------------------------------


def test_weights_and_gradients_that_are_there_stay_as_they_are():
    model = Classifier()
    step = whole(Vat(), model)
    step.backward(step.loss(step.outputs()))
    before = copied(gradients(model))
    more_of(step)
    assert same_tensors(gradients(model), before)
    assert same_weights(model, Classifier().double())


def tables(technique, model):
    """The tables of words with which the four passes are made."""
    seen = []
    step = whole(technique, model)
    model.register_forward_pre_hook(lambda model, _: seen.append(model.backbone.table.weight.detach().clone()))
    more_of(step)
    return seen


def test_padding_and_words_that_are_not_in_the_batch_do_not_move():
    clean_VE, here_VE, close_VE, far_VE = tables(Vat(epsilon=0.8), Classifier())
    assert torch.equal(here_VE, clean_VE)
    assert 1 < len(READ) < VOCABULARY - 1
    for moved_VE, length in ((close_VE, 0.1), (far_VE, 0.8)):
        assert set((moved_VE != clean_VE).any(1).nonzero().flatten().tolist()) == set(READ.tolist())
        assert (moved_VE - clean_VE).norm().item() == pytest.approx(length)


def test_padding_does_not_move_where_its_vector_has_a_say():
    class Padded(Classifier):
        def __init__(self):
            super().__init__()
            table = self.backbone.table
            self.backbone.table = nn.Embedding.from_pretrained(table.weight.detach() + 1.0, freeze=False)

        def forward(self, tokens_BL, keep_BL):
            return super().forward(tokens_BL, torch.ones_like(keep_BL))

    clean_VE, _, *moved = tables(Vat(), Padded())
    assert all(torch.equal(each[0], clean_VE[0]) and not torch.equal(each, clean_VE) for each in moved)


def test_a_table_of_positions_is_not_taken_for_one_of_words():
    loss = more_of(whole(Vat(), Placed()))
    assert loss.isfinite()
    assert loss > 0


def test_each_step_draws_another_way():
    model = Classifier()
    step = whole(Vat(), model)
    assert more_of(step) != more_of(step)


# -- chance and faults ------------------------------------------------------------------------------------------------


class Dropping(Classifier):
    """A model that drops out a share of what it knows of words."""

    def __init__(self, share):
        super().__init__()
        self.dropout = nn.Dropout(share)

    def forward(self, tokens_BL, keep_BL):
        real_BL1 = keep_BL[..., None]
        mean_BD = self.dropout((self.backbone.table(tokens_BL) * real_BL1).sum(1) / real_BL1.sum(1))
        return Mixed(self.head.to_classes(self.backbone.frozen(mean_BD)))


def test_the_passes_that_are_compared_for_the_way_have_one_dropout_and_those_of_the_loss_have_their_own():
    model, seen = Dropping(0.5), []
    step = whole(Vat(xi=0.0), model)
    model.register_forward_hook(lambda _, __, mixed: seen.append(mixed.out.detach()))
    torch.manual_seed(0)
    more_of(step)
    clean_BC, here_BC, close_BC, far_BC = seen
    assert torch.equal(here_BC, close_BC)
    assert not torch.equal(clean_BC, here_BC)
    assert not torch.equal(close_BC, far_BC)


def way_of(share, seed=0):
    """The way of one of many batches' words, as a vector of length 1."""
    model = Dropping(share)
    step = whole(Vat(), model)
    torch.manual_seed(seed)
    (applied,) = step.training.techniques.values()
    return applied._worst(step, model.backbone.table.weight).flatten()


def test_the_way_with_dropout_is_near_the_one_without():
    still = way_of(0.0)
    near = torch.stack([way_of(0.1, seed) @ still for seed in range(20)])
    assert near.mean() > 0.9


class Overflowing(Classifier):
    """A model whose gradients are too large for its numbers."""

    def forward(self, tokens_BL, keep_BL):
        mixed = super().forward(tokens_BL, keep_BL)
        if mixed.out.requires_grad:
            mixed.out.register_hook(lambda slope_BC: slope_BC * torch.inf)
        return mixed


def test_where_gradients_overflow_no_word_moves_and_the_loss_is_finite():
    assert more_of(whole(Vat(), Overflowing())) == 0.0


def test_where_targets_are_no_classes_nothing_is_added():
    step = whole(Vat(), Classifier())
    step.batch = step.batch._replace(targets=torch.rand(4))
    assert more_of(step) is None


# -- several workers ---------------------------------------------------------------------------------------------------


def work(rank, size, meeting, found):
    """Take a step as one of several, and put its gradients down."""
    os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    for kind in (Classifier, Frozen):
        model = kind().double()
        team = Ranks(rank, size, torch.device("cpu"), SimpleNamespace(value=NEVER))
        torch.save(learned(model, team.over(InParts(model, 2))), f"{found}-{kind.__name__}-{rank}")
    dist.destroy_process_group()


def learned(model, forward):
    """The gradients of two steps."""
    step = step_of(Vat(), model, forward)
    for _ in range(2):
        outputs_BC = step.outputs()
        loss = step.loss(outputs_BC) + more_of(step, outputs_BC)
        step.backward(loss)
    return gradients(model)


@pytest.mark.slow
def test_several_workers_have_the_gradients_of_one(tmp_path):
    """Their shares are uneven: of four rows the first two of three ranks have one each, and the last has two."""
    args = 3, (tmp_path / "meeting").as_uri(), str(tmp_path / "found")
    ranks = [get_context("spawn").Process(target=work, args=(each, *args), daemon=True) for each in range(3)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join()
    assert [each.exitcode for each in ranks] == [0, 0, 0]
    for kind in (Classifier, Frozen):
        model = kind().double()
        one = learned(model, InParts(model, 1))
        for rank in range(3):
            several = torch.load(tmp_path / f"found-{kind.__name__}-{rank}")
            torch.testing.assert_close(several, one, rtol=1e-9, atol=1e-12)

"""AdaLoRA gives its ranks to where the loss feels them."""

import torch
from torch import nn

from deepmine_auto.testing.tuning import train, tuned
from deepmine_plugins.tunings.adalora import AdaLora, _Budget, _Ranks


def layers_of(model):
    return [each for each in model.modules() if isinstance(each, _Ranks)]


def budget_of(model):
    return next(each for each in model.modules() if isinstance(each, _Budget))


def kept(model):
    return sum(int(each.kept_R.sum()) for each in layers_of(model))


def trained(model, steps, upto=1.0):
    """The model after some steps, the budget told after each."""
    for step in range(steps):
        train(model, 1)
        budget_of(model).step(upto * (step + 1) / steps)
    return model


def test_ranks_are_taken_away_until_half_of_the_training_and_then_stay():
    model = tuned(AdaLora(rank=2, targets="attention"))
    counts, sets = [], []
    for step in range(40):
        trained(model, 1, upto=(step + 1) / 40)
        counts.append(kept(model))
        sets.append(torch.cat([each.kept_R for each in layers_of(model)]).clone())
    layers = len(layers_of(model))
    assert layers == 12
    assert counts[:3] == [3 * layers] * 3
    assert counts == sorted(counts, reverse=True)
    assert counts[19:] == [2 * layers] * 21
    assert all(torch.equal(each, sets[19]) for each in sets[19:])
    assert (counts[4] - counts[8]) > (counts[15] - counts[19]), "most are taken away early"


def test_what_was_taken_away_has_no_gain():
    model = trained(tuned(AdaLora(rank=2)), 20)
    assert all(torch.equal(each.gains_R != 0, each.kept_R) for each in layers_of(model))


def test_a_training_of_a_few_steps_ends_with_what_was_promised():
    for steps in (1, 2, 3, 7):
        model = trained(tuned(AdaLora(rank=2)), steps)
        assert kept(model) == 2 * len(layers_of(model))


def test_those_are_kept_that_the_loss_feels():
    layers = [_Ranks(nn.Linear(3, 5), 2, 1.0) for _ in range(3)]
    budget = _Budget(layers, 2, 0.1)
    for step in range(5):
        for at, layer in enumerate(layers):
            layer.gains_R.data.fill_(1.0)
            for each in (layer.columns_OR, layer.rows_RI, layer.gains_R):
                each.grad = torch.zeros_like(each)
            if at == 1:
                layer.gains_R.grad[0] = layer.columns_OR.grad[0, 1] = 1.0
        budget.step((step + 1) / 5)
    assert [each.kept_R.tolist() for each in layers if each.kept_R.any()] == [[True, True]]
    assert layers[1].kept_R.all()


def test_how_much_a_rank_matters_is_the_definition_of_the_paper():
    torch.manual_seed(0)
    layer = _Ranks(nn.Linear(3, 5), 2, 1.0).double()
    nn.init.normal_(layer.gains_R)
    felt, unsure = {}, {}
    for _ in range(4):
        for name, each in (("columns", layer.columns_OR), ("rows", layer.rows_RI), ("gains", layer.gains_R)):
            each.grad = torch.randn_like(each)
            now = (each * each.grad).abs()
            felt[name] = 0.85 * felt.get(name, 0.0) + 0.15 * now
            unsure[name] = 0.85 * unsure.get(name, 0.0) + 0.15 * (now - felt[name]).abs()
        with torch.no_grad():
            layer.feel()
    columns, rows, gains = (felt[name] * unsure[name] for name in ("columns", "rows", "gains"))
    torch.testing.assert_close(layer.matter_R(), gains + columns.mean(0) + rows.mean(1))


def test_orthogonal_columns_and_rows_cost_nothing_and_others_what_they_lack():
    layer = _Ranks(nn.Linear(4, 4), 3, 1.0)
    with torch.no_grad():
        layer.columns_OR.copy_(torch.eye(4)[:, :3])
        layer.rows_RI.copy_(torch.eye(4)[:3])
    assert layer.skew() == 0.0
    with torch.no_grad():
        layer.rows_RI[0] = 2 * layer.rows_RI[0]
    assert layer.skew() == 3.0
    assert _Budget([layer, layer], 3, 0.5).extra_losses()["orthogonality"] == 1.5
    assert _Budget([layer], 3, 0.5).eval().extra_losses() == {}


def test_the_layer_begins_near_to_what_costs_nothing():
    layer = _Ranks(nn.Linear(512, 512), 12, 1.0)
    assert layer.skew() < 2.0


def test_a_step_without_gradients_is_felt_by_nobody():
    model = tuned(AdaLora(rank=2))
    budget_of(model).step(0.01)
    assert all(not each.felt_RN.any() for each in layers_of(model))

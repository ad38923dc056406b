"""The learning rate over steps: warm-up, and after it what the schedule says."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_texts import assignment, kept
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR
from transformers import get_inverse_sqrt_schedule, get_wsd_schedule

from deepmine_auto.errors import BadInput
from deepmine_auto.host import the_host
from deepmine_auto.testing.drawing import drawn
from deepmine_auto.training.loop import Training
from deepmine_auto.training.recipe import WarmUp, rate_factor

OURS = {name: each.thing for name, each in sorted(the_host().offered("schedule").items())}
any_of_ours = st.sampled_from([*OURS.values()]).flatmap(drawn)


def factors(warmup, schedule, steps):
    return [rate_factor(WarmUp(warmup=warmup), schedule, step, steps) for step in range(steps)]


@given(st.integers(1, 3000), st.floats(0, 0.3), any_of_ours)
def test_the_learning_rate_rises_to_its_height_and_falls_from_there(steps, warmup, schedule):
    found = factors(warmup, schedule, steps)
    assert all(0.0 < each <= 1.0 for each in found)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert top <= math.ceil(warmup * steps)


@given(st.integers(1, 3000), st.floats(0, 0.3), any_of_ours)
def test_warm_up_is_a_straight_line_to_the_height_whichever_schedule_follows(steps, warmup, schedule):
    warm = math.ceil(warmup * steps)
    rising = factors(warmup, schedule, steps)[:warm]
    assert rising == [(step + 1) / (warmup * steps + 1) for step in range(warm)]


@given(st.integers(1, 3000), st.floats(0, 0.3))
def test_a_schedule_is_asked_for_shares_from_0_to_1_in_order(steps, warmup):
    asked = []

    class Listening(OURS["constant"]):
        def factor(self, done):
            asked.append(done)
            return 1.0

    rate_factor(WarmUp(warmup=warmup), Listening(), steps + 1, steps)
    assert asked.pop() == 1.0, "never beyond the end"
    factors(warmup, Listening(), steps)
    assert asked == sorted(asked)
    assert all(0.0 <= each < 1.0 for each in asked)
    assert not asked or asked[0] <= 1 / (steps - warmup * steps), "it begins where warm-up ends"


# -- what other libraries say ------------------------------------------------------------------------------------------

AFTER = 200


def stable(made, falling):
    return get_wsd_schedule(made, 0, falling, num_stable_steps=AFTER - falling, decay_type="1-sqrt")


THEIRS = [
    ("cosine", {}, lambda made: CosineAnnealingLR(made, AFTER)),
    ("linear", {}, lambda made: LinearLR(made, 1.0, 0.0, AFTER)),
    ("constant", {}, lambda made: ConstantLR(made, 1.0)),
    ("warmup_stable_decay", {"cooldown": 0.1}, lambda made: stable(made, 20)),
    ("warmup_stable_decay", {"cooldown": 0.2}, lambda made: stable(made, 40)),
    ("warmup_stable_decay", {"cooldown": 0.5}, lambda made: stable(made, 100)),
    ("inverse_sqrt", {"timescale": 0.04}, lambda made: get_inverse_sqrt_schedule(made, 0, timescale=8)),
    ("inverse_sqrt", {"timescale": 0.5}, lambda made: get_inverse_sqrt_schedule(made, 0, timescale=100)),
]


@pytest.mark.parametrize("warm", [0, 25])
@pytest.mark.parametrize(("name", "fields", "theirs"), THEIRS)
def test_it_equals_the_schedulers_of_torch_and_transformers(name, fields, theirs, warm):
    made = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rising = [LinearLR(made, 1 / (warm + 1), 1.0, warm)] if warm else []
    scheduler = SequentialLR(made, [*rising, theirs(made)], [warm] if warm else [])
    steps, rates = warm + AFTER, []
    for _ in range(steps):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        scheduler.step()
    assert factors(warm / steps, OURS[name](**fields), steps) == pytest.approx(rates, abs=1e-7)


# -- in a trial --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return kept(tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize("name", OURS)
def test_a_trial_moves_its_weights_at_the_rates_of_the_schedule_that_its_params_name(folder, name):
    named = {"schedule/warmup_stable_decay/cooldown": 0.5, "schedule/inverse_sqrt/timescale": 0.3}
    told = {"schedule/kind": name, "schedule/warmup": 0.2, "optimizer/adamw/lr": 0.01, "training/epochs": 1, **named}
    training = Training(assignment(folder, params=told), the_host())
    rates = []
    training.optimizer.register_step_pre_hook(lambda made, *_: rates.append(made.param_groups[0]["lr"]))
    for _ in training.messages():
        pass
    fields = {each.rpartition("/")[2]: value for each, value in named.items() if each.startswith(f"schedule/{name}/")}
    assert rates == [0.01 * each for each in factors(0.2, OURS[name](**fields), training.steps)]
    assert len({*rates}) > 1


def test_a_trial_of_a_schedule_that_is_not_installed_is_refused_with_the_nearest(folder):
    with pytest.raises(BadInput, match=r"'cosin' is no schedule\. Did you mean 'cosine'\?"):
        Training(assignment(folder, params={"schedule/kind": "cosin"}), the_host())

"""A prompt begins with words, and learns what to add to them."""

import torch
from torch import nn

from deepmine_auto.testing.tuning import IDS_BL, KEEP_BL, original, out_of, train, tuned
from deepmine_plugins.tunings.prompt import Prompt


def prompt_of(model):
    return model.model.before.vectors


def test_it_begins_with_the_vectors_of_words_whatever_weights_are_loaded_later():
    model = tuned(Prompt())
    table = model.model.get_input_embeddings()
    nn.init.normal_(table.weight)
    assert torch.equal(prompt_of(model)(table), table.weight[prompt_of(model).words_P])
    assert len(prompt_of(model).words_P.unique()) > 1


def test_only_what_is_added_to_the_words_learns():
    model = tuned(Prompt(length=4))
    learning = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert {name: tuple(each.shape) for name, each in learning.items()} == {"model.before.vectors.added_PE": (4, 16)}
    train(model)
    assert (prompt_of(model).added_PE != 0).all()


def test_it_says_what_the_model_would_say_of_a_text_with_these_words_before_it():
    model, plain = tuned(Prompt(length=4)), original().eval().model
    words_BP = prompt_of(model).words_P.expand(2, -1)
    at_L = torch.tensor([0, 0, 0, 0, 0, 1, 2, 3])
    with torch.no_grad():
        longer = plain(
            input_ids=torch.cat((words_BP, IDS_BL), 1),
            attention_mask=torch.cat((torch.ones_like(words_BP), KEEP_BL.long()), 1),
            position_ids=at_L[None],
        ).last_hidden_state[:, 4:]
    torch.testing.assert_close(out_of(model), longer[KEEP_BL])

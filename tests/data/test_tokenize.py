import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from deepmine_auto.data.tokenize import count_words, load_tokenizer, subword_tokenizer, token_ids, word_tokenizer
from deepmine_auto.errors import BadInput

TEXTS = ["a good day, a good night", "don't be late", "the day is young"]
MEGABYTE = 1_000_000


def pieces(text):
    """The words of a text, through a tokenizer that has seen them twice."""
    tokenizer = word_tokenizer([text, text], limit=100)
    return [tokenizer.id_to_token(each) for each in token_ids(tokenizer, [text], 100)[0]]


@pytest.fixture(params=["word", "subword"])
def tokenizer(request):
    made = {"word": lambda: word_tokenizer(TEXTS, 100, ["extra"]), "subword": lambda: subword_tokenizer(TEXTS, 60)}
    return made[request.param]()


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I DON'T think it's over", "i do n't think it 's over"),
        ("can\u2019t", "ca n't"),
        ("we'll they've I'm you're she'd", "we 'll they 've i 'm you 're she 'd"),
        ("nice :) sad :-( wink ;-) love <3", "nice :) sad :-( wink ;-) love <3"),
        ("so glad :D haha xD", "so glad :d haha xd"),
        ("cry :'( cry", "cry :'( cry"),
        ("no way!!! what??", "no way !!! what ??"),
        ("well... yes. no", "well ... yes . no"),
        ("#fun @me", "# fun @ me"),
        ("1,000 people, 3.5% at 5:30", "1,000 people , 3.5 % at 5:30"),
        ("at 10:30pm", "at 10 : 30pm"),
        ("a well-known (old) story", "a well - known ( old ) story"),
        ("see http://a.b/c?d=1 now", "see http://a.b/c?d=1 now"),
        ("Cafe\u0301 caf\u00e9", "caf\u00e9 caf\u00e9"),
        ("\u4f60\u597d \U0001f600\U0001f600", "\u4f60\u597d \U0001f600 \U0001f600"),
        ("[PAD] [UNK]", "[ pad ] [ unk ]"),
    ],
)
def test_a_text_falls_into_words(text, words):
    assert pieces(text) == words.split(" ")
    assert count_words([text]) == [len(words.split(" "))]


def test_the_vocabulary_is_padding_unknown_frequent_words_then_extra_words():
    tokenizer = word_tokenizer(["b a b a b once", "a c", "c"], 3, ["x", "a", "y"])
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert words == ["[PAD]", "[UNK]", "a", "b", "c", "x", "y"]


def test_the_limit_keeps_the_most_frequent_words():
    assert set(word_tokenizer(["b a b a b c c"], 1).get_vocab()) == {"[PAD]", "[UNK]", "b"}


def test_a_word_seen_once_is_unknown():
    tokenizer = word_tokenizer(["seen seen once"], 100)
    assert token_ids(tokenizer, ["seen once never"], 10) == [[2, 1, 1]]


def test_the_order_of_the_texts_does_not_change_the_vocabulary():
    texts = ["a b", "b a", "c d", "d c"]
    assert word_tokenizer(texts, 3).get_vocab() == word_tokenizer(texts[::-1], 3).get_vocab()


# -- subwords ----------------------------------------------------------------------------------------------------------


def test_subwords_write_an_unseen_word_in_seen_pieces():
    tokenizer = subword_tokenizer(["low lower lowest new newer newest"] * 3, 40)
    ids = token_ids(tokenizer, ["slowest"], 10)[0]
    assert 1 not in ids
    assert "".join(map(tokenizer.id_to_token, ids)) == "slowest"


def test_subwords_stay_within_the_vocabulary_that_was_asked_for():
    tokenizer = subword_tokenizer(TEXTS, 30)
    assert tokenizer.get_vocab_size() == 30
    assert (tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[UNK]")) == (0, 1)


def test_a_script_of_many_characters_stays_within_the_vocabulary_too():
    texts = ["".join(chr(0x4E00 + i) for i in range(500)), "\u4e00\u4e01 \u4e00\u4e01"]
    assert subword_tokenizer(texts, 100).get_vocab_size() <= 100


def test_no_text_spells_padding():
    for tokenizer in (subword_tokenizer(["[PAD] pad", "[PAD] pad"], 60), word_tokenizer(["[PAD]", "[PAD]"], 60)):
        assert 0 not in token_ids(tokenizer, ["[PAD][PAD] [PAD]"], 50)[0]


# -- ids ---------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5), longest=st.integers(1, 20))
def test_every_text_has_at_least_one_id_and_at_most_the_longest(texts, longest):
    tokenizer = word_tokenizer(TEXTS, 100)
    ids = token_ids(tokenizer, texts, longest)
    assert len(ids) == len(texts)
    assert all(1 <= len(each) <= longest and min(each) >= 1 for each in ids)


def test_an_empty_text_is_one_unknown_token(tokenizer):
    assert token_ids(tokenizer, ["", "  \n "], 5) == [[1], [1]]


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["a", "b"], ("a", "b")])
def test_what_is_no_text_is_refused(tokenizer, bad):
    with pytest.raises(BadInput, match="is no text"):
        token_ids(tokenizer, [bad], 5)


def test_half_of_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(BadInput, match="cannot be tokenized"):
        token_ids(tokenizer, ["a \ud800 b"], 5)


HOSTILE = {
    "spaces": " ", "one letter": "a", "emoji": "\U0001f600", "joined emoji": "\U0001f469\u200d", "accents": "e\u0301",
    "accents alone": "\u0301", "NUL": "\0", "digits": "1", "decimals": "1.", "shouts": "!", "shouts and asks": "!?",
    "eyes": ":", "eyes and mouths": ":)", "half a heart": "<", "laughs": "xd", "half a negation": "n'", "clitics": "'l",
    "links": "http:/", "han": "\u4e2d", "jamo": "\u1100\u1161", "right to left": "\u202e", "line ends": "\u2028",
    "growing in lowercase": "\u0130",
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_megabyte_of_one_kind_of_character_is_tokenized(tokenizer, kind):
    text = HOSTILE[kind] * (MEGABYTE // len(HOSTILE[kind].encode()))
    assert 1 <= len(token_ids(tokenizer, [text], 256)[0]) <= 256


@pytest.mark.parametrize("kind", HOSTILE)
def test_without_a_cut_the_cost_grows_with_the_text_and_not_with_its_square(kind):
    # the square of a hundred thousand would take minutes, which the test's time limit ends
    text = HOSTILE[kind] * 50_000
    assert count_words([text])[0] <= 2 * len(text)  # a capital may become two characters


@pytest.mark.parametrize(("head", "body", "tail"), [(":", "(", "a"), ("", "n", "'"), ("1", ",1", "a"), ("x", "d", "_")])
def test_a_tail_that_breaks_a_long_match_costs_no_more_than_the_text(head, body, tail):
    assert count_words([head + body * 100_000 + tail])[0] <= 200_002


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_is_read_back_the_same(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "A good day :) isn't young, extra!!"
    assert token_ids(load_tokenizer(tmp_path / "tokenizer.json"), [text], 50) == token_ids(tokenizer, [text], 50)
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab() == tokenizer.get_vocab()


def with_normalizer(tokenizer):
    tokenizer.normalizer = normalizers.Replace(Regex("(a|a)*$"), "")


def with_pre_tokenizer(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")


def with_added_token(tokenizer):
    tokenizer.add_tokens(["good day"])


@pytest.mark.parametrize(
    ("change", "part"),
    [(with_normalizer, "normalizer"), (with_pre_tokenizer, "pre_tokenizer"), (with_added_token, "added_tokens")],
)
def test_a_tokenizer_with_foreign_parts_is_refused(tokenizer, tmp_path, change, part):
    change(tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BadInput, match=f"no tokenizer of ours: its '{part}' is foreign"):
        load_tokenizer(tmp_path / "tokenizer.json")


def edited(path, tokenizer, edit):
    plain = json.loads(tokenizer.to_str())
    edit(plain)
    path.write_text(json.dumps(plain))
    return path


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda plain: plain["model"].update(type="Unigram"), "the model is 'Unigram'"),
        (lambda plain: plain["model"]["vocab"].update({"[PAD]": 7_000}), "its token ids have gaps"),
        (lambda plain: plain["model"]["vocab"].update({"[PAD]": 1, "[UNK]": 0}), "its token ids have gaps"),
        (lambda plain: plain.pop("model"), "'model'"),
        (lambda plain: plain.update(surprise={}), "its 'surprise' is foreign"),
    ],
)
def test_an_edited_tokenizer_is_refused(tokenizer, tmp_path, edit, why):
    with pytest.raises(BadInput, match=why):
        load_tokenizer(edited(tmp_path / "tokenizer.json", tokenizer, edit))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"model": 3}', "\ufeff{}", "[" * 100_000])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="no tokenizer of ours"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_a_missing_tokenizer_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no tokenizer of ours"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_a_model_that_rust_refuses_is_bad_input(tokenizer, tmp_path):
    path = edited(tmp_path / "tokenizer.json", tokenizer, lambda plain: plain["model"].update(unk_token=3))
    with pytest.raises(BadInput, match="cannot be tokenized"):
        load_tokenizer(path)

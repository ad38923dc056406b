import numpy as np
import pytest
from safetensors.numpy import save_file

from deepmine_auto.data.vectors import glove, read_vectors
from deepmine_auto.errors import BadInput


def written(folder, words, table):
    (folder / "words.txt").write_text("\n".join(words))
    save_file({"vectors": np.asarray(table, np.float16)}, folder / "vectors.safetensors")
    return folder


def test_the_bundled_words_are_20000_and_the_most_frequent_is_the():
    words = glove().words
    assert (len(words), len(set(words)), words[0]) == (20_000, 20_000, "the")
    assert glove().table_WE.shape == (20_000, 50)
    assert glove().table_WE.dtype == np.float32


def test_words_of_like_meaning_have_vectors_of_like_direction():
    place = {word: at for at, word in enumerate(glove().words)}
    good, great, lawyer = (glove().table_WE[place[word]] for word in ("good", "great", "lawyer"))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert cosine(good, great) > cosine(good, lawyer) + 0.3


def test_the_bundled_vectors_are_read_once():
    assert glove() is glove()


def test_a_token_without_a_vector_has_zeros(tmp_path):
    vectors = read_vectors(written(tmp_path, ["b", "a"], [[1, 2], [3, 4]]))
    np.testing.assert_array_equal(vectors.of({"[PAD]": 0, "c": 1, "a": 2}), [[0, 0], [0, 0], [3, 4]])
    assert vectors.of({"c": 0}).tolist() == [[0, 0]]


def test_more_words_than_vectors_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"2 words and a table of shape \(1, 2\)\. Install deepmine-auto again"):
        read_vectors(written(tmp_path, ["a", "b"], [[1, 2]]))


@pytest.mark.parametrize("broken", ["words.txt", "vectors.safetensors"])
def test_a_missing_or_torn_file_is_refused(tmp_path, broken):
    file = written(tmp_path, ["a"], [[1, 2]]) / broken
    file.write_bytes(b"\xff\xfe torn")
    with pytest.raises(BadInput, match="no word vectors in"):
        read_vectors(tmp_path)
    file.unlink()
    with pytest.raises(BadInput, match="no word vectors in"):
        read_vectors(tmp_path)

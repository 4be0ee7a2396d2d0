"""Words, characters and GloVe vectors of the predictor `rnn`."""

import json

import numpy as np
import pytest
import torch

from tests.bad_inputs import world
from utils.base.errors import UserError
from utils.features.tokens import Text
from VSLNet.options import Options
from VSLNet.text import WordText
from VSLNet.words import Vocabulary, build_vocabulary, read_glove


@pytest.fixture
def glove(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("where 1 2 3\nthe 4 5 6\ncup 7 8 9\n. . . 1 1 1\nspoon 0 0 0\n")
    return file


def test_vocabulary_holds_known_words_and_frequent_characters(glove):
    sentences = ["where is the cup?"] * 5 + ["where is the fox?"]
    vocabulary, vectors = build_vocabulary(sentences, glove, 3)
    assert vocabulary.words == ["cup", "the", "where"]
    assert vectors.tolist() == [[7, 8, 9], [4, 5, 6], [1, 2, 3]]
    assert "x" not in vocabulary.characters and "w" in vocabulary.characters


def test_batches_are_padded_and_number_the_unknown(glove):
    vocabulary = Vocabulary(["cup", "the"], ["c", "u"])
    words, mask, characters = vocabulary.encode(["the cup", "fox"]).batch(np.array([1, 0]))
    assert words.tolist() == [[1, 0], [3, 2]]
    assert mask.tolist() == [[1, 0], [1, 1]]
    assert characters[1, 1].tolist() == [2, 3, 1, 0, 0, 0, 0]
    assert (characters[0, 1] == 0).all()


def test_an_empty_sentence_has_one_unknown_word():
    words, mask, _ = Vocabulary(["cup"], []).encode([""]).batch(np.array([0]))
    assert words.tolist() == [[1]] and mask.tolist() == [[1]]


def test_long_queries_are_cut_to_the_positions_there_are():
    words, mask = torch.ones(2, 9), torch.ones(2, 9)
    assert Text(words, mask, torch.ones(2, 9, 4)).cut(5).characters.shape == (2, 5, 4)
    text = Text(words, mask, None).cut(5)
    assert text.tokens.shape == text.mask.shape == (2, 5)
    options = Options(task="t", fv="f", max_pos_len=3)
    side = WordText(options, Vocabulary(["cup"], []), np.zeros((1, 4), "f4"))
    gather = side.open(["the cup is on the table", "cup"], torch.device("cpu"), False)
    assert gather(np.array([0, 1])).mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("spoon 1 2 3\ncup 1 2 nan\n", "line 2 is not a word and 3 numbers"),
        ("spoon 1 2 3\n", "for none of the 2 words"),
        ("cup 1 2 3 4\n", "3 numbers .--word_dim. for none of the 2 words"),
    ],
)
def test_bad_vectors_are_named(tmp_path, content, words):
    (tmp_path / "g.txt").write_text(content)
    with pytest.raises(UserError, match=words):
        read_glove(tmp_path / "g.txt", {"where", "cup"}, 3)


def test_words_with_spaces_and_words_seen_twice(tmp_path):
    (tmp_path / "g.txt").write_text("cup at 7 7 7\ncup 1 2 3\ncup 4 5 6\r\nwhere 0 0 1")
    found = read_glove(tmp_path / "g.txt", {"where", "cup"}, 3)
    assert {word: vector.tolist() for word, vector in found.items()} == {
        "cup": [1, 2, 3],
        "where": [0, 0, 1],
    }


def test_a_run_holds_its_vectors_and_needs_them_no_more(data):
    vectors, file = data / "features/glove.840B.4d.txt", world.checkpoint(data / world.WORDS_RUN)
    state = torch.load(file, weights_only=True)
    expected = torch.tensor([[1, -1, 1e-3, 0], [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 0]])
    assert torch.equal(state["embedding_net.word_emb.glove_vec"], expected)  # cup, the, who
    vectors.unlink()
    assert world.run("VSLNet/main.py rnn", data) is None
    (result,) = file.parent.glob("*_val_result.json")
    assert len(json.loads(result.read_text())["results"]) == 4
    line = world.run("VSLNet/main.py train rnn", data, "--restart")
    assert "needs the word vectors" in line

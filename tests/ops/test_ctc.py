"""The CTC loss and both decoders against the sum over all alignments, enumerated in float64."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.ctc import best_path, ctc_loss, frames_needed, shortened
from research.ops.prefix_search import Search, greedy, prefix_search, transcriber
from research.ops.word_model import count_words


def collapsed(path):
    return tuple(label for label, _ in itertools.groupby(path) if label)


def text_probabilities(probabilities):
    """P(text) of every text: the sum over all paths of labels that collapse to it."""
    totals = {}
    for path in itertools.product(range(probabilities.shape[1]), repeat=len(probabilities)):
        text = collapsed(path)
        totals[text] = totals.get(text, 0.0) + np.prod(probabilities[range(len(path)), path])
    return totals


def draw(frames, labels, seed, sharpness=1.0):
    logits = sharpness * np.random.default_rng(seed).normal(size=(frames, labels))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize('text', [(), (1,), (1, 2), (1, 1), (2, 2, 1)])
def test_the_loss_is_the_sum_over_all_alignments(text):
    probabilities = draw(5, 3, 0)
    room = 4  # further labels are padding, whatever they are
    labels = jnp.array([[*text, *[1] * (room - len(text))]], jnp.int32)
    logits = np.log(np.concatenate([probabilities, draw(2, 3, 1)]))[None]  # two frames of padding
    nats = ctc_loss(jnp.float32(logits), jnp.array([5]), labels, jnp.array([len(text)]))
    np.testing.assert_allclose(nats, -np.log(text_probabilities(probabilities)[text]), rtol=1e-5)


def test_a_text_that_needs_more_frames_than_there_are_has_no_alignment():
    labels = jnp.array([[1, 1, 2], [1, 2, 1], [1, 1, 1]], jnp.int32)
    np.testing.assert_array_equal(frames_needed(labels, jnp.array([3, 3, 2])), [4, 3, 3])
    probabilities = draw(3, 3, 0)
    assert (1, 1, 2) not in text_probabilities(probabilities) and (1, 2, 1) in text_probabilities(probabilities)
    logits = jnp.float32(np.log(np.stack([probabilities] * 3)))
    nats = ctc_loss(logits, jnp.full(3, 3), labels, jnp.array([3, 3, 2]))
    assert nats[0] > 1e4 and nats[1] < 100 and nats[2] < 100


def test_the_best_path_is_the_same_on_device_and_host():
    probabilities = np.stack([draw(9, 4, seed, 3.0) for seed in range(6)])
    frames = np.array([9, 7, 4, 1, 9, 2])
    labels, count = best_path(jnp.float32(np.log(probabilities)), jnp.array(frames))
    for row in range(6):
        valid = probabilities[row, : frames[row]]
        expected = list(collapsed(valid.argmax(axis=1).tolist()))
        assert greedy(np.log(valid)) == expected
        assert labels[row, : count[row]].tolist() == expected and not np.any(labels[row, count[row] :])
    assert greedy(np.zeros((0, 3))) == []


@pytest.mark.parametrize('seed', range(5))
def test_the_prefix_search_finds_the_most_probable_text_and_its_probability(seed):
    probabilities = draw(6, 3, seed)
    expected = {''.join('-ab'[label] for label in text): p for text, p in text_probabilities(probabilities).items()}
    answers = dict(prefix_search(np.log(probabilities), '-ab', Search(beams=10**6, prune=0.0)))
    assert answers.keys() == expected.keys()
    for text, probability in expected.items():
        np.testing.assert_allclose(np.exp(answers[text]), probability, rtol=1e-9)
    best = prefix_search(np.log(probabilities), '-ab', Search(beams=8))[0][0]
    assert best == max(expected, key=lambda text: expected[text])


@pytest.mark.parametrize('seed', range(5))
def test_a_language_model_reranks_all_texts_as_defined(seed):
    probabilities, alphabet = draw(5, 4, seed), '- ab'
    words = count_words(['a b', 'b b a', 'ab'], 2)
    search = Search(beams=10**6, weight=0.7, bonus=0.4, prune=0.0)
    answers = dict(prefix_search(np.log(probabilities), alphabet, search, words.score))

    def expected(text, probability):
        parts = text.split()
        language = sum(words.score(tuple(parts[: end + 1])) for end in range(len(parts)))
        return np.log(probability) + 0.7 * language + 0.4 * len(parts)

    for labels, probability in text_probabilities(probabilities).items():
        text = ''.join(alphabet[label] for label in labels)
        np.testing.assert_allclose(answers[text], expected(text, probability), rtol=1e-9)


def test_a_language_model_changes_an_unsure_answer():
    """The sound is between 'ba' and 'bb'; only 'ba' is a word."""
    probabilities = np.array([[0.1, 0.1, 0.8], [0.1, 0.43, 0.47]])  # '-', 'a', 'b'
    probabilities = np.insert(probabilities, 1, [0.98, 0.01, 0.01], axis=0)
    outputs = {'log_probabilities': np.log(probabilities), 'frames': 3}
    words = count_words(['ba', 'ba'], 1)
    assert transcriber('-ab', Search())(outputs)['text'] == 'bb'
    answer = transcriber('-ab', Search(weight=1.0), words.score)(outputs)
    assert (answer['text'], answer['greedy']) == ('ba', 'bb')
    assert transcriber('-ab', Search())({**outputs, 'frames': 1})['text'] == 'b'  # the rest is padding


def test_lengths_are_halved_twice():
    assert [shortened(frames) for frames in (1, 2, 4, 5, 8, 9, 639)] == [1, 1, 1, 2, 2, 3, 160]
    assert all(shortened(frames) == ((frames + 1) // 2 + 1) // 2 for frames in range(1, 99))

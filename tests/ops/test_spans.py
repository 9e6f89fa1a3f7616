"""Spans of tokens against brute force."""

import numpy as np
import pytest

from research.ops.spans import EXCLUDED, best_spans, context_positions, masked_scores, span_loss

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(('longest', 'count'), [(1, 3), (3, 5), (50, 4)])
def test_best_spans_are_those_of_trying_all(longest, count):
    scores, valid = RNG.normal(size=(2, 9, 2)).astype(np.float32), np.zeros((2, 9), bool)
    valid[0, 3:7], valid[1, 2:9] = True, True
    best, spans = best_spans(scores, valid, longest, count)
    for row in range(2):
        everything = sorted(
            (
                (scores[row, i, 0] + scores[row, j, 1], i, j)
                for i in range(9) for j in range(i, min(i + longest, 9)) if valid[row, i] and valid[row, j]
            ),
            reverse=True,
        )  # fmt: skip
        expected = everything[:count]
        np.testing.assert_allclose(best[row][: len(expected)], [score for score, _, _ in expected], rtol=1e-6)
        assert np.array_equal(spans[row][: len(expected)], [(i, j) for _, i, j in expected])


def test_a_row_with_fewer_spans_marks_the_others():
    valid = np.array([[False, True, False, False]])
    best, _ = best_spans(np.zeros((1, 4, 2), np.float32), valid, 2, 3)
    assert best[0, 0] == 0 and (np.asarray(best[0, 1:]) < EXCLUDED / 2).all()


def test_only_the_context_and_the_first_position_are_scored():
    types, length = np.array([[0, 0, 0, 1, 3, 1, 0, 0]]), np.array([6])  # the last 1 is the end mark
    valid = context_positions(types, length)
    assert np.flatnonzero(valid[0]).tolist() == [3, 4]
    scores = masked_scores(np.ones((1, 8, 2), np.float32), valid)
    assert np.flatnonzero(np.asarray(scores)[0, :, 0] > 0).tolist() == [0, 3, 4]
    loss = span_loss(scores, np.array([3]), np.array([0]))
    assert loss[0] == pytest.approx(2 * np.log(3), rel=1e-5)

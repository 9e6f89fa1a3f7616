"""Scores of answers against cases computed by hand from the official definitions, and thresholds by brute force."""

import numpy as np
import pytest

from research.ops.answer_scores import answer_scores, best_threshold, mean_scores, normal_characters, normal_words


@pytest.mark.parametrize(('text', 'words'), [
    ('The  Denver Broncos!', ['denver', 'broncos']),
    ("Levi's Stadium", ['levis', 'stadium']),  # punctuation is deleted, not replaced by a space
    ('24–10', ['24–10']),  # the official list has ASCII punctuation only
    ('a.n. An answer, the\tother', ['answer', 'other']),  # 'a.n.' becomes 'an', an article
    ('theory and a_b', ['theory', 'and', 'ab']),
    ('The', []),
])  # fmt: skip
def test_words_are_normalized_as_in_the_official_script(text, words):
    assert normal_words(text) == words


def test_characters_of_chinese_and_words_of_other_scripts():
    assert normal_characters('《北京》, ABC大学 2008年。') == ['北', '京', 'abc', '大', '学', '2008', '年']


@pytest.mark.parametrize(('answer', 'references', 'exact', 'f1'), [
    ('the Broncos', ['Broncos', 'Denver Broncos'], 100, 100),
    ('Denver Broncos won', ['Broncos'], 0, 50),  # precision 1/3, recall 1
    ('Denver Broncos won', ['Broncos', 'Denver Broncos'], 0, 80),  # the better reference
    ('b b a1', ['b b b'], 0, 200 / 3),  # repeated words count as often as in both
    ('Broncos', ['Panthers'], 0, 0),
    ('', [], 100, 100), ('', [''], 100, 100), ('Broncos', [], 0, 0), ('', ['Broncos'], 0, 0),
    ('The', ['an'], 100, 100),  # both are empty once normalized
    ('Broncos', ['the', 'Broncos'], 100, 100),  # an empty reference is left out beside others
])  # fmt: skip
def test_scores_are_the_maximum_over_references(answer, references, exact, f1):
    scores = answer_scores(answer, references)
    assert scores == pytest.approx((exact, f1))


def test_chinese_answers_are_scored_by_character():
    assert answer_scores('在北京', ['北京市'], 'characters') == pytest.approx((0, 200 / 3))
    assert answer_scores('在北京', ['北京市'], 'words').f1 == 0
    assert mean_scores([answer_scores('x', ['x']), answer_scores('x', ['y'])]) == (50, 50)


@pytest.mark.parametrize('seed', range(5))
def test_the_best_threshold_is_that_of_trying_all(seed):
    rng = np.random.default_rng(seed)
    margins = rng.integers(-3, 4, 12).astype(float)  # with ties
    answerable = rng.random(12) < 0.5
    scores = np.where(answerable, rng.integers(0, 101, 12), 0).astype(float)

    def mean_at(threshold):
        return np.mean(np.where(margins > threshold, np.where(answerable, 0, 100), scores))

    best = best_threshold(margins, scores, answerable)
    assert best.score == pytest.approx(max(mean_at(value) for value in [*margins, margins.min() - 1]))
    assert mean_at(best.margin) == pytest.approx(best.score)


def test_no_answer_at_all_can_be_the_best_threshold():
    assert best_threshold([1.0, 2.0], [0.0, 0.0], [False, False]).score == 100
    assert best_threshold([1.0, 2.0], [100.0, 50.0], [True, True]) == (75, 2.0)

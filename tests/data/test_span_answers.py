"""One answer from the spans of several windows."""

import numpy as np
import pytest
from etils import epath

from research.data.text import pieces
from research.data.text.question_windows import Windows, WindowSettings
from research.data.text.sentences import best_sentence, rarities, sentences
from research.data.text.span_answers import make_decode, make_join
from research.ops.spans import EXCLUDED

CONTEXT = ' '.join(f'w{number}' for number in range(30))
RAW = {'question': 'w0', 'context': CONTEXT}


@pytest.fixture
def windows(tmp_path):
    pieces.prepare_words([CONTEXT], 100, 1, epath.Path(tmp_path))
    return Windows(pieces.read_words(epath.Path(tmp_path)), WindowSettings(20, 4, 10))


def output(spans, scores, none=0.0):
    return {'spans': np.array(spans), 'scores': np.array(scores, np.float32), 'none': np.float32(none)}


def test_the_best_span_of_all_windows_wins_by_raw_score(windows):
    """The second window is unsure between two good spans, and the first sure of a bad one: a softmax would take it."""
    before = windows.places(RAW)[0].before
    outputs = [
        output([[before, before], [before + 1, before + 1]], [5.0, -20.0]),
        output([[before + 9, before + 10], [before + 1, before + 1]], [7.0, 6.9]),
    ]
    answer = make_decode(None)(make_join(windows, 5)(RAW, outputs))
    assert answer['answer'] == 'w19 w20' == CONTEXT[answer['start'] : answer['stop']]
    assert [each['answer'] for each in answer['n_best']] == ['w19 w20', 'w11', 'w0', 'w1']
    assert sum(each['probability'] for each in answer['n_best']) == pytest.approx(1, abs=1e-5)


def test_a_span_in_two_windows_counts_once_with_its_higher_score(windows):
    before = windows.places(RAW)[0].before
    outputs = [output([[before + 12, before + 12]], [1.0]), output([[before + 2, before + 2]], [2.0])]
    joined = make_join(windows, 5)(RAW, outputs)
    assert joined['scores'].tolist() == [2.0] and make_decode(None)(joined)['answer'] == 'w12'


def test_spans_that_do_not_exist_are_left_out_and_n_best_is_cut(windows):
    before = windows.places(RAW)[0].before
    spans = [[before, before], [before + 1, before + 1], [0, 0]]
    outputs = [output(spans, [3.0, 2.0, 2 * EXCLUDED])]
    assert make_join(windows, 5)(RAW, outputs)['scores'].tolist() == [3.0, 2.0]
    assert len(make_decode(None)(make_join(windows, 1)(RAW, outputs))['n_best']) == 1


@pytest.mark.parametrize(('margin', 'answer'), [(-1.0, ''), (0.9, ''), (1.1, 'w0')])
def test_no_answer_needs_the_margin_in_every_window(windows, margin, answer):
    before = windows.places(RAW)[0].before
    outputs = [output([[before, before]], [4.0], 9.0), output([[before + 3, before + 3]], [2.0], 5.0)]
    given = make_decode(margin)(make_join(windows, 5)(RAW, outputs))
    assert given['answer'] == answer and given['no_answer_score'] == 5.0  # the lower score of the two windows
    assert (given['start'] is None) == (answer == '') and given['n_best'][0]['answer'] == 'w0'
    shares = [each['probability'] for each in given['n_best']]
    assert sum(shares) < 1 and shares[0] == pytest.approx(np.exp(4) / (np.exp(4) + np.exp(2) + np.exp(5)), abs=1e-5)


def test_the_outputs_of_one_window_are_positions():
    assert make_decode(None)(output([[3, 4]], [1.0])) == {'spans': [[3, 4]], 'scores': [1.0]}


def test_sentences_end_at_marks_and_line_feeds_and_the_best_shares_the_rarest_words():
    text = 'Ada came. "Stop!" she said.\nThe mill burnt。中文句子。另一个！'
    parts = ['Ada came.', '"Stop!"', 'she said.', 'The mill burnt。', '中文句子。', '另一个！']
    assert sentences(text) == parts and sentences('no mark') == ['no mark']
    rarity = rarities(['the the', 'the mill', 'the sea'])
    assert rarity('the') < rarity('mill') < rarity('unknown') + 1e-9
    assert best_sentence('the mill', ['the the the', 'a mill', 'the'], rarity) == 'a mill'

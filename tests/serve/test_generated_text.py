"""Generated texts in the form of text-generation-inference, read by the types of huggingface_hub."""

import huggingface_hub as hub
import pytest

pytest.importorskip('fastapi', reason='needs the extra serve')

from research.inference.text_requests import Finish, Piece  # noqa: E402
from research.serve.errors import RequestError  # noqa: E402
from research.serve.generated_text import Options, Writer, read_options, shared_out, text_request  # noqa: E402

NAMES = {1: 'a', 2: ' b', 3: '\ufffd', 9: '<end>'}
PIECES = (
    Piece(0, 'a b', (1, 2), (-0.1, -0.2), (((1, -0.1), (2, -3.0)), ((2, -0.2), (1, -2.0)))),
    Piece(0, '', (3,), (-1.0,), (((3, -1.0), (1, -2.0)),)),
    Piece(0, '\u4f60', (3, 9), (-0.5, -0.4), (((3, -0.5), (1, -2.0)), ((9, -0.4), (1, -2.0))), Finish.STOP),
)


def written(**options):
    writer = Writer(Options(**options), 'Q: ', 5, NAMES.__getitem__, (9,))
    return [event for piece in PIECES for event in writer.add(piece)], writer.answer()


def test_a_stream_has_an_event_for_each_token_and_the_whole_text_last():
    events, _ = written(top_n_tokens=1)
    read = [hub.TextGenerationStreamOutput.parse_obj_as_instance(event) for event in events]
    assert [event.token.id for event in read] == [1, 2, 3, 3, 9]
    assert ''.join(event.token.text for event in read) == 'a b\u4f60'
    assert [event.token.special for event in read] == [False] * 4 + [True]
    assert [event.index for event in read] == [1, 2, 3, 4, 5]
    assert [event.generated_text for event in read] == [None] * 4 + ['a b\u4f60']
    assert (read[-1].details.finish_reason, read[-1].details.generated_tokens) == ('eos_token', 5)
    assert [row[0].id for row in (event.top_tokens for event in read)] == [1, 2, 3, 3, 9]


def test_an_answer_has_details_on_request():
    _, plain = written()
    assert plain == {'generated_text': 'a b\u4f60'}
    _, whole = written(return_full_text=True, details=True, top_n_tokens=2)
    read = hub.TextGenerationOutput.parse_obj_as_instance(whole)
    assert read.generated_text == 'Q: a b\u4f60' and read.details.seed == 5
    assert [token.logprob for token in read.details.tokens] == [-0.1, -0.2, -1.0, -0.5, -0.4]
    assert len(read.details.top_tokens) == 5 and len(read.details.top_tokens[0]) == 2


@pytest.mark.parametrize(
    'pieces, reason',
    [
        ([Piece(0, 'a', (1,), (-0.1,), (), Finish.LENGTH)], 'length'),
        ([Piece(0, 'a', (1,), (-0.1,), (), Finish.STOP)], 'stop_sequence'),
        ([Piece(0, '', (1,), (-0.1,)), Piece(0, 'a', (), (), (), Finish.LENGTH)], 'length'),
    ],
)
def test_how_a_text_ended(pieces, reason):
    writer = Writer(Options(details=True), '', 0, NAMES.__getitem__, (9,))
    events = [event for piece in pieces for event in writer.add(piece)]
    assert events[-1]['details']['finish_reason'] == reason and events[-1]['generated_text'] == 'a'
    assert ''.join(event['token']['text'] for event in events) == 'a'
    assert writer.answer()['details']['generated_tokens'] == 1


def test_parameters_become_a_request_of_the_engine():
    options = read_options(
        {
            'max_new_tokens': 7,
            'temperature': 0.5,
            'top_k': 3,
            'stop': ['x'],
            'best_of': 1,
            'watermark': False,
            'details': True,
        }
    )
    request = text_request({'text': 'a'}, options, 3)
    assert (request.max_tokens, request.temperature, request.top_k, request.top_p) == (7, 0.5, 3, None)
    assert (request.stop, request.seed, request.repetition_penalty) == (('x',), 3, 1.0)
    assert text_request({}, read_options({'do_sample': False}), 0).temperature == 0


@pytest.mark.parametrize(
    'parameters',
    [
        {'max_new_tokens': 0}, {'max_new_tokens': True}, {'max_new_tokens': 1.5}, {'temperature': 'hot'}, {'top_p': 2},
        {'temperature': float('nan')}, {'best_of': 2}, {'grammar': {'type': 'regex', 'value': 'a+'}}, {'stop': ['']},
        {'stop': ['a'] * 5}, {'stop': ['a' * 65]}, {'details': 1}, {'truncate': 3}, {'colour': 1}, {'watermark': True},
        {'decoder_input_details': True}, {'typical_p': 0.5}, {'frequency_penalty': 0.5}, {'adapter_id': 'x'},
    ],
)  # fmt: skip
def test_a_parameter_without_effect_is_refused(parameters):
    with pytest.raises(RequestError, match=next(iter(parameters))):
        read_options(parameters)


def test_the_text_of_several_tokens_is_divided():
    assert shared_out('ab', ['a', 'b']) == ['a', 'b']
    assert shared_out('ab', ['x', 'b']) == ['', 'ab']
    assert shared_out('', ['a', 'b']) == ['', ''] and shared_out('', []) == []

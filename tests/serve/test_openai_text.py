"""The OpenAI dialect without a server: requests that are refused, and answers made from pieces of text."""

import asyncio
import json
import types

import pytest

from research.inference.text_requests import Finish, Piece
from research.serve.errors import RequestError
from research.serve.routes import openai_schema as schema
from research.serve.routes.openai import TextSide, chat_completions, merged, prompts_of, text_request
from research.serve.routes.openai_text import (
    Head,
    Part,
    chat_shape,
    completion_shape,
    events,
    spelled,
    whole_answer,
)

TOKENS = [b'', b'he', b'llo ', b'\xe2\x82', b'\xac', b'!']  # 3 and 4 are one character together
HEAD = Head('cmpl-1', 'text_completion', 7, 'lm', 'abc')
ASK = {'model': 'lm', 'prompt': 'x'}


def spell(token):
    return TOKENS[token]


TICKET = types.SimpleNamespace(prompt_tokens=3, cached_tokens=1)


async def stream_of(pieces):
    """Parts of one prompt."""
    for piece in pieces:
        await asyncio.sleep(0)
        if isinstance(piece, Exception):
            raise piece
        yield Part(*piece, TICKET)


def collect(generator):
    async def read():
        return [item async for item in generator]

    return asyncio.run(read())


def pieces_of():
    top = (((1, -0.5), (2, -1.5)), ((2, -0.25), (1, -2.0)))
    return [
        (0, Piece(0, 'hello ', (1, 2), (-0.5, -0.25), top)),
        (1, Piece(1, 'he', (1,), (-0.5,), top[:1])),
        (0, Piece(0, '', (3,), (-1.0,), (((3, -1.0),),))),
        (1, Piece(1, '', (), (), (), Finish.LENGTH)),
        (0, Piece(0, '€', (4, 5), (-2.0, -3.0), (((4, -2.0),), ((5, -3.0),)), Finish.STOP)),
    ]


def test_a_completion_is_its_pieces_together():
    shape = completion_shape(spell, 1, ['ask: '], 2)
    body = json.loads(asyncio.run(whole_answer(HEAD, shape, 2, stream_of(pieces_of()))))
    first, second = body['choices']
    assert first['text'] == 'ask: hello €' and second['text'] == 'ask: he'
    assert (first['finish_reason'], second['finish_reason']) == ('stop', 'length')
    assert first['logprobs']['tokens'] == ['he', 'llo ', 'bytes:\\xe2\\x82', 'bytes:\\xac', '!']
    assert first['logprobs']['text_offset'] == [5, 7, 11, 11, 12]
    assert first['logprobs']['token_logprobs'] == [-0.5, -0.25, -1.0, -2.0, -3.0]
    assert first['logprobs']['top_logprobs'][:2] == [{'he': -0.5}, {'llo ': -0.25}]
    details = {'prompt_tokens_details': {'cached_tokens': 1}}
    assert body['usage'] == {'prompt_tokens': 3, 'completion_tokens': 6, 'total_tokens': 9, **details}
    assert body['id'] == 'cmpl-1' and body['system_fingerprint'] == 'abc'


def data_of(sent):
    """The JSON of events, which must be separated by blank lines and end with [DONE]."""
    lines = b''.join(sent).decode().split('\n\n')
    assert lines.pop() == '' and lines.pop() == 'data: [DONE]'
    return [json.loads(line.removeprefix('data: ')) for line in lines]


@pytest.mark.parametrize('top', [None, 0, 2])
def test_streamed_completions_equal_the_whole_one(top):
    whole = json.loads(
        asyncio.run(whole_answer(HEAD, completion_shape(spell, top, ['ask: '], 2), 2, stream_of(pieces_of())))
    )
    shape = completion_shape(spell, top, ['ask: '], 2)
    sent = data_of(collect(events(HEAD, shape, 2, stream_of(pieces_of()), last=True)))
    assert all(event['usage'] is None for event in sent[:-1]) and sent[-1]['choices'] == []
    assert sent[-1]['usage'] == whole['usage']
    for choice in whole['choices']:
        mine = [event['choices'][0] for event in sent[:-1] if event['choices'][0]['index'] == choice['index']]
        assert ''.join(part['text'] for part in mine) == choice['text']
        assert [part['finish_reason'] for part in mine if part['finish_reason']] == [choice['finish_reason']]
        for name in ('tokens', 'token_logprobs', 'text_offset') if top is not None else ():
            streamed = [value for part in mine if part['logprobs'] for value in part['logprobs'][name]]
            assert streamed == choice['logprobs'][name], name


def test_a_stream_has_one_event_for_each_piece_and_none_for_empty_ones():
    pieces = [(0, Piece(0, 'he', (1,), (-1.0,))), (0, Piece(0, '')), (0, Piece(0, '', (), (), (), Finish.STOP))]
    sent = data_of(collect(events(HEAD, completion_shape(spell, None, None, 1), 1, stream_of(pieces))))
    assert [event['choices'][0]['text'] for event in sent] == ['he', '']
    assert all('usage' not in event for event in sent)


def test_usage_in_every_event_counts_up():
    sent = data_of(
        collect(events(HEAD, completion_shape(spell, None, None, 2), 2, stream_of(pieces_of()), always=True))
    )
    assert [event['usage']['completion_tokens'] for event in sent] == [2, 3, 4, 4, 6, 6]


def test_a_chat_begins_with_its_role_and_spells_its_tokens():
    sent = data_of(collect(events(HEAD, chat_shape(spell, 2), 2, stream_of(pieces_of()))))
    assert [event['choices'][0]['delta'].get('role') for event in sent[:3]] == ['assistant', 'assistant', None]
    mine = [event['choices'][0] for event in sent if event['choices'][0]['index'] == 0]
    assert ''.join(part['delta'].get('content', '') for part in mine) == 'hello €'
    assert mine[-1]['finish_reason'] == 'stop'
    content = [token for part in mine if part['logprobs'] for token in part['logprobs']['content']]
    assert [token['bytes'] for token in content] == [list(TOKENS[token]) for token in (1, 2, 3, 4, 5)]
    best = [('llo ', -0.25, list(b'llo ')), ('he', -2.0, list(b'he'))]
    assert [tuple(token.values()) for token in content[1]['top_logprobs']] == best
    whole = json.loads(asyncio.run(whole_answer(HEAD, chat_shape(spell, 2), 2, stream_of(pieces_of()))))
    assert whole['choices'][0]['logprobs']['content'] == content
    assert whole['choices'][0]['message'] == {'role': 'assistant', 'content': 'hello €', 'refusal': None}


def test_an_error_inside_a_stream_is_its_last_event():
    pieces = [(0, Piece(0, 'he', (1,), (-1.0,))), RequestError(504, 'the deadline passed', code='timeout')]
    sent = collect(events(HEAD, completion_shape(spell, None, None, 1), 1, stream_of(pieces), last=True))
    error = json.loads(sent[-1].decode().removeprefix('data: '))
    assert len(sent) == 2 and error == {
        'error': {'message': 'the deadline passed', 'type': 'server_error', 'param': None, 'code': 'timeout'}
    }


def test_texts_of_several_prompts_are_numbered_and_closed_together():
    closed = []

    async def text(name, count):
        try:
            for number in range(count):
                await asyncio.sleep(0)
                yield Piece(number % 2, f'{name}{number}'), TICKET
        finally:
            closed.append(name)

    async def read(most):
        pieces, seen = merged([text('a', 2), text('b', 100)], [2, 2]), []
        async for item in pieces:
            seen.append(item)
            if len(seen) == most:
                await pieces.aclose()
        return seen

    seen = asyncio.run(read(1000))
    assert sorted({part.index for part in seen}) == [0, 1, 2, 3] and len(seen) == 102 and sorted(closed) == ['a', 'b']
    closed.clear()
    assert len(asyncio.run(read(5))) == 5 and sorted(closed) == ['a', 'b']


def test_an_error_of_one_prompt_ends_all():
    async def endless():
        while True:
            await asyncio.sleep(0)
            yield Piece(0, 'x'), TICKET

    async def late():
        raise RequestError(503, 'late')
        yield

    with pytest.raises(RequestError, match='late'):
        collect(merged([endless(), late()], [1, 1]))


@pytest.mark.parametrize(
    ('kind', 'field', 'change'),
    [
        (schema.CompletionRequest, 'prompt', {'prompt': [1.5]}),
        (schema.CompletionRequest, 'prompt', {'prompt': []}),
        (schema.CompletionRequest, 'prompt', {'prompt': [[]]}),
        (schema.CompletionRequest, 'prompt', {'prompt': ['x'] * 65}),
        (schema.CompletionRequest, 'stop', {'stop': ['a'] * 5}),
        (schema.CompletionRequest, 'stop', {'stop': ''}),
        (schema.CompletionRequest, 'stop', {'stop': 'a' * 65}),
        (schema.CompletionRequest, 'n', {'n': 17}),
        (schema.CompletionRequest, 'n', {'n': 0}),
        (schema.CompletionRequest, 'max_tokens', {'max_tokens': -1}),
        (schema.CompletionRequest, 'temperature', {'temperature': 2.5}),
        (schema.CompletionRequest, 'temperature', {'temperature': '1'}),
        (schema.CompletionRequest, 'top_p', {'top_p': 0}),
        (schema.CompletionRequest, 'logprobs', {'logprobs': 6}),
        (schema.CompletionRequest, 'logprobs', {'logprobs': True}),
        (schema.CompletionRequest, 'seed', {'seed': 2**31}),
        (schema.CompletionRequest, 'suffix', {'suffix': 'end'}),
        (schema.CompletionRequest, 'presence_penalty', {'presence_penalty': 0.5}),
        (schema.CompletionRequest, 'frequency_penalty', {'frequency_penalty': -1}),
        (schema.CompletionRequest, 'logit_bias', {'logit_bias': {'50256': -100}}),
        (schema.CompletionRequest, 'grammar', {'grammar': 'x'}),
        (schema.CompletionRequest, 'stream_options.chunk', {'stream_options': {'chunk': 1}}),
        (schema.ChatRequest, 'messages', {'messages': []}),
        (schema.ChatRequest, 'messages.0.role', {'messages': [{'role': 'tool', 'content': 'x'}]}),
        (
            schema.ChatRequest,
            'messages.0.content',
            {'messages': [{'role': 'user', 'content': [{'type': 'image_url'}]}]},
        ),
        (schema.ChatRequest, 'tools', {'tools': [{'type': 'function'}]}),
        (schema.ChatRequest, 'response_format.type', {'response_format': {'type': 'json_object'}}),
        (schema.ChatRequest, 'top_logprobs', {'top_logprobs': 21}),
        (schema.ChatRequest, 'chat_template', {'chat_template': '{{ 1 }}'}),
        (schema.EmbeddingRequest, 'input', {'input': [1, 2]}),
        (schema.EmbeddingRequest, 'encoding_format', {'encoding_format': 'hex'}),
        (schema.ImageRequest, 'response_format', {'response_format': 'url'}),
    ],
)
def test_what_is_not_supported_is_refused_by_name(kind, field, change):
    base = {
        schema.CompletionRequest: ASK, schema.EmbeddingRequest: {'model': 'm', 'input': 'x'}, schema.ImageRequest: {},
        schema.ChatRequest: {'model': 'm', 'messages': [{'role': 'user', 'content': 'x'}]},
    }[kind]  # fmt: skip
    schema.parsed(kind, json.dumps(base).encode())
    with pytest.raises(RequestError) as caught:
        schema.parsed(kind, json.dumps({**base, **change}).encode())
    assert caught.value.status == 400 and caught.value.field == field
    assert caught.value.message.startswith(f'{field}: ') and 'json' not in caught.value.message.lower().split(':')[0]


@pytest.mark.parametrize(
    'body', [b'', b'{', b'\xff', b'[1]', b'"x"', b'{"model": "\\ud800", "prompt": ""}', b'[' * 9999]
)
def test_bodies_that_are_no_request_are_refused(body):
    with pytest.raises(RequestError) as caught:
        schema.parsed(schema.CompletionRequest, body)
    assert caught.value.status == 400


@pytest.mark.parametrize('number', ['NaN', 'Infinity', '1e999'])
def test_numbers_are_finite(number):
    with pytest.raises(RequestError, match='temperature'):
        schema.parsed(schema.CompletionRequest, b'{"model": "m", "prompt": "x", "temperature": %s}' % number.encode())


def test_fields_that_change_nothing_are_accepted():
    neutral = {
        'user': 'me', 'frequency_penalty': 0, 'presence_penalty': 0.0, 'logit_bias': {}, 'suffix': None, 'n': None,
        'stop': None, 'stream': None, 'stream_options': None, 'metadata': {'a': 'b'}, 'logprobs': None,
    }  # fmt: skip
    asked = schema.parsed(schema.CompletionRequest, json.dumps({**ASK, **neutral}).encode())
    ask = text_request(TextSide('text', spell, None), asked, 'x', None, None, 0)
    assert ask.raw == {'text': 'x'} and ask.n == 1 and ask.temperature is None and ask.max_tokens == 0


def test_settings_reach_the_engine():
    given = {
        'n': 3, 'temperature': 0, 'top_p': 0.5, 'top_k': -1, 'min_p': 0.1, 'repetition_penalty': 1.2, 'seed': 9,
        'stop': 'x', 'ignore_eos': True,
    }  # fmt: skip
    asked = schema.parsed(schema.CompletionRequest, json.dumps({**ASK, **given}).encode())
    ask = text_request(TextSide('source', spell, None), asked, (5, 6), 11, 2, 4)
    assert ask.tokens == (5, 6) and not ask.raw and ask.max_tokens == 11 and ask.top_logprobs == 2
    assert (ask.temperature, ask.top_p, ask.top_k, ask.min_p, ask.repetition_penalty) == (0, 0.5, 0, 0.1, 1.2)
    assert (ask.seed, ask.n, ask.stop, ask.ignore_end) == (9, 3, ('x',), True)


@pytest.mark.parametrize(
    ('prompt', 'expected'),
    [('a', ['a']), ([1, 2], [(1, 2)]), (['a', 'b'], ['a', 'b']), ([[1], [2, 3]], [(1,), (2, 3)])],
)
def test_prompts_are_texts_or_ids(prompt, expected):
    assert prompts_of(prompt) == expected


def test_a_part_of_a_character_is_spelled_as_bytes():
    assert spelled('é'.encode()) == 'é' and spelled(b'\xc3') == 'bytes:\\xc3'


def test_a_model_without_a_chat_template_says_where_to_go():
    hosted = types.SimpleNamespace(name='lm', generates=True)
    body = json.dumps({'model': 'lm', 'messages': [{'role': 'user', 'content': 'x'}]}).encode()
    with pytest.raises(RequestError, match='no chat template; use /v1/completions') as caught:
        asyncio.run(chat_completions({'lm': hosted}, {'lm': TextSide('text', spell, None)}, body))
    assert caught.value.status == 400 and caught.value.code == 'no_chat_template'

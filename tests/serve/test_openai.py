"""Texts of the OpenAI dialect with OpenAI's own client, and chats with that of Hugging Face."""

import asyncio
import contextlib
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

openai = pytest.importorskip('openai', reason="the client 'openai' is not installed")
pytest.importorskip('uvicorn', reason="the extra 'serve' is not installed")

from etils import epath  # noqa: E402
from huggingface_hub import InferenceClient  # noqa: E402
from serve_toy import refusal, running, tiny_model, toy_model  # noqa: E402

from research.core.task import Context  # noqa: E402
from research.data.text.corpus import END, encode_text  # noqa: E402
from research.serve.chat import CHAT_FILE  # noqa: E402

TEMPLATE = "{% for message in messages %}{{ message.role[0] + ':' + message.content + bos_token }}{% endfor %}a:"
TOKEN = b'a-token-of-sixteen-letters'
PROMPT = 'import os'


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp('openai'))
    lm = tiny_model('configs/python_lm.py', folder / 'lm' / 'prepared')._replace(workdir=folder / 'lm')
    chat = {'template': TEMPLATE, 'names': {'bos_token': END}, 'special': {END: 0}}
    (folder / 'lm' / 'prepared' / CHAT_FILE).write_text(json.dumps(chat))
    return {'lm': lm, 'toy': toy_model(folder)}


@pytest.fixture(scope='module')
def server(models):
    with running(models, 300, max_batch=2, token=TOKEN) as made:
        yield made


@pytest.fixture(scope='module')
def client(server):
    url = f'{server.url}/v1'
    with contextlib.closing(openai.OpenAI(base_url=url, api_key=TOKEN.decode(), max_retries=0)) as made:
        yield made


def test_models_are_listed(client):
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {'lm', 'toy'} and all(model.object == 'model' for model in listed.values())
    assert client.models.retrieve('lm').id == 'lm'


def test_a_completion_is_the_offline_prediction(client, models):
    answers = [client.completions.create(model='lm', prompt=PROMPT, seed=seed) for seed in (0, 5, 5)]
    texts = [answer.choices[0].text for answer in answers]
    offline = [models['lm'].predict([{'text': PROMPT}], seed)[0]['text'] for seed in (0, 5)]
    assert texts == [*offline, offline[1]] and texts[0] != texts[1]
    usage, choice = answers[0].usage, answers[0].choices[0]
    assert usage.prompt_tokens == int(models['lm'].task.encode({'text': PROMPT})['length'])
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and choice.finish_reason == 'length'
    assert usage.completion_tokens == 16 and len({answer.system_fingerprint for answer in answers}) == 1
    assert answers[1].id != answers[2].id


def test_prompts_are_a_text_ids_or_lists_of_them(client, models):
    rows = [{'text': PROMPT}, {'text': 'def f'}]
    offline = [answer['text'] for answer in models['lm'].predict(rows, 2)]
    ids = []
    for row in rows:
        encoded = models['lm'].task.encode(row)
        ids.append(encoded['tokens'][: encoded['length']].tolist())
    for prompt, expected in (
        (ids[0], offline[:1]), ([PROMPT, 'def f'], offline), (ids, offline), ([PROMPT], offline[:1]),
    ):  # fmt: skip
        answer = client.completions.create(model='lm', prompt=prompt, seed=2)
        assert [choice.text for choice in answer.choices] == expected, prompt
        assert [choice.index for choice in answer.choices] == list(range(len(expected)))


def test_several_choices_differ_and_the_first_is_that_of_one(client):
    answer = client.completions.create(model='lm', prompt=[PROMPT, 'x = '], n=3, seed=1, echo=True, max_tokens=6)
    texts = [choice.text for choice in sorted(answer.choices, key=lambda choice: choice.index)]
    assert len(set(texts)) == 6
    assert all(text.startswith(PROMPT) for text in texts[:3]) and all(text.startswith('x = ') for text in texts[3:])
    alone = client.completions.create(model='lm', prompt=PROMPT, seed=1, max_tokens=6)
    assert texts[0] == PROMPT + alone.choices[0].text
    single = client.completions.create(model='lm', prompt=PROMPT, max_tokens=6).usage.prompt_tokens
    assert answer.usage.completion_tokens == 36 and answer.usage.prompt_tokens < 2 * single + 6


def test_a_stream_is_the_whole_text_in_few_events(client):
    settings = {'model': 'lm', 'prompt': PROMPT, 'seed': 4, 'logprobs': 2, 'n': 2}
    whole = client.completions.create(**settings)
    events = list(client.completions.create(**settings, stream=True, stream_options={'include_usage': True}))
    assert events[-1].choices == [] and events[-1].usage == whole.usage
    assert all(event.usage is None for event in events[:-1])
    assert len({event.id for event in events}) == 1 and len(events) < 1 + 2 * 16
    for index in range(2):
        mine = [event.choices[0] for event in events[:-1] if event.choices[0].index == index]
        assert ''.join(choice.text for choice in mine) == whole.choices[index].text
        streamed = [value for choice in mine for value in choice.logprobs.token_logprobs]
        assert streamed == whole.choices[index].logprobs.token_logprobs
        assert [choice.finish_reason for choice in mine].count(None) == len(mine) - 1
    assert all(event.usage is None for event in client.completions.create(**settings, stream=True))


def test_the_asynchronous_client_and_raw_responses(server, client):
    async def read():
        async with openai.AsyncOpenAI(base_url=f'{server.url}/v1', api_key=TOKEN.decode()) as asynchronous:
            whole = await asynchronous.completions.create(model='lm', prompt=PROMPT, seed=1)
            stream = await asynchronous.completions.create(model='lm', prompt=PROMPT, seed=1, stream=True)
            return whole.choices[0].text, ''.join([event.choices[0].text async for event in stream])

    whole, streamed = asyncio.run(read())
    assert whole == streamed
    raw = client.completions.with_raw_response.create(
        model='lm', prompt=PROMPT, seed=1, extra_headers={'X-Request-Id': 'mine-7'}
    )
    assert raw.headers['content-type'] == 'application/json' and raw.headers['x-request-id'] == 'mine-7'
    assert raw.parse().choices[0].text == whole
    with client.completions.with_streaming_response.create(model='lm', prompt=PROMPT, stream=True) as response:
        assert response.headers['content-type'].startswith('text/event-stream')
        assert list(response.iter_lines())[-2:] == ['data: [DONE]', '']


def test_log_probabilities_are_those_of_the_model(client, models):
    model = models['lm']
    answer = client.completions.create(model='lm', prompt=PROMPT, seed=3, logprobs=5, temperature=1.5)
    given = answer.choices[0].logprobs
    tokenizer = model.task.generate.tokenizer
    # Independently of the cache: the scores of whole texts, each one token longer.
    ids = encode_text(tokenizer, PROMPT)
    start, names = len(ids), {}
    for token in range(tokenizer.get_vocab_size()):
        names.setdefault(tokenizer.decode([token]), token)
    written = model.task.generate and given.tokens
    chosen = [names[text] if not text.startswith('bytes:') else None for text in written]
    assert len(written) == answer.usage.completion_tokens
    known = next((place for place, token in enumerate(chosen) if token is None), len(chosen))
    row = np.zeros(model.task.encode({'text': PROMPT})['tokens'].shape, np.int32)
    row[: start + known] = [*ids, *chosen[:known]]
    batch = {
        'tokens': row[None], 'targets': np.roll(row, -1)[None], 'length': np.int32([start + known - 1]),
        'index': np.int32([0]), 'mask': np.float32([1]),
    }  # fmt: skip
    context = Context(jax.random.key(0), jnp.int32(0), False)
    _, aux = jax.jit(lambda *inputs: model.task.losses['model'](*inputs, context))(model.variables, batch)
    logits = np.asarray(aux.outputs['logits'], np.float64)[0, start - 1 : start - 1 + known]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(
        given.token_logprobs[:known], [row[token] for row, token in zip(expected, chosen, strict=False)], atol=1e-4
    )
    for row, best in zip(expected, given.top_logprobs[:known], strict=True):
        np.testing.assert_allclose(sorted(best.values(), reverse=True), np.sort(row)[::-1][: len(best)], atol=1e-4)
    assert given.text_offset[0] == 0 and given.text_offset == sorted(given.text_offset)


def test_stops_limits_and_end_tokens(client, models):
    whole = client.completions.create(model='lm', prompt=PROMPT, seed=6).choices[0].text
    middle = whole[len(whole) // 2 :][:2]
    stopped = client.completions.create(model='lm', prompt=PROMPT, seed=6, stop=[middle, 'never to be written'])
    assert stopped.choices[0].text == whole[: whole.index(middle)] and stopped.choices[0].finish_reason == 'stop'
    events = list(client.completions.create(model='lm', prompt=PROMPT, seed=6, stop=middle, stream=True))
    assert ''.join(event.choices[0].text for event in events) == whole[: whole.index(middle)]
    short = client.completions.create(model='lm', prompt=PROMPT, seed=6, max_tokens=3)
    assert short.usage.completion_tokens == 3 and short.choices[0].finish_reason == 'length'
    longest = client.completions.create(model='lm', prompt=PROMPT, max_tokens=900_000, extra_body={'ignore_eos': True})
    assert longest.usage.total_tokens == models['lm'].task.generate.limit
    greedy = [
        client.completions.create(model='lm', prompt=PROMPT, seed=s, temperature=0).choices[0].text for s in (1, 2)
    ]
    assert greedy[0] == greedy[1]
    few = [client.completions.create(model='lm', prompt=PROMPT, seed=9, extra_body={'top_k': 1}).choices[0].text]
    assert few[0] == greedy[0]


def test_a_chat_is_the_completion_of_its_rendered_messages(client, models):
    messages = [
        {'role': 'developer', 'content': 'b'},
        {'role': 'user', 'content': [{'type': 'text', 'text': 'hi' + END}]},
    ]
    tokenizer = models['lm'].task.generate.tokenizer
    ids = [*encode_text(tokenizer, 's:b'), 0, *encode_text(tokenizer, f'u:hi{END}'), 0, *encode_text(tokenizer, 'a:')]
    expected = client.completions.create(model='lm', prompt=ids, seed=1, max_tokens=4)
    settings = {'model': 'lm', 'messages': messages, 'seed': 1, 'max_completion_tokens': 4}
    answer = client.chat.completions.create(**settings, logprobs=True, top_logprobs=3)
    assert answer.choices[0].message.content == expected.choices[0].text
    for name in ('prompt_tokens', 'completion_tokens', 'total_tokens'):  # the second prompt may be read from the first
        assert getattr(answer.usage, name) == getattr(expected.usage, name)
    assert answer.choices[0].message.role == 'assistant' and answer.object == 'chat.completion'
    content = answer.choices[0].logprobs.content
    assert b''.join(bytes(token.bytes) for token in content).decode(errors='replace') == expected.choices[0].text
    assert all(len(token.top_logprobs) == 3 for token in content)
    events = list(client.chat.completions.create(**settings, stream=True))
    assert events[0].choices[0].delta.role == 'assistant' and events[0].object == 'chat.completion.chunk'
    streamed = ''.join(event.choices[0].delta.content or '' for event in events)
    assert streamed == expected.choices[0].text and events[-1].choices[0].finish_reason == 'length'


def test_the_hugging_face_client_chats(server, client):
    messages = [{'role': 'user', 'content': 'hi'}]
    expected = client.chat.completions.create(model='lm', messages=messages, seed=1).choices[0].message.content
    other = InferenceClient(model=f'{server.url}/hf/lm', token=TOKEN.decode())
    assert other.chat_completion(messages, seed=1).choices[0].message.content == expected
    stream = other.chat_completion(messages, seed=1, stream=True)
    assert ''.join(event.choices[0].delta.content or '' for event in stream) == expected


def test_a_stream_that_nobody_reads_frees_its_slot(server, client):
    engine = server.models['lm'].engine
    with client.completions.create(model='lm', prompt=['a', 'b'], n=2, stream=True) as stream:
        next(iter(stream))
    deadline = time.monotonic() + 5
    while (engine.running or engine.waiting) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not engine.running and not engine.waiting


def test_texts_that_cannot_be_written_are_refused(client, server):
    complete, chat = client.completions.create, client.chat.completions.create
    error = refusal(lambda: complete(model='no', prompt='x'), 'model', 'lm', openai.NotFoundError)
    assert error.code == 'model_not_found' and error.type == 'not_found_error'
    refusal(lambda: complete(model='toy', prompt='x'), 'model', 'generates no text')
    refusal(lambda: complete(model='lm', prompt='word ' * 40), None, 'at most')
    refusal(lambda: complete(model='lm', prompt=[5] * 500), None, 'tokens')
    refusal(lambda: complete(model='lm', prompt=[99_999]), None, 'token')
    refusal(lambda: complete(model='lm', prompt=''), None, 'empty')
    refusal(lambda: complete(model='lm', prompt='x', best_of=2), 'best_of', 'only the value of n')
    refusal(lambda: complete(model='lm', prompt='x', logprobs=1, echo=True), 'logprobs', 'echo')
    refusal(lambda: complete(model='lm', prompt='x', max_tokens=0), 'max_tokens', 'at least 1')
    refusal(lambda: complete(model='lm', prompt=['x'] * 60, n=2), 'n', 'at most 64')
    refusal(
        lambda: complete(model='lm', prompt='x', stream_options={'include_usage': True}), 'stream_options', 'stream'
    )
    error = refusal(lambda: complete(model='lm', prompt='x', logit_bias={'1': 5}), 'logit_bias', 'does not support')
    messages = [{'role': 'user', 'content': 'x'}]
    refusal(lambda: chat(model='lm', messages=messages, tools=[{'type': 'function'}]), 'tools', 'no tools')
    refusal(lambda: chat(model='lm', messages=messages, top_logprobs=2), 'top_logprobs', 'logprobs=true')
    refusal(lambda: chat(model='toy', messages=messages), 'model', 'generates no text')
    wrong = openai.OpenAI(base_url=f'{server.url}/v1', api_key='wrong', max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        wrong.models.list()
    assert caught.value.code == 'invalid_api_key'


def test_a_full_queue_names_the_time_to_wait(client, server, monkeypatch):
    monkeypatch.setattr(server.models['lm'].admission, 'limit', 0)
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(model='lm', prompt='x', stream=True)
    assert int(caught.value.response.headers['retry-after']) >= 1 and caught.value.type == 'rate_limit_error'

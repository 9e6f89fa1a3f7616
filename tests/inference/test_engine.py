"""The engine: the same request gives the same bits in every company, and nothing compiles after the warm-up."""

import functools
import threading

import jax
import numpy as np
import pytest
from contract import plan_of
from etils import epath

from research.core.evaluate import make_evaluator
from research.core.predictions import predictions
from research.core.sharding import batch_sharding
from research.core.state import eval_variables
from research.errors import UserError
from research.inference import engine as engine_module
from research.inference import programs
from research.inference.compiled import fitting
from research.inference.engine import Engine
from research.inference.text_requests import Finish, TextRequest
from research.ops.beam_search import beam_search

SLOTS = 4
CONFIGS = {'decoder': 'configs/python_lm.py', 'translation': 'configs/multi30k_translation.py'}
FIELDS = {'decoder': 'text', 'translation': 'source'}


class Served:
    """A tiny model with random weights, and its engine after the warm-up."""

    def __init__(self, kind, folder):
        self.spec, self.field = plan_of(CONFIGS[kind], epath.Path(folder)).spec, FIELDS[kind]
        self.task, self.variables = self.spec.task, eval_variables(self.spec.init())
        self.engine = self.rebuilt()
        self.engine.warm_up()

    def rebuilt(self):
        return Engine(self.task, self.variables, self.spec.mesh, SLOTS)

    def request(self, text='a man', **settings):
        return TextRequest({self.field: text}, **{'temperature': 1.0, 'top_p': 1.0, 'top_k': 0, **settings})


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    return functools.cache(lambda kind: Served(kind, tmp_path_factory.mktemp(kind)))


@pytest.fixture(scope='module', params=CONFIGS)
def served(request, models):
    return models(request.param)


@pytest.fixture(scope='module')
def decoder(models):
    return models('decoder')


def idle(engine):
    while engine.running or engine.waiting:
        engine.step()


def generate(engine, request, *before, late=()):
    """Runs a request after others, with `late` ones that come while it grows; returns its pieces."""
    pieces = []
    for other in before:
        engine.submit(other)
    ticket = engine.submit(request, pieces.append)
    engine.step()
    for other in late:
        engine.submit(other)
    engine.finish(ticket)
    idle(engine)
    return pieces


def joined(pieces, index=0):
    """(tokens, bits of the log-probabilities, text, finish) of the pieces of one text."""
    mine = [piece for piece in pieces if piece.index == index]
    assert [piece.finish for piece in mine[:-1]] == [None] * (len(mine) - 1) and mine[-1].finish
    tokens = [token for piece in mine for token in piece.tokens]
    logprobs = [value for piece in mine for value in piece.logprobs]
    return tokens, np.float32(logprobs).tobytes(), ''.join(piece.text for piece in mine), mine[-1].finish


def test_the_same_bits_alone_in_company_in_any_slot_and_after_a_restart(served):
    request = served.request('a man', seed=3, index=5, max_tokens=12)
    alone = joined(generate(served.engine, request))
    assert len(alone[0]) > 1
    texts = ['a dog runs', 'x', 'the']
    others = [served.request(text, seed=9, max_tokens=5 + number) for number, text in enumerate(texts)]
    greedy = served.request('x y z', temperature=0.0, repetition_penalty=1.3, top_logprobs=3)
    narrow = served.request('z', top_p=0.5, min_p=0.1, top_k=7)
    companies = [((), others), (others[:2], ()), (others, (greedy,)), ((*others, greedy, narrow, *others), others)]
    for before, late in companies:
        assert joined(generate(served.engine, request, *before, late=late)) == alone
    assert joined(generate(served.rebuilt(), request, *others[:1])) == alone
    assert joined(generate(served.engine, request._replace(index=6)))[0] != alone[0]
    assert joined(generate(served.engine, request._replace(seed=4)))[0] != alone[0]


def test_offline_predictions_and_predict_have_the_tokens_of_the_engine(decoder):
    raws = [{'text': text} for text in ('import os', 'def read(', 'x', 'class A', 'for', 'if ')]
    requests = [TextRequest(raw, seed=11, index=number) for number, raw in enumerate(raws)]
    online = [joined(generate(decoder.engine, request)) for request in reversed(requests)][::-1]
    examples = [(decoder.task.encode(raw), request) for raw, request in zip(raws, requests, strict=True)]
    offline = list(decoder.rebuilt().answers(examples))
    measure = make_evaluator(decoder.task, 0, 8, batch_sharding(decoder.spec.mesh))
    with jax.set_mesh(decoder.spec.mesh):
        predicted = [outputs for _, outputs in predictions(decoder.task, measure, decoder.variables, raws, 11)]
    for (tokens, _, text, _), outputs, other in zip(online, offline, predicted, strict=True):
        assert outputs['tokens'][: outputs['length']].tolist() == tokens
        assert decoder.task.decode(outputs)['text'] == text
        assert outputs.keys() == other.keys()
        for name in outputs:
            np.testing.assert_array_equal(outputs[name], other[name], err_msg=name)


def test_an_invalid_request_offline_is_yielded_in_its_place(decoder):
    good = decoder.task.encode({'text': 'x'}), TextRequest(max_tokens=1)
    bad = decoder.task.encode({'text': 'x'}), TextRequest(max_tokens=-1)
    first, second, third, last = decoder.engine.answers([good, bad, UserError('unreadable'), good], keep_errors=True)
    assert 'max_tokens' in str(second) and str(third) == 'unreadable' and first['length'] == last['length'] == 1
    with pytest.raises(UserError, match='max_tokens'):
        list(decoder.engine.answers([good, bad]))


def test_nothing_compiles_after_the_warm_up(served):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    try:
        limit = served.engine.programs.capacity
        requests = [served.request('a' * size, max_tokens=4) for size in range(1, min(limit - 1, 16), 3)]
        requests += [
            served.request(temperature=0.0), served.request(top_p=0.5, top_k=3), served.request(n=3, max_tokens=3),
            served.request(top_logprobs=20, repetition_penalty=1.2), served.request(min_p=0.2, stop=('e', 'aa')),
            served.request(ignore_end=True), TextRequest(tokens=(1, 2, 3)),
        ]  # fmt: skip
        for request in requests:
            generate(served.engine, request, late=(requests[0],))
        assert not [name for name in compiled if 'compile' in name]
        jax.jit(lambda x: x + 3)(np.ones(3))
        assert [name for name in compiled if 'compile' in name]  # the counter works
    finally:
        jax.monitoring.clear_event_listeners()


def test_log_probabilities_are_those_of_the_raw_distribution(decoder):
    request = TextRequest(tokens=(5, 6, 7), temperature=0.7, top_k=2, repetition_penalty=1.5, top_logprobs=4)
    pieces = generate(decoder.engine, request)
    tokens, _, _, _ = joined(pieces)
    text = [5, 6, 7]

    @jax.jit
    def log_probabilities(tokens, length):
        prompts = {'tokens': tokens, 'length': length}
        cache = decoder.task.generate.start(decoder.variables, prompts, 8)
        return jax.nn.log_softmax(decoder.task.generate.step(decoder.variables, cache, tokens[:, length[0] - 1])[1])[0]

    seen = [(value, top) for piece in pieces for value, top in zip(piece.logprobs, piece.top, strict=True)]
    for token, (value, top) in list(zip(tokens, seen, strict=True))[:3]:
        logs = np.asarray(log_probabilities(np.int32([text + [0] * (8 - len(text))]), np.int32([len(text)])))
        np.testing.assert_allclose(value, logs[token], rtol=1e-4)
        best = np.argsort(-logs, kind='stable')[:4]
        assert [index for index, _ in top] == best.tolist()
        np.testing.assert_allclose([share for _, share in top], logs[best], rtol=1e-4)
        text.append(token)


def test_several_texts_of_one_prompt(decoder):
    request = decoder.request(seed=2, max_tokens=6)
    alone, prompt = joined(generate(decoder.engine, request)), decoder.engine.counts.prompt
    pieces = generate(decoder.engine, request._replace(n=6))  # more than there are slots
    texts = [joined(pieces, index)[0] for index in range(6)]
    assert joined(pieces) == alone and len({tuple(text) for text in texts}) == 6
    assert decoder.engine.counts.prompt - prompt == len(decoder.task.generate.tokenizer.encode('a man').ids)


def test_texts_end_at_stop_strings_end_tokens_and_their_length(decoder):
    request = decoder.request(seed=1, max_tokens=10, ignore_end=True)
    tokens, _, text, finish = joined(generate(decoder.engine, request))
    assert finish is Finish.LENGTH and len(tokens) == 10 and len(text) > 4
    stop = text[3:5]
    shorter, _, shown, finish = joined(generate(decoder.engine, request._replace(stop=(stop, 'never there'))))
    assert finish is Finish.STOP and shown == text[: text.index(stop)] and shorter == tokens[: len(shorter)]
    assert len(shorter) < len(tokens) and stop in decoder.engine.texts.decode(shorter)
    end = decoder.task.generate.end[0]
    seeds = (joined(generate(decoder.engine, decoder.request(seed=seed, max_tokens=14))) for seed in range(200))
    tokens, _, text, finish = next(found for found in seeds if found[3] is Finish.STOP)
    assert tokens[-1] == end and end not in tokens[:-1] and '<|' not in text


def test_a_cancelled_request_frees_its_slot_within_one_dispatch(decoder):
    engine, long = decoder.engine, decoder.request(max_tokens=14, ignore_end=True)
    engine._step_seconds = 1.0  # so that a dispatch makes one token
    pieces, waiting = [], []
    tickets = [engine.submit(long, pieces.append) for _ in range(SLOTS)]
    late = engine.submit(decoder.request('y', max_tokens=1, ignore_end=True), waiting.append)
    dropped = engine.submit(long, waiting.append)
    engine.step()
    assert engine.running == SLOTS and engine.waiting == 2
    tickets[1].cancel()
    dropped.cancel()
    engine.step()
    assert late.texts[0].taken == 1 and tickets[1].ended.is_set() and dropped.ended.is_set()
    for ticket in tickets:
        ticket.cancel()
        ticket.cancel()
    engine.step()
    count = len(pieces)
    engine.step()
    assert engine.running == 0 and len(pieces) == count and [piece.finish for piece in waiting] == [Finish.LENGTH]


def test_a_request_that_is_cancelled_just_before_it_gets_its_slot_ends(decoder, monkeypatch):
    engine, free = decoder.engine, decoder.engine._free
    ticket = engine.submit(decoder.request(max_tokens=4, ignore_end=True))

    def free_then_cancel():
        free()
        ticket.cancel()

    monkeypatch.setattr(engine, '_free', free_then_cancel)
    engine.step()
    assert ticket.ended.is_set() and engine.running == engine.waiting == 0


def test_an_error_in_one_request_ends_only_that_one(decoder, monkeypatch):
    engine, request = decoder.engine, decoder.request(seed=5, max_tokens=8, ignore_end=True)
    alone = joined(generate(engine, request))
    prefill, told = engine.programs.prefill, []

    def failing(prompts, length):
        if length == 3:
            raise RuntimeError('out of memory')
        return prefill(prompts, length)

    def refuses(piece):
        raise ValueError('the client is gone')

    monkeypatch.setattr(engine.programs, 'prefill', failing)
    ended = engine.submit(TextRequest(tokens=(1, 2, 3)), told.append)
    gone = engine.submit(decoder.request(max_tokens=14), refuses)
    assert joined(generate(engine, request)) == alone
    assert [str(error) for error in told] == ['out of memory'] and ended.ended.is_set() and gone.ended.is_set()
    with pytest.raises(RuntimeError, match='out of memory'):
        engine.finish(ended)


def test_the_engine_outlives_a_failed_dispatch(decoder, monkeypatch):
    engine, request, told = decoder.engine, decoder.request(max_tokens=4, ignore_end=True), []
    alone = joined(generate(engine, request))
    with monkeypatch.context() as patch:
        patch.setattr(engine.programs, 'decode', lambda *_: 1 / 0)
        engine.submit(request, told.append)
        engine.step()
    assert isinstance(told[0], ZeroDivisionError) and len(told) == 1 and not engine.running
    assert joined(generate(engine, request)) == alone


@pytest.fixture(scope='module')
def parts(decoder):
    """An engine that reads prompts in parts of 8 tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, 'PART', 8)
        patch.setattr(programs, 'SMALLEST', 2)
        engine = decoder.rebuilt()
        engine.warm_up()
        yield engine


def test_long_prompts_are_read_in_parts_and_prefixes_again_without_changing_a_bit(decoder, parts):
    rng = np.random.default_rng(0)
    prompt = tuple(rng.integers(1, 300, 30).tolist())
    similar = [(*prompt[:17], 5, 6, 7), prompt[:16], prompt[:9], (*prompt[:24], 9), prompt[:8], prompt[1:20]]
    requests = [TextRequest(tokens=tokens, temperature=1.0, seed=4, max_tokens=6) for tokens in (prompt, *similar)]
    fresh = []
    for request in requests:
        parts.prefixes.rows.clear()
        fresh.append(joined(generate(parts, request)))
    parts.prefixes.rows.clear()
    before, compiled = parts.counts, set(parts.programs.compiled)
    busy = decoder.request(max_tokens=14, ignore_end=True)
    for number in (0, 1, 2, 3, 4, 5, 6, 0, 3):
        assert joined(generate(parts, requests[number], busy, busy)) == fresh[number]
    cached = parts.counts.cached - before.cached
    assert cached >= 16 + 16 + 8 + 24 + 8 + 30 + 9 and set(parts.programs.compiled) == compiled
    assert len(parts.prefixes.rows) == parts.prefixes.size
    greedy = [request._replace(temperature=0.0) for request in requests]
    for request in greedy:  # the other engine reads each prompt at once
        assert joined(generate(parts, request))[0] == joined(generate(decoder.engine, request))[0]


def test_a_long_prompt_lets_others_grow_between_its_parts(decoder, parts, monkeypatch):
    monkeypatch.setattr(engine_module, 'PROMPT_TOKENS', 8)
    parts._step_seconds = 1.0  # so that a dispatch makes one token
    parts.prefixes.rows.clear()
    running = parts.submit(decoder.request(max_tokens=14, ignore_end=True))
    parts.step()
    long = parts.submit(TextRequest(tokens=tuple(range(1, 26)), max_tokens=2))
    grown = []
    while not long.texts[0].taken:
        parts.step()
        grown.append(running.texts[0].taken)
    assert grown == [2, 3, 4, 5] and long.known == 25 and long.cached_tokens == 0
    idle(parts)


def test_beam_search_gives_the_n_best_texts(served):
    engine, pieces = served.engine, []
    example = served.task.encode({served.field: 'a man'})
    beams = engine.programs.beams
    request = TextRequest({served.field: 'a man'}, beams=beams, n=2)
    engine.submit(served.request(max_tokens=3))
    engine.finish(engine.submit(request, pieces.append))
    generate_ = served.task.generate
    prompts = generate_.prompts({name: np.asarray(value)[None] for name, value in example.items()})
    most, exponent = generate_.decoding.max_new_tokens, generate_.decoding.length_penalty
    search = jax.jit(lambda v, p: beam_search(generate_, v, p, most, beams, exponent, beams))
    best = search(served.variables, prompts)
    for index in range(2):
        length = int(best.length[0, index])
        tokens, _, text, finish = joined(pieces, index)
        assert tokens == best.tokens[0, index, :length].tolist() and text == engine.texts.decode(tokens)
        assert finish is (Finish.STOP if best.finished[0, index] else Finish.LENGTH)
    short = engine.submit(request._replace(max_tokens=2, n=1), pieces.append)
    assert engine.finish(short)['length'] <= 2
    with pytest.raises(UserError, match=f'beams must be 0 or {beams}'):
        engine.submit(request._replace(beams=beams + 1))
    with pytest.raises(UserError, match='n=9'):
        engine.submit(request._replace(n=9))


def test_slots_fit_into_the_memory(decoder):
    row = decoder.engine.programs.row
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(row))
    assert [fitting(row, 32, memory) for memory in (0, size * 5.5, size * 99)] == [1, 5, 32]
    assert Engine(decoder.task, decoder.variables, decoder.spec.mesh).slots == 32


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'temperature': float('nan')}, 'temperature must be'), ({'top_p': 0.0}, 'top_p must be'),
        ({'max_tokens': -1}, 'max_tokens must be'), ({'seed': 2**31}, 'seed must be'), ({'n': 0}, 'n must be'),
        ({'top_logprobs': 21}, 'top_logprobs must be'), ({'stop': ('',)}, 'stop: at most'), ({'top_k': -1}, 'top_k'),
        ({'repetition_penalty': 0.0}, 'repetition_penalty must be'), ({'tokens': (1,)}, 'either fields or tokens'),
        ({'raw': {}, 'tokens': (-1,)}, 'ids must be from 0 to 319, got -1'), ({'raw': {}, 'tokens': (320,)}, 'got 320'),
        ({'raw': {}, 'tokens': (1,) * 32}, 'expected 1 to 31 ids, got 32'), ({'raw': {'text': ''}}, 'empty'),
    ],
)  # fmt: skip
def test_invalid_requests_are_refused_when_submitted(decoder, settings, message):
    with pytest.raises(UserError, match=message):
        decoder.engine.submit(decoder.request()._replace(**settings))


def test_a_thread_serves_many_threads(decoder):
    engine = decoder.engine
    requests = [decoder.request(seed=seed, max_tokens=5) for seed in range(8)]
    expected = [joined(generate(engine, request)) for request in requests]
    found = [[] for _ in requests]
    worker = threading.Thread(target=engine.run)
    worker.start()

    def client(number):
        engine.finish(engine.submit(requests[number], found[number].append))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(len(requests))]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    engine.stop()
    worker.join(60)
    assert not worker.is_alive() and [joined(pieces) for pieces in found] == expected
    with pytest.raises(UserError, match='stopped'):
        engine.submit(requests[0])

"""A server for tests of the page: cards of every kind of input, and answers that need no model.

    python tests/serve/fake_server.py [PORT]

It keeps the requests it received in `received`, and counts the streams whose client went away in `cut`.
"""

import base64
import functools
import http.server
import io
import json
import math
import sys
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from research.serve.page import page_files

TOKEN = 'open-sesame'
PROVENANCE = {
    'config': 'configs/NAME.py',
    'code': 'ac5c9b8d20fe',
    'data': {'name': 'digits', 'train': 1259, 'test': 269},
    'versions': {'jax': '0.10.2', 'flax': '0.12.8', 'python': '3.11.7'},
}
TEXT = 'import| os|\n|def| read|(|path|)|:|\n    |return| open|(path)|.read()|\n'
WORDS = TEXT.split('|')
LABELS = ('description', 'entity', 'abbreviation', 'human', 'location', 'number')


def png(side: int, seed: int = 0) -> str:
    """A picture as base64: a grey disc that depends on the seed."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    values = np.clip(1.2 - 3 * np.hypot(rows + 0.03 * (seed % 5), columns - 0.05 * (seed % 3)), 0, 1)
    file = io.BytesIO()
    Image.fromarray((255 * values * (0.7 + 0.3 * np.cos(20 * rows * (1 + seed % 4)))).astype(np.uint8)).save(
        file, 'PNG'
    )
    return base64.b64encode(file.getvalue()).decode()


def wav(seconds: float = 0.3, rate: int = 8000) -> str:
    """A falling tone as base64."""
    times = np.arange(int(seconds * rate)) / rate
    samples = (12000 * np.sin(2 * np.pi * 440 * times) * np.exp(-4 * times)).astype('<i2')
    file = io.BytesIO()
    with wave.open(file, 'wb') as sound:
        sound.setparams((1, 2, rate, 0, 'NONE', ''))
        sound.writeframes(samples.tobytes())
    return base64.b64encode(file.getvalue()).decode()


def field(kind: str, about: str = '', limit: int = 0, shape: Sequence[int] = (), **more: Any) -> dict[str, Any]:
    """One entry of a card's `inputs`."""
    return {'kind': kind, 'shape': list(shape), 'limit': limit, 'about': about, 'items': {}, **more}


def card(
    name: str, task: str, about: str, inputs: dict[str, Any], examples: Sequence[Any] = (), **more: Any
) -> dict[str, Any]:
    """A card with a metric, a date and its provenance."""
    metric = {
        'value': 0.9896,
        'baseline': 0.1004,
        'better': 'higher',
        'about': 'share of examples whose class is right',
    }
    made = {**PROVENANCE, 'config': f'configs/{name}.py'}
    return {
        'name': name,
        'task': task,
        'about': about,
        'inputs': inputs,
        'generates': False,
        'metrics': {
            'accuracy': metric,
            'loss': {'value': 0.0412, 'baseline': 2.303, 'better': 'lower', 'about': 'nats'},
        },
        'trained': '2026-11-28T14:03:00+00:00',
        'step': 1580,
        'parameters': 173842,
        'provenance': made,
        'fingerprint': '5f0c2a9be1d477aa03',
        'examples': list(examples),
        **more,
    }


def picture_of(seed: int, side: int = 8) -> dict[str, str]:
    return {'base64': png(side, seed), 'media_type': 'image/png'}


CONTEXT = 'The mill was built by Anna Berg in 1902. 🌊 Her son ran it until the flood of 1931, which took the wheel.'
LOSS = {'loss': {'value': 4.57, 'baseline': 6.41, 'better': 'lower', 'about': 'nats per token'}}


@functools.cache
def cards() -> list[dict[str, Any]]:
    """One model for each kind of input and of answer."""
    text = {'text': field('text', 'a question', 2000)}
    choices = {
        'workclass': ['Private', 'Self-employed', 'Government'],
        'education': ['Bachelors', 'Masters', 'Doctorate', 'High school', '11th', '9th', 'Preschool', 'College'],
    }
    table = {
        name: field('number', 'mean 38.6, standard deviation 13.7 in training') for name in ('age', 'hours_per_week')
    }
    table |= {
        name: field('category', ', '.join(values), len(values), choices=values) for name, values in choices.items()
    }
    questions = [
        {'text': 'What is the capital of Norway ?'},
        {'text': 'Who wrote the first novel about a robot that could dream ?'},
    ]
    drawn = {
        'seed': field('number'),
        'to': field('number', 'second seed'),
        'at': field('number', 'between 0 and 1'),
        'label': field('category', '0 to 9 or a class name; default: random', 10),
    }
    items = {'kind': field('category', choices=['rest', 'note']), 'pitch': field('number')}
    return [
        card(
            'digits',
            'image_classification',
            'Images: a small residual network on handwritten digits.',
            {'image': field('image', 'grey or colour; scaled to 8 x 8', 4096, (8, 8, 1))},
            [{'image': picture_of(seed)} for seed in range(4)],
        ),
        card('trec', 'text_classification', 'Texts: TREC question classification into six classes.', text, questions),
        card('trec_small', 'text_classification', 'Texts: a smaller model of the same questions.', text, questions),
        card(
            'adult',
            'table_classification',
            'Tables: does a person earn more than 50,000 dollars a year?',
            table,
            [{'age': 39, 'hours_per_week': 40, 'workclass': 'Private', 'education': 'Masters'}],
        ),
        card(
            'spoken_digits',
            'audio_classification',
            'Sounds: spoken digits, ten words.',
            {'audio': field('audio', '1 s at 8,000 Hz', 60), 'rate': field('number')},
            [{'audio': {'base64': wav(), 'media_type': 'audio/wav'}}],
        ),
        card(
            'python_lm',
            'language_model',
            'Language modelling: a small Transformer on Python source.',
            {'text': field('text', 'continued by the model', 400)},
            [{'text': 'import os\n'}, {'text': 'def read('}],
            generates=True,
            metrics=LOSS,
            settings={'max_tokens': 24, 'temperature': 0.7, 'top_k': 0, 'top_p': 0.9},
        ),
        card(
            'multi30k',
            'translation',
            'Translation: German to English.',
            {'source': field('text', 'German', 600)},
            [{'source': 'Ein Hund läuft über die Wiese.'}],
        ),
        card(
            'digits_gan',
            'image_generation',
            'Pictures: a conditional GAN on handwritten digits.',
            drawn,
            [{'label': 3}],
            choices={'label': [str(k) for k in range(10)]},
            metrics={},
        ),
        card(
            'squad',
            'question_answering',
            'Questions answered from a text: SQuAD 1.1.',
            {
                'question': field('text', 'at most 32 tokens are read', 20000),
                'context': field('text', 'the text that contains the answer', 20000),
            },
            [{'question': 'Who built the mill?', 'context': CONTEXT}],
            metrics={'f1': {'value': 45.9, 'baseline': 22.6, 'better': 'higher', 'about': ''}},
        ),
        card(
            'super_resolution',
            'image_restoration',
            'Pictures: twice the size.',
            {'image': field('image', 'any size', 4096)},
            [{'image': picture_of(1, 24)}],
        ),
        card(
            'splices',
            'sequence_classification',
            'Sequences: splice sites in DNA.',
            {'sequence': field('sequence', 'letters ACGT', 100)},
        ),
        card('topics', 'text_classification', 'Texts: several labels.', {'text': field('text')}),
        card(
            'features',
            'speech_recognition',
            'Arrays: features computed elsewhere.',
            {'features': field('array', 'frames', 0, (0, 3))},
        ),
        card(
            'melody',
            'event_classification',
            'Lists: notes of a melody.',
            {'events': field('list', 'one to four notes', 4, items=items)},
        ),
        card('noise', 'image_generation', 'Pictures: no input.', {}),
    ]


def classes(names: Sequence[str], seed: int) -> dict[str, Any]:
    """An answer of a classifier."""
    weights = np.exp(-np.arange(len(names)) * 1.3)
    ranked = [names[(seed + k) % len(names)] for k in range(len(names))]
    top = [
        {'label': label, 'probability': round(float(share), 6)}
        for label, share in zip(ranked, weights / weights.sum(), strict=True)
    ]
    return {**top[0], 'top': top[:5]}


def image(side: int, seed: int) -> dict[str, Any]:
    return {'type': 'image', 'media_type': 'image/png', 'base64': png(side, seed), 'width': side, 'height': side}


def answer(name: str, inputs: dict[str, Any], seed: int) -> Any:
    """The answer of a model to valid inputs."""
    if name in ('digits', 'spoken_digits', 'features'):
        return classes([str(k) for k in range(10)], len(str(inputs)) % 10)
    if name in ('trec', 'trec_small', 'splices'):
        return classes(LABELS, len(name) + len(next(iter(inputs.values()))))
    if name == 'topics':
        return {
            'labels': ['sport', 'travel'],
            'probability': {'sport': 0.94, 'travel': 0.61, 'food': 0.2, 'money': 0.04},
        }
    if name == 'adult':
        return classes(['<=50K', '>50K'], int(inputs.get('age', 0) > 30))
    if name == 'multi30k':
        return {
            'text': 'A dog runs across the meadow.',
            'sound': {'type': 'audio', 'media_type': 'audio/wav', 'base64': wav(), 'seconds': 0.3},
        }
    if name == 'squad':
        start = len(inputs['context'].split('Anna')[0]) if 'Anna' in inputs['context'] else 0
        best = {
            'answer': inputs['context'][start : start + 9],
            'start': start,
            'stop': start + 9,
            'score': 7.1,
            'probability': 0.83,
        }
        other = {**best, 'answer': inputs['context'][-9:], 'start': 5, 'stop': 14, 'score': 4.0, 'probability': 0.11}
        return {**best, 'n_best': [best, other]}
    if name == 'super_resolution':
        return {'image': image(48, 1), 'psnr': 31.204, 'ssim': 0.9012}
    if name == 'melody':
        return {'value': 0.731}
    label = {'label': str(inputs.get('label', seed % 10))} if name == 'digits_gan' else {}
    return {'image': image(32, int(inputs.get('seed', seed))), **label}


def check(name: str, inputs: dict[str, Any]) -> tuple[int, str, str] | None:
    """(status, message, field) of what is wrong with a request, None if nothing is."""
    known = next(model for model in cards() if model['name'] == name)['inputs']
    for key, value in inputs.items():
        if key not in known:
            return 400, f'request field {key!r} is unknown', f'inputs.{key}'
        if value == 'busy':
            return 429, 'the queue is full', ''
        if value == 'bad':
            return 400, f'{key}: the word "bad" cannot be read', f'inputs.{key}'
        if known[key]['kind'] in ('image', 'audio'):
            base64.b64decode(value, validate=True)
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    """Routes of the own dialect, and the page."""

    protocol_version = 'HTTP/1.1'
    server: 'FakeServer'

    def log_message(self, format: str, *arguments: Any) -> None: ...

    def do_GET(self) -> None:
        file = page_files().get(self.path.split('?')[0])
        if file:
            headers, body = file.response(self.headers.get('Accept-Encoding', ''))
            return self.reply(200, body, headers)
        if (
            self.path == '/models'
            and self.server.token
            and self.headers.get('Authorization') != f'Bearer {self.server.token}'
        ):
            return self.fail(401, 'a token is needed')
        if self.path == '/models':
            return self.json(
                200, {'models': [one for one in cards() if not self.server.names or one['name'] in self.server.names]}
            )
        return self.fail(404, 'there is no such address')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        _, _, name, action = self.path.split('/')
        self.server.received.append({'path': self.path, 'body': body})
        if action == 'predict:batch':
            answers = [{'answer': answer(name, one['inputs'], one.get('seed', 0))} for one in body['requests']]
            return self.json(200, {'answers': answers, 'milliseconds': {'queue': 0.31, 'compute': 12.4}})
        if wrong := check(name, body['inputs']):
            return self.fail(*wrong)
        if action == 'generate':
            return self.stream(body)
        if 'slow' in str(body['inputs'].get('text')):
            time.sleep(1.0)
        reply = {'answer': answer(name, body['inputs'], body.get('seed', 0)), 'model': name, 'fingerprint': '5f0c'}
        return self.json(200, {**reply, 'milliseconds': {'queue': 0.214, 'compute': 3.082}})

    def stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        for name, value in {
            'Content-Type': 'text/event-stream',
            'Cache-Control': 'no-store',
            'Connection': 'close',
        }.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for event in tokens(body):
                self.wfile.write(b'data: ' + json.dumps(event).encode() + b'\n\n')
                self.wfile.flush()
                time.sleep(self.server.pause)
            self.wfile.write(b'data: [DONE]\n\n')
        except OSError:
            self.server.cut += 1
        self.close_connection = True

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, 'Content-Length': str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def json(self, status: int, value: Any, **headers: str) -> None:
        self.reply(status, json.dumps(value).encode(), {'Content-Type': 'application/json', **headers})

    def fail(self, status: int, message: str, where: str = '') -> None:
        retry = {'Retry-After': '2'} if status == 429 else {}
        self.json(status, {'error': {'message': message, 'field': where, 'code': ''}}, **retry)


def tokens(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a stream: two tokens each."""
    count = body.get('max_tokens', 24)
    for first in range(0, count, 2):
        made = []
        for place in range(first, min(first + 2, count)):
            shares = (0.97, 0.71, 0.42, 0.17, 0.05)
            share = shares[(place * 7 + body.get('seed', 0)) % 5]
            text = WORDS[place % len(WORDS)]
            rest = [
                {'text': WORDS[(place + k) % len(WORDS)], 'logprob': math.log((1 - share) / (k + 1))} for k in (1, 2, 3)
            ]
            top = sorted([{'text': text, 'logprob': math.log(share)}, *rest], key=lambda other: -other['logprob'])
            made.append({'text': text, 'logprob': math.log(share), 'top': top})
        finish = 'length' if first + 2 >= count else None
        yield {'text': ''.join(token['text'] for token in made), 'tokens': made, 'finish': finish}


class FakeServer(http.server.ThreadingHTTPServer):
    """Listens on a free port of the loopback; `names` limits the models, `token` makes it ask for one."""

    daemon_threads = True

    def __init__(self, port: int = 0, names: Sequence[str] = (), token: str = '', pause: float = 0.01):
        super().__init__(('127.0.0.1', port), Handler)
        self.names, self.token, self.pause = names, token, pause
        self.received: list[dict[str, Any]] = []
        self.cut = 0
        self.address = f'http://127.0.0.1:{self.server_port}'
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None: ...  # a client that went away


if __name__ == '__main__':
    print(FakeServer(int(sys.argv[1]) if len(sys.argv) > 1 else 8000, pause=0.05).address)
    threading.Event().wait()

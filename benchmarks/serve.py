"""What serving costs: latency and requests a second of a classifier, tokens a second of a language model.

    python -m benchmarks.serve --classifier=runs/digits --language_model=runs/python_lm
    python -m benchmarks.serve --classifier=runs/digits --peer   # beside LitServe (pip install litserve)

The server is a process of its own, the clients are in this one, and both sides take turns with the bare function: each
figure is the median of `--repeats` rounds. Prints one JSON object.
"""

import asyncio
import base64
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

import launch.flags
import research
from research.serve.batcher import Job
from research.serve.programs import Programs
from research.serve.samples import example_inputs
from research.serve.values import input_json

CLASSIFIER = flags.DEFINE_string('classifier', '', 'The run of an image classifier.')
LANGUAGE_MODEL = flags.DEFINE_string('language_model', '', 'The run of a language model.')
CLIENTS = flags.DEFINE_integer('clients', 32, 'Clients at the same time.')
REQUESTS = flags.DEFINE_integer('requests', 200, 'Requests of a round of the classifier.')
TOKENS = flags.DEFINE_integer('tokens', 64, 'Tokens of each text.')
REPEATS = flags.DEFINE_integer('repeats', 5, 'Rounds.')
PEER = flags.DEFINE_bool('peer', False, 'Also measure LitServe around the same jitted function.')
SLOTS = flags.DEFINE_integer('slots', 32, 'Slots of the language model.')

PEER_SERVER = """
import base64, sys
import litserve, numpy as np, research
from research.serve.programs import Programs, shaped
from research.serve.batcher import Job

class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.model = research.load(sys.argv[1])
        self.programs = Programs(self.model, 32)
        self.programs.collect()
        self.programs.compile()

    def decode_request(self, request):
        return self.model.task.encode({'image': base64.b64decode(request['inputs']['image']['base64'])})

    def batch(self, inputs):
        return inputs

    def predict(self, examples):
        return self.programs.run([Job(example, (), 0, 0, '') for example in examples])

    def unbatch(self, outputs):
        return outputs

    def encode_response(self, outputs):
        return {'answer': self.model.task.decode(outputs)}

if __name__ == '__main__':
    api = Classifier(max_batch_size=32, batch_timeout=0.005)
    litserve.LitServer(api, accelerator='cpu', workers_per_device=1).run(port=int(sys.argv[2]), log_level='error')
"""


def payload(path: str, body: Any, binary: bytes = b'', head_length: int = 0) -> bytes:
    """The bytes of a POST request."""
    content = json.dumps(body).encode() if not binary else binary
    media = 'application/octet-stream' if binary else 'application/json'
    extra = f'Inference-Header-Content-Length: {head_length}\r\n' if head_length else ''
    head = f'POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media}\r\n{extra}'
    return f'{head}Content-Length: {len(content)}\r\n\r\n'.encode() + content


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Sends a request on an open connection and reads the answer."""
    writer.write(request)
    head = await reader.readuntil(b'\r\n\r\n')
    if b' 200 ' not in head.split(b'\r\n', 1)[0]:
        raise RuntimeError((head + await reader.read(2000)).decode())
    length = re.search(rb'content-length: (\d+)', head, re.IGNORECASE)
    return await (reader.readexactly(int(length[1])) if length else reader.readuntil(b'0\r\n\r\n'))


async def load(port: int, request: Callable[[int], bytes], clients: int, count: int) -> tuple[float, list[float]]:
    """Sends `count` requests from several clients; returns the seconds, and the latency of each request."""
    numbers, latencies = iter(range(count)), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection('127.0.0.1', port, limit=1 << 26)
        for number in numbers:
            started = time.perf_counter()
            await exchange(reader, writer, request(number))
            latencies.append(time.perf_counter() - started)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.perf_counter() - started, latencies


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    return {f'p{p}': round(float(np.percentile(seconds, p)) * 1000, 2) for p in (50, 95, 99)}


def start(command: Sequence[str], ready: str) -> tuple[subprocess.Popen, int]:
    """Starts a server and waits for the line of its standard error with its port."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if found := re.search(ready, line):
            # Read on, or the server would wait when the pipe is full.
            subprocess.Popen(['cat'], stdin=process.stderr, stdout=subprocess.DEVNULL)
            return process, int(found[1])
    raise RuntimeError(f'{command[2]} did not start')


def serve(workdir: str, *options: str) -> tuple[subprocess.Popen, int]:
    """Starts our server."""
    command = [sys.executable, '-m', 'launch.serve', f'--workdir=model={workdir}', '--port=0', '--queue=1024', *options]
    return start(command, r'open http://127\.0\.0\.1:(\d+)/')


def start_peer(workdir: str, port: int) -> subprocess.Popen:
    """Starts LitServe and waits until it answers."""
    process = subprocess.Popen([sys.executable, '-c', PEER_SERVER, workdir, str(port)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        try:
            asyncio.run(asyncio.wait_for(asyncio.open_connection('127.0.0.1', port), 1))
            return process
        except OSError:
            time.sleep(0.2)
    raise RuntimeError('LitServe did not start')


def classifier(workdir: str) -> dict[str, Any]:
    """S4 and S6: latency added by the server, and requests a second of many clients."""
    model = research.load(workdir)
    programs = Programs(model, 32)
    programs.collect()
    programs.compile()
    pixels = next(iter(example_inputs(model.task)))['image']
    example = model.task.encode({'image': pixels})
    image = input_json(model.task.inputs['image'], pixels)
    ours = payload('/models/model/predict', {'inputs': {'image': image}})
    theirs = payload('/predict', {'inputs': {'image': image}})
    raw = base64.b64decode(image['base64'])
    head = {
        'inputs': [
            {'name': 'image', 'shape': [1], 'datatype': 'BYTES', 'parameters': {'binary_data_size': len(raw) + 4}}
        ],
        'parameters': {'binary_data_output': True},
    }
    text = json.dumps(head).encode()
    binary = payload('/v2/models/model/infer', {}, text + len(raw).to_bytes(4, 'little') + raw, len(text))
    process, port = serve(workdir)
    peer_port = port + 1 if port < 65_000 else 20_000
    rows: dict[str, list] = {name: [] for name in ('bare', 'json', 'binary', 'many', 'peer_one', 'peer_many')}
    peer = start_peer(workdir, peer_port) if PEER.value else None
    try:
        for name, request in (('json', ours), ('binary', binary)):
            asyncio.run(load(port, lambda number, request=request: request, 1, 20))  # the first requests are slower
            rows[name].clear()
        for _ in range(REPEATS.value):
            for _ in range(REQUESTS.value // 4):
                started = time.perf_counter()
                programs.run([Job(example, (), 0, 0, '')])
                rows['bare'].append(time.perf_counter() - started)
            for name, request in (('json', ours), ('binary', binary)):
                answer = asyncio.run(load(port, lambda number, request=request: request, 1, REQUESTS.value // 4))
                rows[name] += answer[1]
            rows['many'].append(asyncio.run(load(port, lambda number: ours, CLIENTS.value, REQUESTS.value * 4)))
            if peer:
                rows['peer_one'] += asyncio.run(load(peer_port, lambda number: theirs, 1, REQUESTS.value // 4))[1]
                answer = asyncio.run(load(peer_port, lambda number: theirs, CLIENTS.value, REQUESTS.value * 4))
                rows['peer_many'].append(answer)
    finally:
        for each in (process, peer):
            if each:
                each.terminate()
    found = {name: percentiles(rows[name]) for name in ('bare', 'json', 'binary', 'peer_one') if rows[name]}
    for name in ('many', 'peer_many'):
        if rows[name]:
            rate = statistics.median(REQUESTS.value * 4 / seconds for seconds, _ in rows[name])
            latencies = percentiles([each for _, latencies in rows[name] for each in latencies])
            found[name] = {'requests_per_second': round(rate, 1), **latencies}
    return found


def language_model(workdir: str) -> dict[str, Any]:
    """S1: tokens a second of many clients, beside the engine without a server, and one text after another."""
    from research.inference.engine import Engine
    from research.inference.text_requests import TextRequest

    model = research.load(workdir)
    engine = Engine(model.task, model.variables, model.mesh, SLOTS.value)
    engine.warm_up()
    field, clients = next(iter(model.task.inputs)), CLIENTS.value
    prompts = [model.task.encode({field: text}) for text in ('import os', 'def read(', 'class A', 'for x in')]

    def texts(count: int) -> float:
        asks = (
            (prompts[number % 4], TextRequest(max_tokens=TOKENS.value, ignore_end=True, seed=number))
            for number in range(count)
        )
        started = time.perf_counter()
        list(engine.answers(asks))
        return count * TOKENS.value / (time.perf_counter() - started)

    def request(number: int) -> bytes:
        text = ('import os', 'def read(', 'class A', 'for x in')[number % 4]
        settings = {'max_tokens': TOKENS.value, 'seed': number}
        return payload('/models/model/generate', {'inputs': {field: text}, **settings})

    process, port = serve(workdir, f'--slots={SLOTS.value}')
    rates: dict[str, list[float]] = {'one_at_a_time': [], 'engine': [], 'server': []}
    try:
        for _ in range(REPEATS.value):
            rates['one_at_a_time'].append(texts(1))
            rates['engine'].append(texts(clients))
            before = tokens_of(port)
            seconds, _ = asyncio.run(load(port, request, clients, clients))
            rates['server'].append((tokens_of(port) - before) / seconds)
    finally:
        process.terminate()
    return {f'{name}_tokens_per_second': round(statistics.median(values), 1) for name, values in rates.items()}


def tokens_of(port: int) -> float:
    """The tokens that a server has generated."""

    async def scrape() -> bytes:
        reader, writer = await asyncio.open_connection('127.0.0.1', port)
        writer.write(b'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        return await reader.read()

    found = re.search(rb'tessera_tokens_total\{kind="generated",[^}]*\} ([\d.e+]+)', asyncio.run(scrape()))
    return float(found[1]) if found else 0.0


def main(overrides: dict[str, str]) -> None:
    """Prints the figures."""
    del overrides
    figures: dict[str, Any] = {'cores': os.cpu_count(), 'load': round(os.getloadavg()[0], 1), 'clients': CLIENTS.value}
    if CLASSIFIER.value:
        figures['classifier'] = classifier(CLASSIFIER.value)
    if LANGUAGE_MODEL.value:
        figures['language_model'] = language_model(LANGUAGE_MODEL.value)
    print(json.dumps(figures, indent=2))


if __name__ == '__main__':
    launch.flags.run(main)

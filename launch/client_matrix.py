"""Asks every model of a running server with the clients of every protocol, and prints the results as a table.

    python -m launch.serve --workdir=runs/digits --workdir=runs/python_lm
    python -m launch.client_matrix --url=http://127.0.0.1:8000

A client that is not installed is left out of its cells: `pip install openai`, and for the client of the Open Inference
Protocol `pip install geventhttpclient python-rapidjson` and `pip install --no-deps -r launch/foreign.txt`.
"""

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags

import launch.flags

URL = flags.DEFINE_string('url', 'http://127.0.0.1:8000', 'The address of the server; TESSERA_TOKEN holds its token.')


class Asked(NamedTuple):
    """A model and how to ask it."""

    url: str
    name: str
    inputs: Mapping[str, Any]  # of its card
    example: dict[str, Any]  # a request as JSON
    generates: bool


class Cell(NamedTuple):
    """The result of a client: what answered, or the reason for a refusal."""

    answers: str
    reason: str = ''


def main(overrides: dict[str, str]) -> None:
    """Prints one row per model, and the reasons for refusals."""
    del overrides
    rows, reasons = table(URL.value, CLIENTS)
    print('\n'.join([*rows, '', *reasons]))


def table(url: str, clients: Mapping[str, Callable[[Asked], str]]) -> tuple[list[str], list[str]]:
    """The lines of the table in Markdown, and of the reasons."""
    rows = ['| model | task | ' + ' | '.join(clients) + ' |', '|---' * (len(clients) + 2) + '|']
    reasons: list[str] = []
    for card in call(f'{url}/models')['models']:
        asked = Asked(url, card['name'], card['inputs'], example_of(card), card['generates'])
        texts = []
        for client, ask in clients.items():
            cell = tried(ask, asked)
            if cell.reason:
                reasons.append(f'{len(reasons) + 1}. `{asked.name}`, {client}: {cell.reason}')
            texts.append(cell.answers or f'refuses ({len(reasons)})')
        rows.append(f'| `{asked.name}` | {card["task"]} | ' + ' | '.join(texts) + ' |')
    return rows, reasons


def example_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """A request of a model: an example of its card, with a grey picture where that has none."""
    from research.data.outputs import png

    example = dict((card['examples'] or [{}])[0])
    for name, field in card['inputs'].items():
        if field['kind'] == 'image' and name not in example:
            height, width, *_ = (*field['shape'], 0, 0)
            pixels = np.full((height or 32, width or 32), 128, np.uint8)
            example[name] = base64.b64encode(png(pixels)).decode()
    return example


def tried(ask: Callable[[Asked], str], asked: Asked) -> Cell:
    """What a client got: the first line of its error where the server refused."""
    try:
        return Cell(ask(asked))
    except ImportError as error:
        return Cell('-', f'{error.name} is not installed')
    except Exception as error:  # each client has errors of its own
        return Cell('', ' '.join(str(error).split())[:300] or type(error).__name__)


def call(url: str, body: Any = None) -> Any:
    """The JSON answer to a GET, or to a POST of a JSON body; raises ValueError with the message of the server."""
    headers = {'Content-Type': 'application/json', **authorization()}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=120) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        detail = json.load(error)['error']
        raise ValueError(detail['message'] if isinstance(detail, dict) else detail) from None


def authorization() -> dict[str, str]:
    """The header with the token of the server."""
    token = os.environ.get('TESSERA_TOKEN', '')
    return {'Authorization': f'Bearer {token}'} if token else {}


def own(asked: Asked) -> str:
    """The server's own route."""
    call(f'{asked.url}/models/{asked.name}/predict', {'inputs': asked.example})
    return 'answers'


def open_inference(asked: Asked) -> str:
    """The Open Inference Protocol by the client of Triton, in binary form."""
    import tritonclient.http as http
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, value in asked.example.items():
        values = tensor_of(asked.inputs[name]['kind'], value)
        given = http.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        inputs.append(given.set_data_from_numpy(values))
    with http.InferenceServerClient(asked.url.partition('//')[2]) as client:
        result = client.infer(asked.name, inputs, headers=authorization())
    decoded = result.as_numpy('decoded')
    assert decoded is not None and json.loads(decoded[0])
    return 'answers'


def tensor_of(kind: str, value: Any) -> np.ndarray:
    """A value of an example as a tensor with one row."""
    if kind == 'array':
        return np.asarray([value], np.float32)
    if kind == 'number':
        return np.float64(value).reshape(1, -1)
    if kind in ('image', 'audio'):
        return np.array([[file_bytes(value)]], object)
    return np.array([[(json.dumps(value) if kind == 'list' else str(value)).encode()]], object)


def file_bytes(value: Any) -> bytes:
    """The content of a file of an example."""
    return base64.b64decode(value['base64'] if isinstance(value, dict) else value)


def tf_serving(asked: Asked) -> str:
    """TensorFlow Serving's `:predict`."""
    call(f'{asked.url}/v1/models/{asked.name}:predict', {'instances': [asked.example]})
    return 'answers'


def hugging_face(asked: Asked) -> str:
    """The first method of `InferenceClient` whose answer has what it should have."""
    from huggingface_hub import InferenceClient

    token = os.environ.get('TESSERA_TOKEN') or 'none'
    client = InferenceClient(model=f'{asked.url}/hf/{asked.name}', provider='hf-inference', token=token, timeout=120)
    problem = ValueError('no method of this client has such inputs')
    for method, ask in methods(asked):
        try:
            answer = ask(client)
            if answer not in (None, '', []):
                return f'`{method}`'
        except Exception as error:  # of the server, or because an answer has another form
            problem = error
    raise problem


def methods(asked: Asked) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yields the methods that fit the inputs of a model, each with a call that gives the main part of its answer."""
    kinds = {name: field['kind'] for name, field in asked.inputs.items()}
    example, values = asked.example, list(asked.example.values())
    if {'question', 'context'} <= {*kinds}:
        yield 'question_answering', lambda client: client.question_answering(**example).score
    elif 'image' in kinds.values():
        picture = next(file_bytes(example[name]) for name, kind in kinds.items() if kind == 'image')
        yield 'image_classification', lambda client: client.image_classification(picture)[0].label
        yield 'image_to_image', lambda client: client.image_to_image(picture).size
    elif 'audio' in kinds.values():
        sound = next(file_bytes(example[name]) for name, kind in kinds.items() if kind == 'audio')
        yield 'audio_classification', lambda client: client.audio_classification(sound)[0].label
        yield 'automatic_speech_recognition', lambda client: client.automatic_speech_recognition(sound).text is not None
    elif {'text', 'sequence'} & {*kinds.values()}:
        yield 'text_classification', lambda client: client.text_classification(values[0])[0].label
        yield 'fill_mask', lambda client: client.fill_mask(values[0])[0].token_str
        if not asked.generates:
            yield 'translation', lambda client: client.translation(values[0]).translation_text is not None
        yield 'text_generation', lambda client: client.text_generation(values[0]) is not None
    elif {*kinds.values()} <= {'number', 'category'}:
        table = {name: [value] for name, value in example.items()}
        yield 'text_to_image', lambda client: client.text_to_image(str(example.get('label', ''))).size
        yield 'tabular_classification', lambda client: client.tabular_classification(table)


def open_ai(asked: Asked) -> str:
    """Every endpoint of OpenAI that answers for the model."""
    from openai import OpenAI

    key = os.environ.get('TESSERA_TOKEN') or 'none'
    client = OpenAI(base_url=f'{asked.url}/v1', api_key=key, max_retries=0)
    text = next((value for value in asked.example.values() if isinstance(value, str)), '')
    calls = {
        'completions': lambda: client.completions.create(model=asked.name, prompt=text, max_tokens=3).choices,
        'embeddings': lambda: client.embeddings.create(model=asked.name, input=text).data,
        'images': lambda: client.images.generate(model=asked.name, prompt=text).data,
    }
    answered, problems = [], []
    for name, ask in calls.items():
        try:
            answered += [name] if ask() else []
        except Exception as error:  # of the server, or because an answer has another form
            problems.append(' '.join(str(error).split())[:200])
    if not answered:
        raise ValueError(problems[0])
    return ', '.join(answered)


CLIENTS: dict[str, Callable[[Asked], str]] = {
    'own route': own, 'Open Inference v2': open_inference, 'TF Serving v1': tf_serving, 'Hugging Face': hugging_face,
    'OpenAI': open_ai,
}  # fmt: skip


if __name__ == '__main__':
    launch.flags.run(main)

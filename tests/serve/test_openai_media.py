"""Embeddings, pictures and transcriptions of the OpenAI dialect with OpenAI's own client."""

import base64
import contextlib
import io
import wave

import numpy as np
import pytest

openai = pytest.importorskip('openai', reason="the client 'openai' is not installed")
pytest.importorskip('uvicorn', reason="the extra 'serve' is not installed")
pytest.importorskip('soundfile', reason="the extra 'audio' is not installed")

from PIL import Image  # noqa: E402
from serve_toy import refusal, running, tiny_model  # noqa: E402

from research.inference.features import feature_model  # noqa: E402

pytestmark = pytest.mark.slow  # compiles three models
MODELS = {'trec': ('trec', None), 'gan': ('digits_gan', None), 'speech': ('librispeech', {'task.buckets': '1'})}


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('media')
    return {name: tiny_model(f'configs/{config}.py', folder / name, more) for name, (config, more) in MODELS.items()}


@pytest.fixture(scope='module')
def server(models):
    with running(models, 300, max_batch=2) as made:
        yield made


@pytest.fixture(scope='module')
def client(server):
    with contextlib.closing(openai.OpenAI(base_url=f'{server.url}/v1', api_key='none', max_retries=0)) as made:
        yield made


def sound(seconds=0.5, rate=16_000):
    """A WAV file with a tone."""
    buffer = io.BytesIO()
    tone = np.sin(np.arange(int(seconds * rate)) * 0.2) * 9000
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(rate)
        file.writeframes(tone.astype('<i2').tobytes())
    return buffer.getvalue()


def test_embeddings_are_unit_vectors_of_the_last_activations(client, models):
    rows = models['trec'].task.source('train')
    texts = [rows[0]['text'], rows[1]['text'], rows[1]['text']]
    answer = client.embeddings.create(model='trec', input=texts)  # base64, the default of the client
    vectors = np.array([row.embedding for row in answer.data])
    plain = client.embeddings.create(model='trec', input=texts, encoding_format='float')
    np.testing.assert_array_equal(vectors, np.array([row.embedding for row in plain.data], np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors[1], vectors[2], atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    # The head of the classifier on the same features, before they are scaled, gives the answers of the task.
    model = models['trec']
    head = model.variables.params['model']['head']
    embedder = feature_model(model)
    features = np.array([row['features'] for row in embedder.predict([{'text': text} for text in texts])])
    np.testing.assert_allclose(features / np.linalg.norm(features, axis=1, keepdims=True), vectors, atol=1e-6)
    logits = features @ np.asarray(head['kernel']) + np.asarray(head['bias'])
    outputs = model.answers([{'text': text} for text in texts])
    np.testing.assert_allclose(logits, np.stack([output['logits'] for _, output in outputs]), atol=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0 and answer.model == 'trec'


def test_embeddings_that_do_not_exist_are_refused(client):
    refusal(lambda: client.embeddings.create(model='gan', input='x'), 'model', 'has no embeddings of texts')
    refusal(lambda: client.embeddings.create(model='trec', input='x', dimensions=3), 'dimensions', 'this model has')
    refusal(lambda: client.embeddings.create(model='trec', input=''), None, 'empty')
    refusal(lambda: client.embeddings.create(model='trec', input=['x'] * 300), 'input', 'at most 256')
    refusal(
        lambda: client.embeddings.create(model='nothing', input='x'), 'model', 'does not exist', openai.NotFoundError
    )


def test_pictures_are_those_of_an_offline_prediction(client, models):
    answer = client.images.generate(model='gan', prompt='3', n=2, extra_body={'seed': 7}, response_format='b64_json')
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(row.b64_json)))) for row in answer.data]
    offline = models['gan'].predict([{'seed': 7, 'label': 3}, {'seed': 8, 'label': 3}], 0)
    for picture, expected in zip(pictures, offline, strict=True):
        pixels = np.asarray(expected['image'].pixels)
        wanted = pixels if pixels.dtype == np.uint8 else np.round(np.clip(pixels, 0, 1) * 255)
        assert np.abs(picture.astype(int) - wanted[..., 0].astype(int)).max() <= 1
    assert np.any(pictures[0] != pictures[1])
    assert [row.seed for row in answer.data] == [
        7,
        8,
    ] and answer.size == f'{pictures[0].shape[1]}x{pictures[0].shape[0]}'


def test_pictures_that_cannot_be_drawn_are_refused(client):
    draw = client.images.generate
    refusal(lambda: draw(model='gan', prompt='a cat'), None, 'label')
    refusal(lambda: draw(model='gan', prompt='', size='1024x1024'), 'size', 'draws 8x8')
    refusal(lambda: draw(model='gan', prompt='', response_format='url'), 'response_format', 'b64_json')
    refusal(lambda: draw(model='gan', prompt='', n=99), 'n', '16')
    refusal(lambda: draw(model='trec', prompt=''), 'model', 'generates no pictures')


@pytest.mark.parametrize('form', ['json', 'text', 'verbose_json'])
def test_transcriptions(client, server, form):
    body = {'inputs': {'audio': base64.b64encode(sound()).decode()}}
    expected = server.client.post('/models/speech/predict', json=body).json()['answer']['text']
    answer = client.audio.transcriptions.create(model='speech', file=('a.wav', sound()), response_format=form)
    text = answer if isinstance(answer, str) else answer.text
    assert text.rstrip('\n') == expected
    if form != 'text':
        assert answer.usage.seconds == 0.5
    if form == 'verbose_json':
        assert answer.duration == 0.5 and answer.task == 'transcribe'


def test_sounds_that_cannot_be_transcribed_are_refused(client):
    def transcribe(file=None, model='speech', **more):
        return client.audio.transcriptions.create(model=model, file=file or ('a.wav', sound()), **more)

    refusal(lambda: transcribe(('a.wav', b'RIFF nothing')), None, 'sound')
    refusal(lambda: transcribe(('a.wav', b'')), 'file', 'missing or empty')
    refusal(lambda: transcribe(response_format='srt'), 'response_format', 'choose one of')
    refusal(lambda: transcribe(language='de'), 'language', 'does not support it')
    refusal(lambda: transcribe(temperature=0.5), 'temperature', "supports only '0'")
    refusal(lambda: transcribe(model='trec'), 'model', 'transcribes no sounds')
    assert transcribe(temperature=0).text is not None


def test_a_form_without_a_file_is_refused(server):
    path = '/v1/audio/transcriptions'
    answer = server.client.post(path, files={'sound': ('a.wav', sound())}, data={'model': 'speech'})
    assert answer.status_code == 400 and answer.json()['error']['param'] == 'file'
    for _ in range(2):
        many = [('file', ('a.wav', sound())), ('file', ('b.wav', sound()))]
        answer = server.client.post(path, files=many, data={'model': 'speech'})
        assert answer.status_code == 400, answer.text
    answer = server.client.post(path, files={'file': ('a.wav', sound())}, data={'model': 'x' * 10_000})
    assert answer.status_code == 400, answer.text
    answer = server.client.post(path, json={'model': 'speech'})
    assert answer.status_code == 415 and answer.json()['error']['type'] == 'invalid_request_error'

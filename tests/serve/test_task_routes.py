"""`huggingface_hub.InferenceClient` for every task: one model of each at ':tiny', behind one real server."""

import base64
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip('fastapi', reason='needs the extra serve')
pytest.importorskip('uvicorn', reason='needs the extra serve')

from huggingface_hub import AsyncInferenceClient, InferenceClient  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError, ValidationError  # noqa: E402
from serve_toy import Running, running, tiny_model  # noqa: E402

from research.data.outputs import png  # noqa: E402
from research.errors import name_of  # noqa: E402
from research.serve.samples import silence  # noqa: E402

pytestmark = pytest.mark.slow  # prepares and compiles a model of each task

MODELS = {
    'digits': 'image_classification', 'spoken_digits': 'audio_classification', 'trec': 'text_classification',
    'splice_sites': 'sequence_classification', 'adult': 'table_classification', 'masked_lm': 'masked_model',
    'multi30k_translation': 'translation', 'gpt': 'language_model', 'span_corruption': 'span_corruption',
    'squad': 'question_answering', 'librispeech': 'speech_recognition', 'denoise': 'image_restoration',
    'digits_gan': 'image_generation',
}  # fmt: skip
PICTURE = png(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all models."""
    models = {name: tiny_model(f'configs/{name}.py', tmp_path_factory.mktemp(name)) for name in MODELS}
    for name, model in models.items():
        assert name_of(model.config.task['name']) == MODELS[name]
    with running(models, wait=600, max_batch=1) as server:
        yield server


@pytest.fixture
def client(served: Running) -> Callable[[str], InferenceClient]:
    """(name of a model) -> the client of its address."""
    return lambda name: InferenceClient(
        model=f'{served.url}/hf/{name}', provider='hf-inference', token='none', timeout=60
    )


@pytest.fixture
def own(served: Running) -> Callable[..., Any]:
    """(name of a model, its inputs) -> the answer of the server's own route."""

    def answer(name: str, inputs: Any, seed: int = 0) -> Any:
        got = served.client.post(f'/models/{name}/predict', json={'inputs': inputs, 'seed': seed}, timeout=60)
        assert got.status_code == 200, got.text
        return got.json()['answer']

    return answer


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def pairs(rows: Any) -> list[tuple[str, float]]:
    return [(row.label, row.score) for row in rows]


def top(answer: Any) -> list[tuple[str, float]]:
    return [(row['label'], row['probability']) for row in answer['top']]


def test_every_task_has_a_model_here() -> None:
    folder = pathlib.Path(__file__).parents[2] / 'research' / 'tasks'
    assert set(MODELS.values()) == {file.stem for file in folder.glob('*.py')} - {'__init__'}


@pytest.mark.parametrize(
    'name, method, field, content',
    [
        ('digits', 'image_classification', 'image', PICTURE),
        ('spoken_digits', 'audio_classification', 'audio', silence(0.5)),
    ],
    ids=['picture', 'sound'],
)
def test_classes_of_files(client: Any, own: Any, name: str, method: str, field: str, content: bytes) -> None:
    want = top(own(name, {field: b64(content)}))
    ask = getattr(client(name), method)
    assert pairs(ask(content)) == want
    assert pairs(ask(content, top_k=1)) == want[:1]  # as base64 in JSON
    assert sum(score for _, score in want) <= 1.00001


@pytest.mark.parametrize('name, field, text', [('trec', 'text', 'who ?'), ('splice_sites', 'sequence', 'ACGT' * 6)])
def test_classes_of_texts(client: Any, own: Any, name: str, field: str, text: str) -> None:
    assert pairs(client(name).text_classification(text)) == top(own(name, {field: text}))


def test_classes_of_a_table(client: Any, served: Running) -> None:
    fields = served.client.get('/models/adult').json()['inputs']
    generator = random.Random(0)
    rows = [{name: generator.uniform(0, 30) for name in fields} for _ in range(3)]
    body = {'requests': [{'inputs': row} for row in rows]}
    answers = served.client.post('/models/adult/predict:batch', json=body).json()['answers']
    table = {name: [row[name] for row in rows] for name in fields}
    assert client('adult').tabular_classification(table) == [each['answer']['label'] for each in answers]


def test_hidden_tokens(client: Any, own: Any) -> None:
    want = own('masked_lm', {'text': 'import [MASK]'})['candidates'][0]
    got = client('masked_lm').fill_mask('import [MASK]', top_k=2)
    assert [(row.token, row.token_str, row.score, row.sequence) for row in got] == [
        (row['id'], row['token'], row['probability'], row['text']) for row in want[:2]
    ]


def test_translation(client: Any, own: Any) -> None:
    got = client('multi30k_translation').translation('a man .')
    assert got.translation_text == own('multi30k_translation', {'source': 'a man .'})['text']


def test_a_question(client: Any, own: Any) -> None:
    inputs = {'question': 'who?', 'context': 'It was him. It was her.'}
    want, ask = own('squad', inputs), client('squad').question_answering
    got = ask(**inputs)
    assert (got.answer, got.start, got.end) == (want['answer'], want['start'] or 0, want['stop'] or 0)
    assert [each.answer for each in ask(**inputs, top_k=2)] == [each['answer'] for each in want['n_best'][:2]]


def test_speech(client: Any, own: Any) -> None:
    sound = silence(1.0)
    got = client('librispeech').automatic_speech_recognition(sound)
    assert got.text == own('librispeech', {'audio': b64(sound)})['text']


def test_a_picture_from_a_picture(client: Any, own: Any) -> None:
    want = own('denoise', {'image': b64(PICTURE), 'sigma': 40})['image']['base64']
    got = client('denoise').image_to_image(PICTURE, sigma=40)
    assert b64(png(np.asarray(got))) == want


def test_a_picture_from_a_class(client: Any, own: Any) -> None:
    want = own('digits_gan', {'label': '3', 'seed': 5})['image']['base64']
    got = client('digits_gan').text_to_image('3', seed=5, width=8, height=8)
    assert b64(png(np.asarray(got))) == want
    assert client('digits_gan').text_to_image('').size == (8, 8)
    with pytest.raises(HfHubHTTPError, match='cannot be chosen'):
        client('digits_gan').text_to_image('3', width=512)
    with pytest.raises(HfHubHTTPError, match='num_inference_steps'):
        client('digits_gan').text_to_image('3', num_inference_steps=20)


def test_text_generation(client: Any, own: Any) -> None:
    assert client('gpt').text_generation('ab', seed=3) == own('gpt', {'text': 'ab'}, seed=3)['text']
    filled = client('span_corruption').text_generation('for i in<extra_id_0>(10):')
    assert filled == own('span_corruption', {'text': 'for i in<extra_id_0>(10):'})['text']


def test_a_stream_of_tokens_is_the_whole_answer(client: Any) -> None:
    ask = client('gpt').text_generation
    settings = {'max_new_tokens': 7, 'temperature': 0.9, 'seed': 3}
    want = ask('ab', details=True, top_n_tokens=2, **settings)
    assert want.details.generated_tokens == len(want.details.tokens) <= 7
    assert ''.join(ask('ab', stream=True, **settings)) == want.generated_text
    events = list(ask('ab', stream=True, details=True, **settings))
    assert [event.token.id for event in events] == [token.id for token in want.details.tokens]
    assert [event.token.logprob for event in events] == [token.logprob for token in want.details.tokens]
    assert events[-1].generated_text == want.generated_text
    assert events[-1].details.finish_reason in ('length', 'eos_token')
    assert ask('ab', return_full_text=True, **settings) == 'ab' + want.generated_text
    assert want.details.top_tokens[0][0]['logprob'] >= want.details.top_tokens[0][1]['logprob']
    assert ask('ab', do_sample=False, max_new_tokens=5) == ask('ab', do_sample=False, max_new_tokens=5, seed=9)


def test_parameters_of_generation_are_checked(client: Any) -> None:
    with pytest.raises(ValidationError, match='best_of'):  # of text-generation-inference
        client('gpt').text_generation('ab', best_of=3)
    with pytest.raises(ValidationError, match='max_new_tokens'):
        client('gpt').text_generation('ab', max_new_tokens=0, stream=True)
    with pytest.raises(ValidationError, match='stream'):
        list(client('trec').text_generation('ab', stream=True))


def test_the_asynchronous_client(served: Running, own: Any) -> None:
    import asyncio

    async def ask() -> Any:
        async with AsyncInferenceClient(model=f'{served.url}/hf/trec', token='none') as client:
            return await asyncio.gather(*(client.text_classification('who ?') for _ in range(3)))

    want = top(own('trec', {'text': 'who ?'}))
    assert [pairs(rows) for rows in asyncio.run(ask())] == [want] * 3


def test_health_and_description(client: Any) -> None:
    assert client('trec').health_check() and not client('other').health_check()
    assert client('trec').get_endpoint_info()['task'] == 'text_classification'


def test_embeddings_of_texts(served: Running) -> None:
    def client(task: str) -> InferenceClient:
        return InferenceClient(model=f'{served.url}/hf/trec/pipeline/{task}', token='none')

    vectors = client('feature-extraction').feature_extraction(['who ?', 'when ?'])
    one = client('feature-extraction').feature_extraction('who ?', normalize=True)
    assert vectors.shape[0] == 2 and vectors.ndim == 2 and one.shape == (1, vectors.shape[1])
    np.testing.assert_allclose(np.linalg.norm(one), 1, rtol=1e-5)
    np.testing.assert_allclose(one[0], vectors[0] / np.linalg.norm(vectors[0]), rtol=1e-4)
    same, other = client('sentence-similarity').sentence_similarity('who ?', ['who ?', 'when ?'])
    np.testing.assert_allclose([same, other], [1, one[0] @ vectors[1] / np.linalg.norm(vectors[1])], rtol=1e-4)
    refused = served.client.post('/hf/digits/pipeline/feature-extraction', json={'inputs': 'a'})
    assert refused.status_code == 400 and 'no embeddings' in refused.json()['error']


def test_the_matrix_of_clients(served: Running) -> None:
    from launch.client_matrix import CLIENTS, table

    rows, reasons = table(served.url, {name: ask for name, ask in CLIENTS.items() if name != 'OpenAI'})
    cells = {
        row[0].strip(' `'): [cell.strip() for cell in row[2:6]] for row in (line[1:].split('|') for line in rows[2:])
    }
    assert set(cells) == set(MODELS)
    for name, (own_route, v2, v1, task) in cells.items():
        assert own_route == v1 == 'answers' and v2 in ('answers', '-'), (name, reasons)
        assert task.startswith('`'), (name, reasons)


@pytest.mark.parametrize(
    'name, body, message',
    [
        ('other', {'inputs': 'a'}, 'no model'), ('trec', {}, 'text'), ('trec', {'inputs': 3}, 'text'),
        ('digits', {'inputs': 'not base64!'}, 'base64'), ('squad', {'inputs': 'a'}, 'question'),
        ('adult', {'table': {}}, 'table'), ('digits_gan', {'inputs': 'a cat'}, 'label'),
        ('trec', {'inputs': 'a', 'parameters': {'temperature': 1}}, 'temperature'),
    ],
)  # fmt: skip
def test_mistakes_are_messages(served: Running, name: str, body: Any, message: str) -> None:
    answer = served.client.post(f'/hf/{name}', json=body)
    assert 400 <= answer.status_code < 500 and message in answer.json()['error']
    assert answer.json()['error_type'] == 'validation'


def test_bytes_are_refused_where_no_file_is_read(served: Running) -> None:
    answer = served.client.post('/hf/trec', content=PICTURE, headers={'content-type': 'image/png'})
    assert answer.status_code == 400 and 'send JSON' in answer.json()['error']


def test_classes_by_the_protocol_of_tf_serving(served: Running, own: Any) -> None:
    answer = served.client.post('/v1/models/trec:classify', json={'examples': [{'text': 'who ?'}]}).json()
    assert [tuple(row) for row in answer['results'][0]] == top(own('trec', {'text': 'who ?'}))
    assert served.client.post('/v1/models/trec:regress', json={'examples': [{'text': 'a'}]}).status_code == 400

"""Requests and answers of the Hugging Face task routes, read by the types of huggingface_hub."""

import base64
import io
import json

import huggingface_hub as hub
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('fastapi', reason='needs the extra serve')

from research.core.task import Input  # noqa: E402
from research.data.outputs import Boxes, Picture, Sound  # noqa: E402
from research.serve.answers import Answered, kind_of, with_files  # noqa: E402
from research.serve.errors import RequestError  # noqa: E402
from research.serve.task_answers import File, Form, TaskRequest, read_file, read_task, write_task  # noqa: E402

TEXT = {'text': Input('text', limit=100)}
IMAGE = {'image': Input('image', (4, 4, 1)), 'sigma': Input('number')}
TABLE = {'age': Input('number'), 'job': Input('category')}
GENERATOR = {'seed': Input('number'), 'label': Input('category')}
LABEL = {
    'label': 'a',
    'probability': 0.6,
    'top': [{'label': 'a', 'probability': 0.6}, {'label': 'b', 'probability': 0.3}],
}
SPAN = {'answer': 'x', 'start': 3, 'stop': 4, 'score': 5.1, 'probability': 0.9}
PICTURE = Picture(np.zeros((2, 3, 1), np.float32))


def written(inputs, answers, form=Form.ONE, **parameters):
    return write_task(inputs, TaskRequest([{}] * len(answers), form, parameters), answers)


@pytest.mark.parametrize(
    'answer, kind',
    [
        (LABEL, 'label'), ({'labels': ['a'], 'probability': {'a': 0.7}}, 'labels'), ({'value': 3.5}, 'number'),
        (SPAN, 'span'), ({'masked': '', 'text': '', 'candidates': []}, 'hidden'),
        ({'prompt': 'a', 'text': 'b'}, 'continued'), ({'source': 'a', 'text': 'b'}, 'text'),
        ({'image': PICTURE, 'label': 'a', 'probability': 1}, 'picture'),
        (Sound(np.zeros(3), 8000), 'sound'), (Boxes(np.zeros((0, 4)), (), np.zeros(0)), 'boxes'),
        ({'y': 3}, 'other'), ([1, 2], 'other'), (3, 'other'),
    ],
)  # fmt: skip
def test_an_answer_is_known_by_its_keys_and_types(answer, kind):
    assert kind_of(answer) is Answered(kind)


def test_labels_are_ranked_and_cut():
    whole = [{'label': 'a', 'score': 0.6}, {'label': 'b', 'score': 0.3}]
    assert written(IMAGE, [LABEL]) == whole
    assert written(TEXT, [LABEL], top_k=1) == [whole[:1]]  # the client reads the first element of a list
    assert written(TEXT, [LABEL, LABEL], Form.LIST) == [whole, whole]
    many = {'labels': [], 'probability': {'a': 0.1, 'b': 0.4}}
    assert written(IMAGE, [many], function_to_apply='sigmoid')[0] == {'label': 'b', 'score': 0.4}


def test_rows_of_a_table_are_answered_by_a_list():
    request = read_task(TABLE, {'table': {'age': [3, 4], 'job': ['x', 'y']}})
    assert request.raws == [{'age': 3, 'job': 'x'}, {'age': 4, 'job': 'y'}]
    assert write_task(TABLE, request, [LABEL, LABEL]) == ['a', 'a']
    assert write_task(TABLE, request, [{'value': 3.0}, {'value': 4.0}]) == [3.0, 4.0]


def test_texts_have_the_names_that_the_methods_read():
    answer = json.dumps(written({'source': Input('text')}, [{'source': 'a', 'text': 'b'}]))
    assert hub.TranslationOutput.parse_obj_as_list(answer)[0].translation_text == 'b'
    assert hub.SummarizationOutput.parse_obj_as_list(answer)[0].summary_text == 'b'
    assert json.loads(answer)[0]['generated_text'] == 'b'
    spoken = written({'audio': Input('audio')}, [{'text': 'b', 'greedy': 'c', 'score': -1.0}])
    assert hub.AutomaticSpeechRecognitionOutput.parse_obj_as_instance(spoken).text == 'b'


def test_spans_hidden_tokens_and_boxes_are_read_by_their_types():
    answer = {**SPAN, 'n_best': [SPAN, {**SPAN, 'answer': 'y'}]}
    one, two = written(TEXT, [answer]), written(TEXT, [answer], top_k=2)
    read = hub.QuestionAnsweringOutputElement.parse_obj
    assert (read(one).answer, read(one).start, read(one).end, read(one).score) == ('x', 3, 4, 0.9)
    assert [each.answer for each in read(two)] == ['x', 'y']
    none = {'answer': '', 'start': None, 'stop': None, 'probability': 0.8, 'n_best': [SPAN]}
    assert written(TEXT, [none]) == {'answer': '', 'start': 0, 'end': 0, 'score': 0.8}
    candidates = [
        {'token': ' b', 'id': 7, 'probability': 0.5, 'text': 'a b'},
        {'token': 'c', 'id': 8, 'probability': 0.1, 'text': 'ac'},
    ]
    hidden = {'masked': 'a[MASK]', 'text': 'a b', 'candidates': [candidates]}
    (filled,) = hub.FillMaskOutputElement.parse_obj_as_list(written(TEXT, [hidden], top_k=1))
    assert (filled.token, filled.token_str, filled.sequence, filled.score) == (7, ' b', 'a b', 0.5)
    assert len(written(TEXT, [{**hidden, 'candidates': [candidates, candidates]}])) == 2
    seen = Boxes(np.array([[1.2, 2, 3, 4.6], [0, 0, 1, 1]]), ('cat', 'dog'), np.array([0.9, 0.2]))
    (found,) = hub.ObjectDetectionOutputElement.parse_obj_as_list(written(IMAGE, [{'boxes': seen}], threshold=0.5))
    assert (found.label, found.box.xmin, found.box.ymax) == ('cat', 1, 5)


def test_pictures_and_sounds_come_as_files():
    file = written(IMAGE, [{'image': PICTURE}], width=3, target_size={'height': 2, 'width': 3})
    assert isinstance(file, File) and Image.open(io.BytesIO(file.content)).size == (3, 2)
    assert written(TEXT, [Sound(np.zeros(9, np.float32), 8000)]).media_type == 'audio/wav'
    for answers, parameters in ([[{'image': PICTURE}], {'height': 4}], [[{'image': PICTURE}] * 2, {}]):
        with pytest.raises(RequestError):
            written(IMAGE, answers, Form.LIST, **parameters)
    assert base64.b64decode(with_files({'a': [PICTURE]})['a'][0]['b64']).startswith(b'\x89PNG')


def test_requests_are_read_by_the_inputs_of_the_task():
    content = base64.b64encode(b'file').decode()
    assert read_task(IMAGE, {'inputs': content, 'parameters': {'sigma': 25, 'seed': 3, 'top_k': None}}) == TaskRequest(
        [{'image': b'file', 'sigma': 25}], Form.ONE, {}, 3
    )
    assert read_file(IMAGE, b'file').raws == [{'image': b'file'}]
    assert read_task(TEXT, {'inputs': ['a', 'b'], 'stream': True}) == TaskRequest(
        [{'text': 'a'}, {'text': 'b'}], Form.LIST, {}, 0, True
    )
    pair = {'question': Input('text'), 'context': Input('text')}
    assert read_task(pair, {'inputs': {'question': 'a', 'context': 'b'}}).raws == [{'question': 'a', 'context': 'b'}]
    assert read_task(GENERATOR, {'inputs': '', 'parameters': {'seed': 3}}).raws == [{'seed': 3}]
    assert read_task(GENERATOR, {'inputs': 'shoe'}).raws == [{'label': 'shoe'}]
    assert read_task({'x': Input('array', (2,))}, {'inputs': [1, 2]}).raws[0]['x'].tolist() == [1, 2]


@pytest.mark.parametrize(
    'inputs, body',
    [
        (TEXT, {}), (TEXT, {'inputs': 3}), (TEXT, {'inputs': []}), (TEXT, {'inputs': {'txt': 'a'}}),
        (TEXT, {'inputs': ['a'] * 257}), (TEXT, {'inputs': 'a', 'parameters': 3}), (IMAGE, {'inputs': 'not base64!'}),
        (TEXT, {'inputs': 'a', 'parameters': {'seed': -1}}), (TABLE, {'table': {'age': [1], 'job': []}}),
        (TABLE, {'table': 3}), (TABLE, {'table': {}}), (TABLE, {'inputs': None}), ({}, {'inputs': 'a prompt'}),
        ({'a': Input('text'), 'b': Input('text')}, {'inputs': 'a'}),
        (IMAGE, {'inputs': {'image': {'b64': 3}}}),
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(inputs, body):
    with pytest.raises(RequestError) as refused:
        read_task(inputs, body)
    assert refused.value.status == 400 and refused.value.message


@pytest.mark.parametrize(
    'answer, parameters',
    [
        (LABEL, {'top_k': 0}), (LABEL, {'top_k': '3'}), (LABEL, {'function_to_apply': 'sigmoid'}),
        (LABEL, {'num_inference_steps': 3}), ({'y': 3}, {'top_k': 3}),
    ],
)  # fmt: skip
def test_a_parameter_without_effect_is_refused(answer, parameters):
    with pytest.raises(RequestError):
        written(TEXT, [answer], **parameters)


def test_a_file_is_refused_by_a_task_that_reads_none():
    with pytest.raises(RequestError):
        read_file(TABLE, b'file')

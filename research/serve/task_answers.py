"""Requests and answers of the Hugging Face task routes, without HTTP.

A request is {"inputs", "parameters"}, {"table"}, or the bytes of a file. `read_task` makes requests of the task from
it, and `write_task` the answer that the methods of `huggingface_hub.InferenceClient` read. Both decide by the inputs of
the task and by the kind of its answer.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.core.task import Input
from research.data.outputs import Boxes, Picture, Sound
from research.serve.answers import Answered, content_of, file_of, kind_of, ranked, with_files
from research.serve.errors import RequestError
from research.serve.values import FILES, plain, read_inputs, read_value

TEXTS = ('text', 'sequence')
MAX_REQUESTS = 256
# Parameters of the methods, by the kind of answer. Fields of the task and 'seed' are parameters of every answer.
PARAMETERS = {
    Answered.LABEL: ('top_k',),
    Answered.LABELS: ('top_k',),
    Answered.HIDDEN: ('top_k',),
    Answered.SPAN: ('top_k',),
    Answered.PICTURE: ('width', 'height', 'target_size'),
    Answered.BOXES: ('threshold',),
}


class Form(enum.Enum):
    """How many requests a body has, and in which form their answers are expected."""

    ONE = 'one'
    LIST = 'list'
    TABLE = 'table'


class TaskRequest(NamedTuple):
    """The requests of one body."""

    raws: list[dict[str, Any]]
    form: Form
    parameters: dict[str, Any]  # without the fields of the task
    seed: int = 0
    stream: bool = False


class File(NamedTuple):
    """An answer that is a file."""

    content: bytes
    media_type: str


def read_file(inputs: Mapping[str, Input], content: bytes) -> TaskRequest:
    """The request of a body that is a file.

    Raises:
      RequestError: 400, if the task does not read exactly one file.
    """
    names = [name for name, field in inputs.items() if field.kind in FILES]
    if len(names) != 1:
        raise RequestError(400, f'this model reads {fields_of(inputs)}, not one file: send JSON', 'inputs')
    return TaskRequest([{names[0]: content}], Form.ONE, {})


def fields_of(inputs: Mapping[str, Input]) -> str:
    return ', '.join(f'{name} ({field.kind})' for name, field in inputs.items()) or 'nothing'


def read_task(inputs: Mapping[str, Input], body: Mapping[str, Any]) -> TaskRequest:
    """The requests of a JSON body.

    Raises:
      RequestError: 400, names the field.
    """
    parameters = body.get('parameters') or {}
    if not isinstance(parameters, dict):
        raise RequestError(400, 'parameters must be an object', 'parameters')
    given = {name: value for name, value in parameters.items() if value is not None}
    shared = read_inputs(inputs, {name: given.pop(name) for name in list(given) if name in inputs}, 'parameters')
    seed = given.pop('seed', 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise RequestError(400, f'seed must be a whole number from 0 to {2**31 - 1}', 'parameters.seed')
    form, items = forms_of(body, inputs)
    if not 0 < len(items) <= MAX_REQUESTS:
        raise RequestError(400, f'expected 1 to {MAX_REQUESTS} requests, got {len(items):,}', 'inputs')
    raws = [{**request_of(inputs, item, f'inputs[{number}]'), **shared} for number, item in enumerate(items)]
    return TaskRequest(raws, form, given, seed, body.get('stream') is True)


def forms_of(body: Mapping[str, Any], inputs: Mapping[str, Input]) -> tuple[Form, Sequence[Any]]:
    """The form of a body, and its requests as JSON."""
    value = body.get('inputs')
    table = body.get('table', value.get('table') if isinstance(value, dict) and 'table' not in inputs else None)
    if table is not None:
        return Form.TABLE, rows_of(table)
    if isinstance(value, list) and not (value and is_number(value[0])):
        return Form.LIST, value
    return Form.ONE, [value]


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def rows_of(table: Any) -> list[dict[str, Any]]:
    """The rows of a table of columns, {name: [value of each row]}."""
    columns = table if isinstance(table, dict) else {}
    lengths = {len(values) for values in columns.values() if isinstance(values, list)}
    if len(lengths) != 1 or not all(isinstance(values, list) for values in columns.values()):
        raise RequestError(400, 'table must be {column: [values]} with columns of one length', 'table')
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def request_of(inputs: Mapping[str, Input], item: Any, where: str) -> dict[str, Any]:
    """One request: an object of fields, or the value of the only field that a request needs.

    A text is the value of the only text or file; for a model that reads neither, such as a generator of pictures, it is
    the class ('' for none).
    """
    if isinstance(item, dict) and not {*item} & {'b64', 'base64'}:
        return read_inputs(inputs, item, where)
    needed = [name for name, field in inputs.items() if field.kind in (*FILES, *TEXTS)]
    if not needed and isinstance(item, str):
        classes = [name for name, field in inputs.items() if field.kind == 'category']
        if not item:
            return {}
        if len(classes) == 1:
            return {classes[0]: item}
        raise RequestError(400, f"this model reads {fields_of(inputs)} and no prompt: send ''", where)
    needed = needed or [name for name, field in inputs.items() if field.kind in ('array', 'list')]
    if len(needed) != 1 or item is None:
        raise RequestError(400, f'{where}: expected an object with {fields_of(inputs)}', where)
    return {needed[0]: read_value(inputs[needed[0]], item, where)}


def write_task(inputs: Mapping[str, Input], request: TaskRequest, answers: Sequence[Any]) -> Any:
    """The answer to a body: JSON values or a `File`, from the decoded answers to its requests.

    Raises:
      RequestError: 400, for a parameter that has no effect on such an answer, or several files.
    """
    kind, reads = kind_of(answers[0]), {field.kind for field in inputs.values()}
    check_parameters(kind, inputs, request.parameters)
    if request.form is Form.TABLE:
        return [cell(answer, kind) for answer in answers]
    if kind is Answered.TEXT and 'audio' not in reads:
        kind = Answered.CONTINUED  # a text from a text, as a continuation is
    writer = WRITERS.get(kind)
    written = [writer(answer, request.parameters) if writer else with_files(answer) for answer in answers]
    if isinstance(written[0], File):
        if len(written) > 1:
            raise RequestError(400, 'one request at a time: its answer is a file', 'inputs')
        return written[0]
    listed = kind is Answered.CONTINUED or (kind in (Answered.LABEL, Answered.LABELS) and reads & {*TEXTS})
    return written if listed or request.form is Form.LIST else written[0]


def check_parameters(kind: Answered, inputs: Mapping[str, Input], parameters: Mapping[str, Any]) -> None:
    """Raises RequestError for a parameter that an answer of this kind does not follow."""
    function = FUNCTIONS.get(kind, '')
    for name, value in parameters.items():
        if name == 'function_to_apply' and value == function:
            continue
        if name not in PARAMETERS.get(kind, ()):
            takes = ', '.join((*PARAMETERS.get(kind, ()), *inputs, 'seed'))
            message = f'parameter {name:.40}={value!r:.40} has no effect on this model; it takes {takes}'
            raise RequestError(400, message, f'parameters.{name:.40}')


def count_of(parameters: Mapping[str, Any]) -> int | None:
    """The parameter top_k; None if it is not given."""
    count = parameters.get('top_k')
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise RequestError(400, f'top_k must be a whole number, 1 or more, got {count!r:.40}', 'parameters.top_k')
    return count


def cell(answer: Any, kind: Answered) -> Any:
    """The answer to one row of a table: a label, a number, or the whole answer."""
    if kind is Answered.LABEL:
        return answer['label']
    return answer['value'] if kind is Answered.NUMBER else with_files(answer)


def label_scores(answer: Any, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{'label': str(label), 'score': score} for label, score in ranked(answer)[: count_of(parameters)]]


def hidden_tokens(answer: Any, parameters: Mapping[str, Any]) -> list[Any]:
    """The candidates of the hidden token; a list for each if there are several."""
    count = count_of(parameters)
    rows = [
        [
            {'score': one['probability'], 'token': one['id'], 'token_str': one['token'], 'sequence': one['text']}
            for one in candidates[:count]
        ]
        for candidates in answer['candidates']
    ]
    return rows[0] if len(rows) == 1 else rows


def spans(answer: Any, parameters: Mapping[str, Any]) -> Any:
    """The answer to a question; a list of the best ones if top_k is above 1."""
    count = count_of(parameters) or 1

    def span(one: Mapping[str, Any]) -> dict[str, Any]:
        place = {'start': one['start'] or 0, 'end': one['stop'] or 0}
        return {'answer': one['answer'], **place, 'score': plain(one.get('probability'))}

    return span(answer) if count == 1 else [span(one) for one in answer.get('n_best', [answer])[:count]]


def written_text(answer: Any, parameters: Mapping[str, Any]) -> dict[str, str]:
    """A text by the names that text generation, translation and summarization read."""
    del parameters
    return {name: answer['text'] for name in ('generated_text', 'translation_text', 'summary_text')}


def transcript(answer: Any, parameters: Mapping[str, Any]) -> dict[str, str]:
    del parameters
    return {'text': answer['text']}


def picture(answer: Any, parameters: Mapping[str, Any]) -> File:
    """A picture as a file; width and height must be those of the model."""
    content = content_of(answer)
    assert isinstance(content, Picture)
    height, width = np.shape(content.pixels)[:2]
    target = parameters.get('target_size')
    wanted = {**parameters, **(target if isinstance(target, dict) else {})}
    for name, size in (('width', width), ('height', height)):
        if wanted.get(name, size) != size:
            raise RequestError(
                400, f'the picture has {width} x {height} pixels; {name} cannot be chosen', f'parameters.{name}'
            )
    return File(*file_of(content))


def sound(answer: Any, parameters: Mapping[str, Any]) -> File:
    del parameters
    content = content_of(answer)
    assert isinstance(content, Sound)
    return File(*file_of(content))


def boxes(answer: Any, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The boxes whose score is at least the parameter threshold, in whole pixels."""
    content, threshold = content_of(answer), parameters.get('threshold', 0.0)
    assert isinstance(content, Boxes)
    if not is_number(threshold):
        raise RequestError(400, 'threshold must be a number', 'parameters.threshold')
    rows = zip(content.boxes, content.labels, content.scores, strict=True)
    sides = ('xmin', 'ymin', 'xmax', 'ymax')
    return [
        {
            'label': label,
            'score': float(score),
            'box': {name: round(float(at)) for name, at in zip(sides, box, strict=True)},
        }
        for box, label, score in rows
        if score >= threshold
    ]


FUNCTIONS = {Answered.LABEL: 'softmax', Answered.LABELS: 'sigmoid'}  # that make scores of logits
WRITERS = {
    Answered.LABEL: label_scores, Answered.LABELS: label_scores, Answered.HIDDEN: hidden_tokens, Answered.SPAN: spans,
    Answered.PICTURE: picture, Answered.SOUND: sound, Answered.BOXES: boxes, Answered.TEXT: transcript,
    Answered.CONTINUED: written_text,
}  # fmt: skip

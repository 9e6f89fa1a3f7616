"""What a decoded answer is, by its keys and types, so that the protocols of others can express it.

A task whose `decode` returns one of these is understood by the clients of every protocol, without being named here:

    label     {'label', 'probability', 'top': [{'label', 'probability'}]}
    labels    {'labels': [...], 'probability': {label: probability}}
    number    {'value'}
    span      {'answer', 'start', 'stop', 'probability', 'n_best': [...]}
    hidden    {'masked', 'candidates': [[{'token', 'id', 'probability', 'text'}] of each hidden token]}
    continued {'prompt', 'text'}: a text that continues another
    text      {'text'}
    picture, sound, boxes: a `Picture`, `Sound` or `Boxes`, or an object with one
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any

from research.data.outputs import Boxes, Picture, Sound, png, replaced, wav
from research.serve.values import plain, text_of


class Answered(enum.Enum):
    """The kind of a decoded answer."""

    LABEL = 'label'
    LABELS = 'labels'
    NUMBER = 'number'
    SPAN = 'span'
    HIDDEN = 'hidden'
    CONTINUED = 'continued'
    TEXT = 'text'
    PICTURE = 'picture'
    SOUND = 'sound'
    BOXES = 'boxes'
    OTHER = 'other'


TYPES = {Picture: Answered.PICTURE, Sound: Answered.SOUND, Boxes: Answered.BOXES}
KEYS = (  # the first whose keys an answer has
    (Answered.LABEL, {'label', 'probability'}),
    (Answered.LABELS, {'labels', 'probability'}),
    (Answered.SPAN, {'answer', 'start', 'stop'}),
    (Answered.HIDDEN, {'masked', 'candidates'}),
    (Answered.CONTINUED, {'prompt', 'text'}),
    (Answered.TEXT, {'text'}),
    (Answered.NUMBER, {'value'}),
)


def kind_of(answer: Any) -> Answered:
    """The kind of a decoded answer."""
    found = content_of(answer)
    if type(found) in TYPES:
        return TYPES[type(found)]
    keys = set(answer) if isinstance(answer, Mapping) else set()
    return next((kind for kind, needed in KEYS if needed <= keys), Answered.OTHER)


def content_of(answer: Any) -> Picture | Sound | Boxes | None:
    """The picture, sound or boxes of an answer: itself, or a value of an object; None for other answers."""
    values = answer.values() if isinstance(answer, Mapping) else [answer]
    return next((value for value in values if isinstance(value, tuple(TYPES))), None)


def ranked(answer: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The labels of an answer of kind `LABEL` or `LABELS` with their probabilities, the most probable first."""
    if 'labels' in answer:
        return sorted(answer['probability'].items(), key=lambda item: -item[1])
    rows: Sequence[Mapping[str, Any]] = answer.get('top') or [answer]
    return [(row['label'], row['probability']) for row in rows]


def file_of(content: Picture | Sound) -> tuple[bytes, str]:
    """A picture as PNG or a sound as WAV, and its media type."""
    if isinstance(content, Picture):
        return png(content.pixels), 'image/png'
    return wav(content), 'audio/wav'


def with_files(answer: Any) -> Any:
    """A decoded answer as JSON values, with files as {'b64': base64}, as TF Serving writes them."""
    return plain(replaced(answer, lambda kind, content, where: {'b64': text_of(file_of(content)[0])}, ''))

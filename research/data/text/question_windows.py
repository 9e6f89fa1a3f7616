"""A question and a window of its context as one row of tokens: [begin] question [end] context [end].

A context that is too long for one row gives several windows, each `stride` tokens after the one before. The position of
[begin] stands for "no answer in this window".
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from research.data.buckets import Buckets, by_length
from research.data.readers.rows import Rows, select
from research.data.text.pieces import PieceReader, Pieces
from research.data.text.tokens import UNKNOWN, Frame, frame_ids
from research.errors import SettingError, UserError

# Types of tokens. A word of the context is marked if the question has it too, by its rank in the vocabulary.
QUESTION, CONTEXT, SIMILAR, FREQUENT, MEDIUM, RARE = range(6)
TYPES = 6
RANKS = (100, 1000)  # words up to these ranks are frequent and medium; all others, and unknown ones, are rare
SIMILAR_LETTERS = 4  # words with the same first letters count as similar
MAX_CHARACTERS = 1_000_000  # of a context


class WindowSettings(NamedTuple):
    """Sizes in tokens."""

    length: int  # of a row
    question_length: int  # longer questions are cut
    stride: int  # from one window to the next
    buckets: tuple[int, ...] = ()  # lengths below `length` to which shorter rows are padded instead

    def check(self) -> 'WindowSettings':
        """Validates the sizes; raises `SettingError` if windows would leave a gap or buckets do not ascend."""
        room = self.length - self.question_length - 4  # begin, end, and one or two marks between the texts
        if self.stride > room:
            raise SettingError(
                'stride', f'must be at most length - question_length - 4 = {room}, got {self.stride}: the tokens '
                'between two windows would not be read',
            )  # fmt: skip
        if list(self.buckets) != sorted({*self.buckets}) or (self.buckets and self.buckets[-1] >= self.length):
            raise SettingError('buckets', f'must ascend and be below length={self.length}, got {self.buckets}')
        return self


class Place(NamedTuple):
    """Where a window is: its first token of the context, the row position of that token, and its size."""

    first: int
    before: int
    size: int


class Windows(NamedTuple):
    """Encodes rows {'question', 'context'} with references ('answers', 'starts') or, as a request, without."""

    reader: PieceReader
    settings: WindowSettings

    def places(self, raw: Mapping[str, Any]) -> list[Place]:
        """The windows of a row, in order; raises UserError if a text is missing or empty."""
        asked, passage = self.asked(raw), self.passage(raw)
        before = 1 + len(asked.ids) + self.reader.tokens.between
        room, count = self.settings.length - before - 1, len(passage.ids)
        last = -(-max(count - room, 0) // self.settings.stride)
        starts = [number * self.settings.stride for number in range(last + 1)]
        return [Place(start, before, min(room, count - start)) for start in starts]

    def asked(self, raw: Mapping[str, Any]) -> Pieces:
        """The tokens of the question, cut to `question_length`."""
        pieces, limit = self.reader.read(text_of(raw, 'question')), self.settings.question_length
        return Pieces(pieces.ids[:limit], pieces.names[:limit], pieces.shapes[:limit], pieces.offsets[:limit])

    def passage(self, raw: Mapping[str, Any]) -> Pieces:
        """The tokens of the whole context."""
        pieces = self.reader.reread(text_of(raw, 'context'))
        if not pieces.ids:
            raise UserError("'context' has no word")
        return pieces

    def split(self, raw: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row per window, each with its number as 'window'."""
        return [{**raw, 'window': number} for number in range(len(self.places(raw)))]

    def encode(self, raw: Mapping[str, Any], rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """Encodes one window: 'tokens', 'types' and, for words, 'shapes' [length], 'length', and the target.

        The target 'start', 'end' is a pair of row positions, both inside the answer; (0, 0) without an answer in this
        window. Of several references, one is drawn in training, and the commonest is taken otherwise.
        """
        asked, passage = self.asked(raw), self.passage(raw)
        place = self.places(raw)[raw.get('window', 0)]
        inside = slice(place.first, place.first + place.size)
        size = place.before + place.size + 1 if self.settings.buckets else self.settings.length
        row = frame_ids(self.reader.tokens, Frame(size, framed=True), asked.ids, passage.ids[inside])
        if self.reader.words:
            row['types'][place.before : place.before + place.size] = overlap(asked, passage, inside)
            row['shapes'] = np.zeros(size, np.int32)
            row['shapes'][1 : 1 + len(asked.ids)] = asked.shapes
            row['shapes'][place.before : place.before + place.size] = passage.shapes[inside]
        if 'starts' in raw:
            spans = [span for span in answer_spans(raw, passage.offsets) if in_place(span, place)]
            start, end = 0, 0
            if spans:
                drawn = max(spans, key=spans.count) if rng is None else spans[int(rng.integers(len(spans)))]
                start, end = (edge - place.first + place.before for edge in drawn)
            row['start'], row['end'] = np.asarray(start, np.int32), np.asarray(end, np.int32)
        return row

    def describe(self, row: Mapping[str, np.ndarray]) -> dict[str, str]:
        """The tokens of an encoded row, and those of its target."""
        fields = {'tokens': ' '.join(self.reader.tokens.read(row['tokens']))}
        if 'start' in row:
            answer = row['tokens'][int(row['start']) : int(row['end']) + 1]
            fields['answer'] = ' '.join(self.reader.tokens.read(answer)) if row['end'] else 'not in this window'
        return fields

    def bounds(
        self, raw: Mapping[str, Any], window: int, spans: Int[np.ndarray, 'spans 2']
    ) -> Int[np.ndarray, 'spans 2']:
        """Bounds (start, stop) in code points of the context, of spans (first, last) of row positions of a window."""
        place, offsets = self.places(raw)[window], self.passage(raw).offsets
        tokens = np.clip(spans - place.before, 0, place.size - 1) + place.first
        return np.stack([offsets[tokens[:, 0], 0], offsets[tokens[:, 1], 1]], axis=1)


def text_of(raw: Mapping[str, Any], field: str) -> str:
    """A text field of a row; raises `UserError` if it is missing, empty or too long."""
    text = raw.get(field)
    if not isinstance(text, str):
        raise UserError(f'the request has no {field!r}' if text is None else f'{field!r} is {text!r:.40}, not a text')
    if not text.strip():
        raise UserError(f'{field!r} is empty')
    if len(text) > MAX_CHARACTERS:
        raise UserError(f'{field!r} has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read')
    return text


def overlap(asked: Pieces, passage: Pieces, inside: slice) -> list[int]:
    """Types of the words of a window of the context: whether the question has the same or a similar word."""
    exact = {*asked.names}
    similar = {name[:SIMILAR_LETTERS] for name, rank in zip(asked.names, ranks(asked.ids), strict=True) if rank}
    ranked = zip(passage.names[inside], ranks(passage.ids[inside]), strict=True)
    return [
        FREQUENT + rank if name in exact
        else SIMILAR if rank and len(name) >= SIMILAR_LETTERS and name[:SIMILAR_LETTERS] in similar
        else CONTEXT
        for name, rank in ranked
    ]  # fmt: skip


def ranks(ids: Sequence[int]) -> list[int]:
    """0, 1 and 2 for frequent, medium and rare words; ids ascend with the rank, after the special ones."""
    first = UNKNOWN + 3
    return [2 if index == UNKNOWN else sum(index >= first + rank for rank in RANKS) for index in ids]


def answer_spans(raw: Mapping[str, Any], offsets: Int[np.ndarray, 'tokens 2']) -> list[tuple[int, int]]:
    """First and last token of each reference; answers without a token, such as a space, are left out."""
    spans = []
    for text, start in zip(raw['answers'], raw['starts'], strict=True):
        first = int(np.searchsorted(offsets[:, 1], start, side='right'))
        last = int(np.searchsorted(offsets[:, 0], start + len(text), side='left')) - 1
        spans += [(first, last)] if first <= last else []
    return spans


def in_place(span: tuple[int, int], place: Place) -> bool:
    return place.first <= span[0] and span[1] < place.first + place.size


class Plan(NamedTuple):
    """The windows that are trained, their lengths, and counts for the notes of a run."""

    rows: Rows
    lengths: Int[np.ndarray, 'windows']
    counts: Mapping[str, int]


def plan_training(rows: Rows, windows: Windows, keep: bool) -> Plan:
    """Lists the windows of all training rows.

    Args:
      rows: with their references.
      windows: the encoder.
      keep: whether to train windows without an answer on "no answer"; windows of questions without any answer always
        are. False leaves them out.
    """
    chosen, numbers, lengths = [], [], []
    counts: dict[str, int] = dict.fromkeys(('questions', 'windows', 'without', 'unanswerable', 'cut', 'moved'), 0)
    for number, raw in enumerate(rows):
        places, spans = windows.places(raw), answer_spans(raw, windows.passage(raw).offsets)
        counts['questions'] += 1
        counts['windows'] += len(places)
        counts['unanswerable'] += not raw['answers']
        counts['moved'] += raw.get('moved', 0) > 0
        counts['cut'] += len(windows.reader.read(raw['question']).ids) > windows.settings.question_length
        for window, place in enumerate(places):
            has_answer = any(in_place(span, place) for span in spans)
            counts['without'] += bool(raw['answers']) and not has_answer
            if has_answer or keep or not raw['answers']:
                chosen.append(number)
                numbers.append(window)
                lengths.append(place.before + place.size + 1)
    if not chosen:
        raise UserError('no window of the training split has an answer: set a larger config.task.length')
    picked = select(rows, chosen)
    trained = Rows(len(chosen), lambda number: {**picked[number], 'window': numbers[number]}, picked.where)
    return Plan(trained, np.array(lengths), counts)


def plan_notes(counts: Mapping[str, int], settings: WindowSettings, keep: bool, no_answer: bool) -> list[str]:
    """Describes what was split, left out and cut, as sentences; `no_answer`: whether an answer may be missing."""
    fate = 'trained on "no answer"' if keep else 'left out'
    notes = []
    if counts['windows'] > counts['questions']:
        notes.append(
            f'{counts["questions"]:,} training questions give {counts["windows"]:,} windows of at most '
            f'{settings.length} tokens; {counts["without"]:,} windows do not contain the answer and are {fate}'
        )
    if counts['cut']:
        notes.append(f'{counts["cut"]:,} questions are cut to {settings.question_length} tokens')
    if counts['moved']:
        notes.append(
            f'{counts["moved"]:,} questions have an answer that is not at its answer_start; the nearest is used'
        )
    if counts['unanswerable'] and not no_answer:
        notes.append(
            f'{counts["unanswerable"]:,} training questions have no answer, but config.task.no_answer is false: every '
            'question gets an answer'
        )
    return notes


def make_buckets(settings: WindowSettings, reader: PieceReader, lengths: Any = None) -> Buckets | None:
    """Groups windows by length if the settings name `buckets`; `lengths(split)` gives the length of each row."""
    if not settings.buckets:
        return None
    fields = {'tokens': reader.tokens.pad, 'types': QUESTION} | ({'shapes': 0} if reader.words else {})
    return by_length(lengths, (*settings.buckets, settings.length), fields)

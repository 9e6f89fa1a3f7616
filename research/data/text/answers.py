"""Questions about a context with reference answers: one form of row for every layout of files.

    SQuAD JSON       {'question', 'context', 'answers': [{'text', 'answer_start'}, ...], 'is_impossible'}
    its JSON lines   {'question', 'context', 'answers': {'text': [...], 'answer_start': [...]}}
    a flat table     {'question', 'context', 'answer', 'answer_start'}; a blank answer_start means the first occurrence

Each becomes {'question', 'context', 'answers': [texts], 'starts': [code points]}. No answers, an empty one, or
'is_impossible' mean that the context does not answer the question.
"""

from collections.abc import Mapping
from typing import Any

from research.data.dataset import DataSet
from research.data.readers.fields import is_missing, remedy, some
from research.data.readers.rows import Broken, Row, Rows, change, without_broken

FLAT = ('answer', 'answer_start')  # columns of a flat table


def question_rows(data: DataSet, split: str) -> Rows:
    """The rows of a split with their references; where the reader allows it, broken rows are left out and counted.

    Raises:
      Broken: when a row is read whose answer is not part of its context.
    """
    rows = change(data.source(split), with_references)
    return without_broken(rows, rows.error_limit) if rows.error_limit >= 0 else rows


def with_references(row: Row, where: str) -> Row:
    """Replaces the answers of a row by 'answers' and 'starts'; a start that is wrong moves to the nearest occurrence.

    'moved' counts such answers, if there are any.

    Raises:
      Broken: if the row has no answers, or one that is not part of the context.
    """
    pairs = [] if row.get('is_impossible') is True else [pair for pair in given_answers(row, where) if pair[0]]
    starts = [find_answer(row['context'], text, start, where) for text, start in pairs]
    moved = sum(given is not None and given != start for (_, given), start in zip(pairs, starts, strict=True))
    kept = {name: value for name, value in row.items() if name not in (*FLAT, 'is_impossible')}
    changed = {**kept, 'answers': [text for text, _ in pairs], 'starts': starts}
    return {**changed, 'moved': moved} if moved else changed


def given_answers(row: Mapping[str, Any], where: str) -> list[tuple[str, int | None]]:
    """The answers of a row as (text, start or None), in any of the layouts."""
    answers = row.get('answers')
    if answers is None and 'answer' not in row:
        raise Broken(f"{where}: no 'answers' and no 'answer' (there: {some(row)}); {remedy('answer', row)}")
    if answers is None:
        texts, starts = [row['answer']], [row.get('answer_start')]
    elif isinstance(answers, Mapping):
        texts, starts = answers.get('text', []), answers.get('answer_start', [])
    elif all(isinstance(answer, Mapping) for answer in answers):
        texts, starts = [[answer.get(name) for answer in answers] for name in ('text', 'answer_start')]
    else:
        texts, starts = answers, row.get('starts', [None] * len(answers))
    if len(texts) != len(starts):
        raise Broken(f'{where}: {len(texts)} answers and {len(starts)} values of answer_start')
    return [(read_text(text, where), read_start(start, where)) for text, start in zip(texts, starts, strict=True)]


def read_text(value: Any, where: str) -> str:
    if isinstance(value, str) or value is None:
        return value or ''
    raise Broken(f'{where}: an answer must be a text, got {value!r:.60}')


def read_start(value: Any, where: str) -> int | None:
    """Parses 'answer_start'; None if it is missing."""
    if is_missing(value):
        return None
    try:
        number = int(value)
        if number == float(value):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise Broken(f'{where}: answer_start must be a whole number of characters, got {value!r:.60}')


def find_answer(context: str, text: str, start: int | None, where: str) -> int:
    """Position of an answer in code points: `start` if the context has it there, else the nearest occurrence.

    Raises:
      Broken: if the context does not contain the answer.
    """
    if start is not None and start >= 0 and context.startswith(text, start):
        return start
    before = context.rfind(text, 0, max(start or 0, 0) + len(text))
    after = context.find(text, max(start or 0, 0))
    found = [position for position in (before, after) if position >= 0]
    if not found:
        raise Broken(f'{where}: the answer {text!r:.60} is not part of the context ({context!r:.60})')
    return min(found, key=lambda position: abs(position - (start or 0)))

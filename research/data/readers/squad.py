"""Questions in the JSON layout of SQuAD 1.1 and 2.0, which CMRC 2018 and other sets share.

{"data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [{"question": ..., "answers": [...]}]}]}]}
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from research.data.readers.archives import Entry, read_bytes
from research.data.readers.json_text import parse_object, short
from research.data.readers.rows import Broken, Row, Rows
from research.data.readers.text import decode_file

FIELDS = ('question', 'answers', 'id', 'is_impossible')  # of a question


def read_squad(entry: Entry, finish: Callable[[Row, str], Row]) -> Rows:
    """Reads a file as one row per question: its own fields, the 'context' of its paragraph, and the 'title'.

    Args:
      entry: the file.
      finish: converts a row to its final form.

    Raises:
      Broken: if the file is not JSON in this layout.
    """
    content = parse_object(decode_file(read_bytes(entry), entry.name), entry.name)
    rows = list(questions(content, entry.name))

    def where(number: int) -> str:
        return f'{entry.name}, question {rows[number].get("id", number + 1)}'

    return Rows(len(rows), lambda number: finish(dict(rows[number]), where(number)), where)


def questions(content: Mapping[str, Any], where: str) -> Iterator[Row]:
    """Yields the rows of a parsed file, in order."""
    for article in items(content, 'data', where):
        title = article.get('title', '')
        for paragraph in items(article, 'paragraphs', f'{where}, article {title!r}'):
            for question in items(paragraph, 'qas', f'{where}, article {title!r}'):
                row = {name: question[name] for name in FIELDS if name in question}
                yield {**row, 'context': paragraph.get('context'), 'title': title}


def items(holder: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """The list of objects `holder[name]`; raises `Broken` if it is anything else."""
    value = holder.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Broken(f'{where}: expected a list of objects {name!r} as in SQuAD, got {short(value)}')
    return value

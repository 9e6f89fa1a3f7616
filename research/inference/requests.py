"""Requests of a task from typed text, files and folders."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from research.core.task import Input, Task
from research.data.formats import HEAD_BYTES, PICTURES, SOUNDS, TABLES, kind_of_content, kind_of_name
from research.data.readers.archives import MAX_FILE_BYTES, Entry
from research.data.readers.fields import normal, normal_names, some
from research.data.readers.json_text import parse_json, parse_object, short
from research.data.readers.rows import Broken
from research.data.readers.tables import read_delimited, read_parquet
from research.data.readers.text import decode_file, text_lines
from research.data.readers.walk import notes_of, walk
from research.errors import UserError, nearest

TEXT_KINDS = ('text', 'sequence')  # kinds of input that can be typed or read from a text file


class FileContent(bytes):
    """The bytes of a file, with its name for messages."""

    name = ''


class Request(dict):
    """The fields of a request, with its file and line as `name` for messages."""

    def __init__(self, fields: Mapping[str, Any], name: str = ''):
        super().__init__(fields)
        self.name = name


class Unreadable(NamedTuple):
    """A request that could not be read: the reason, with its file and line as `name`."""

    error: UserError
    name: str


def read_requests(
    inputs: Mapping[str, Input], values: Sequence[str], say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """The requests of `find_requests` with their files opened.

    Raises:
      UserError: as `find_requests`, and for the first request that cannot be read.
    """
    requests = []
    for request in find_requests(inputs, values, say):
        if isinstance(request, Unreadable):
            raise request.error
        requests.append(Request(open_files(inputs, request), request.name))
    return requests


def find_requests(
    inputs: Mapping[str, Input], values: Sequence[str], say: Callable[[str], None] = print
) -> list[Request | Unreadable]:
    """Finds requests in texts, JSON objects, files (text, table, picture, sound) or folders of them.

    A broken line of a file and a broken file of a folder become `Unreadable`. Pictures and sounds stay paths.

    Args:
      inputs: the fields that the task reads.
      values: the typed values.
      say: prints a line about each file of a folder that is skipped.

    Raises:
      UserError: for a typed value that is no request, such as a file that does not exist or does not fit.
    """
    requests = [request for value in values for request in requests_of(inputs, value, say)]
    if not requests:
        reads = ', '.join(dict.fromkeys(field.kind for field in inputs.values()))
        raise UserError(f'--input={" ".join(values)}: there is no request to answer; this task reads {reads}')
    return requests


def open_files(inputs: Mapping[str, Input], request: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces file paths in the image and audio fields of a request by the contents of the files.

    Only local programs do this: `encode` takes bytes, so that a remote request cannot read files.

    Raises:
      UserError: for a file that cannot be read, or a value whose type does not match its field.
    """
    return {name: opened(inputs, name, value) for name, value in normal_names(dict(request), 'the request').items()}


def opened(inputs: Mapping[str, Input], name: str, value: Any) -> Any:
    """A field's value, or the content of the file that it names."""
    kind = inputs[name].kind if name in inputs else ''
    if kind in TEXT_KINDS and not isinstance(value, str):
        raise UserError(f'{name!r} must be a text, got {short(value)}')
    if kind not in ('image', 'audio') or not isinstance(value, (str, os.PathLike)):
        return value
    path = os.fspath(value)
    try:
        file = pathlib.Path(path).expanduser()
        if not file.is_file():
            reason = 'not a regular file' if file.exists() else 'there is no such file'
            raise UserError(f'{name}={path}: cannot be read ({reason})')
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f'{name}={path}: larger than the limit of {MAX_FILE_BYTES:,} bytes')
        content = FileContent(file.read_bytes())
    except OSError as error:
        raise UserError(f'{name}={path}: cannot be read ({error.strerror})') from None
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:  # a null character, or an unknown home directory
        raise UserError(f'{name}={path!r}: cannot be read ({error})') from None
    content.name = path
    return content


def encode_named(encode: Callable[[Any], Any], request: Mapping[str, Any]) -> Any:
    """Encodes a request; adds the names of its files to error messages."""
    try:
        return encode(request)
    except UserError as error:
        names = [value.name for value in request.values() if isinstance(value, FileContent)]
        if not names:
            raise
        raise UserError(f'{", ".join(names)}: {error}') from None


def requests_of(inputs: Mapping[str, Input], value: str, say: Callable[[str], None]) -> Iterator[Request | Unreadable]:
    """Yields the requests in one typed value."""
    path = path_of(value)
    if value.lstrip().startswith('{'):
        yield Request(parse_object(value, 'the --input text', UserError))
    elif path is not None and path.is_dir():
        files, left_out = walk(str(path))
        for file in files:
            try:
                yield from requests_of_file(inputs, pathlib.Path(file), say, inside=True)
            except UserError as error:
                yield Unreadable(error, str(file))
        for note in notes_of(left_out):
            say(f'{path}: {note.text}')
    elif path is not None and path.is_file():
        yield from requests_of_file(inputs, path, say)
    elif path is not None:
        raise UserError(f'--input={value}: not a regular file')
    else:
        yield Request({only_field(inputs, 'text', value): value})


def path_of(value: str) -> pathlib.Path | None:
    """The existing file or folder that a value names, None for other text."""
    try:
        path = os.path.expanduser(value)
        return pathlib.Path(path) if value.strip() and os.stat(path) else None
    except (OSError, ValueError):  # no such file, name too long, or a null byte
        return None


def requests_of_file(
    inputs: Mapping[str, Input], file: pathlib.Path, say: Callable[[str], None], inside: bool = False
) -> Iterator[Request | Unreadable]:
    """Yields the requests of one file: a table, JSON, a picture, a sound, or a whole text.

    Args:
      inputs: the fields that the task reads.
      file: a regular file.
      say: prints a line about a file that is skipped.
      inside: whether the file is from a folder, where files of other kinds are skipped.
    """
    reads = {field.kind for field in inputs.values()}
    ending = file.suffix.lower()
    file_kind = kind_of_file(file)
    if ending in TABLES or ending == '.json':
        for request in table_requests(inputs, file):
            broken = isinstance(request, Unreadable)
            yield request if broken else Request(beside(inputs, request, file), request.name)
    elif file_kind and file_kind in reads:
        yield Request({only_field(inputs, file_kind, str(file)): file}, str(file))
    elif inside and (not reads & {*TEXT_KINDS} or file_kind):
        say(f'{file}: skipped, this task reads {", ".join(sorted(reads))}')
    elif file_kind:
        only_field(inputs, file_kind, str(file))  # raises: the task does not read it
    else:
        yield Request({only_field(inputs, 'text', str(file)): read_utf8(file)}, str(file))


def kind_of_file(file: pathlib.Path) -> str:
    """'image' or 'audio' by the name or first bytes of a file, as the data readers decide; '' for others."""
    if kind := kind_of_name(file.name):
        return kind
    try:
        with file.open('rb') as opened_file:
            return kind_of_content(opened_file.read(HEAD_BYTES))
    except OSError:
        return ''


def table_requests(inputs: Mapping[str, Input], file: pathlib.Path) -> Iterator[Request | Unreadable]:
    """Yields the requests in a JSON, JSON lines, CSV, TSV or Parquet file, each named by its line."""
    table_format = TABLES.get(file.suffix.lower(), 'json')
    if table_format == 'json':
        yield from json_requests(file)
    elif table_format == 'jsonl':
        for number, line in enumerate(text_lines(read_utf8(file)), 1):
            if line.strip():
                where = f'{file}, line {number}'
                try:
                    yield Request(parse_object(line, where, UserError), where)
                except UserError as error:
                    yield Unreadable(error, where)
    else:
        entry = Entry(str(file), file.name, str(file))
        if table_format == 'parquet':
            rows = read_parquet(entry, lambda row, where: row)
        else:
            is_csv = table_format == 'csv'
            rows = read_delimited(entry, lambda row, where: row, '' if is_csv else '\t', is_csv)
        for number in range(len(rows)):
            try:
                row = rows[number]
            except Broken as error:
                yield Unreadable(error, rows.where(number))
                continue
            known = {name: value for name, value in row.items() if normal(name) in inputs}
            if not known:
                raise UserError(f'{file}: this task reads none of its columns ({some(row)}) but {some(inputs)}')
            yield Request(known, rows.where(number))


def json_requests(file: pathlib.Path) -> Iterator[Request | Unreadable]:
    """Yields the object of a JSON file, or the objects of its array."""
    value = parse_json(read_utf8(file), str(file), UserError)
    for number, item in enumerate(value if isinstance(value, list) else [value], 1):
        where = f'{file}, entry {number}' if isinstance(value, list) else str(file)
        if isinstance(item, dict):
            yield Request(item, where)
        else:
            error = UserError(f'{file}, entry {number}: expected an object {{"field": value}}, got {short(item)}')
            yield Unreadable(error, where)


def beside(inputs: Mapping[str, Input], request: dict[str, Any], file: pathlib.Path) -> dict[str, Any]:
    """Resolves relative paths in a request against the folder of its file, as for training data."""
    resolved = {
        name: str(file.parent / os.path.expanduser(value))
        for name, value in request.items()
        if name in inputs and inputs[name].kind in ('image', 'audio') and isinstance(value, str)
    }
    return {**request, **resolved}


def read_utf8(file: pathlib.Path) -> str:
    """The text of a file; raises UserError if it cannot be read or is not text."""
    try:
        return decode_file(file.read_bytes(), str(file))
    except OSError as error:
        raise UserError(f'{file}: cannot be read ({error.strerror})') from None
    except UserError:
        other = f'a picture ({", ".join(PICTURES)}) nor a sound ({", ".join(SOUNDS)})'
        raise UserError(f'{file} is neither UTF-8 text nor {other}') from None


def only_field(inputs: Mapping[str, Input], input_kind: str, value: str) -> str:
    """The name of the only input field of a kind; raises UserError if the task has none or several."""
    kinds = TEXT_KINDS if input_kind == 'text' else (input_kind,)
    names = [name for name, field in inputs.items() if field.kind in kinds]
    if len(names) == 1:
        return names[0]
    fields = ', '.join(f'{name} ({field.kind})' for name, field in inputs.items()) or 'nothing: use --count'
    hint = ' (there is no such file)' if input_kind == 'text' and path_of(value) is None else ''
    raise UserError(f'--input={value!r:.80}{hint}: this task reads {fields}; give a JSON object for several fields')


def blank_requests(task: Task, count: int) -> list[Mapping[str, Any]]:
    """`count` requests for a model that needs no input: its examples, repeated."""
    needed = [name for name, field in task.inputs.items() if field.kind not in ('category', 'number')]
    if needed or (task.inputs and not task.examples):
        raise UserError(f'--count: this model reads {some(needed or list(task.inputs))}; give --input')
    examples = list(task.examples) or [{}]
    return [examples[number % len(examples)] for number in range(count)]


def check_list(name: str, value: Any, field: Input) -> None:
    """Checks a field of kind 'list': its number of items, and the fields of each.

    Raises:
      UserError: names the invalid item, and the limit or the nearest field.
    """
    if not isinstance(value, (list, tuple)):
        raise UserError(f'{name}: expected a list, got {value!r:.40}')
    if not value or (field.limit and len(value) > field.limit):
        raise UserError(f'{name}: expected 1 to {field.limit or "any number of"} items, got {len(value):,}')
    for number, item in enumerate(value):
        where = f'{name}[{number}]'
        if not isinstance(item, Mapping):
            raise UserError(f'{where}: expected an object with {", ".join(field.items)}, got {item!r:.40}')
        for key in item:
            if key not in field.items:
                raise UserError(f'{where}: field {key!r} is unknown; {nearest(key, field.items)}')
            if field.items[key].kind == 'list':
                check_list(f'{where}.{key}', item[key], field.items[key])

"""What a person types, or a folder holds, as requests of a task."""

import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from research.core.task import Input, Task
from research.errors import UserError

PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.gif', '.webp')
SOUNDS = ('.wav', '.flac', '.ogg', '.mp3', '.aif', '.aiff')


class FileContent(bytes):
    """The bytes of a file, with its name for messages."""

    name = ''


def read_requests(inputs: Mapping[str, Input], values: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a request per value: a text, an object, a file (text, JSON lines, picture, sound) or a folder of them.

    Raises:
      UserError: for a file that does not exist or does not fit the task's inputs.
    """
    found = [open_files(inputs, request) for value in values for request in requests_of(inputs, value)]
    if not found:
        raise UserError('--input gave no requests: name a text, a file or a folder')
    return found


def open_files(inputs: Mapping[str, Input], request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the request with the contents of the files that its image and audio fields name.

    Only programs that a person runs do this: `encode` takes bytes, so a request from elsewhere reads no file.
    """

    def opened(name: str, value: Any) -> Any:
        if name not in inputs or inputs[name].kind not in ('image', 'audio'):
            return value
        if not isinstance(value, (str, os.PathLike)):
            return value
        try:
            content = FileContent(pathlib.Path(value).read_bytes())
        except OSError as error:
            raise UserError(f'{name}={os.fspath(value)}: cannot be read ({error.strerror})') from None
        content.name = os.fspath(value)
        return content

    return {name: opened(name, value) for name, value in request.items()}


def encode_named(encode: Callable[[Any], Any], request: Mapping[str, Any]) -> Any:
    """Returns the encoded request; what is wrong with it is said with the names of its files."""
    try:
        return encode(request)
    except UserError as error:
        names = [value.name for value in request.values() if isinstance(value, FileContent)]
        if not names:
            raise
        raise UserError(f'{", ".join(names)}: {error}') from None


def requests_of(inputs: Mapping[str, Input], value: str) -> Iterator[dict[str, Any]]:
    """Yields the requests of one value."""
    path = path_of(value)
    if value.lstrip().startswith('{'):
        yield parse_object(value, 'the --input text')
    elif path is not None and path.is_dir():
        files = [file for file in sorted(path.rglob('*')) if file.is_file() and not file.name.startswith('.')]
        for file in files:
            yield from requests_of_file(inputs, file)
    elif path is not None and path.is_file():
        yield from requests_of_file(inputs, path)
    else:
        yield {only_field(inputs, 'text', value): value}


def path_of(value: str) -> pathlib.Path | None:
    """Returns the file or folder that a value names, None for a text that names none."""
    try:
        return pathlib.Path(value) if value.strip() and os.stat(value) else None
    except (OSError, ValueError):  # nothing there, too long for a name, or a null byte
        return None


def requests_of_file(inputs: Mapping[str, Input], file: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the requests of one file: JSON lines, a picture, a sound, or a whole text."""
    if file.suffix == '.jsonl':
        for number, line in enumerate(read_utf8(file).splitlines(), 1):
            if line.strip():
                yield parse_object(line, f'{file}, line {number}')
    elif file.suffix.lower() in PICTURES:
        yield {only_field(inputs, 'image', str(file)): file}
    elif file.suffix.lower() in SOUNDS:
        yield {only_field(inputs, 'audio', str(file)): file}
    else:
        yield {only_field(inputs, 'text', str(file)): read_utf8(file)}


def read_utf8(file: pathlib.Path) -> str:
    """Returns the text of a file; a UserError that names it where it cannot be read or is no text."""
    try:
        return file.read_text(encoding='utf-8')
    except OSError as error:
        raise UserError(f'{file}: cannot be read ({error.strerror})') from None
    except UnicodeDecodeError:
        known = f'a picture ({", ".join(PICTURES)}) nor a sound ({", ".join(SOUNDS)})'
        raise UserError(f'{file} is neither UTF-8 text nor {known}') from None


def parse_object(text: str, where: str) -> dict[str, Any]:
    """Returns a JSON object; a UserError that says where it is broken otherwise."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f'{where}: not JSON: {error}') from None
    if not isinstance(value, dict):
        raise UserError(f'{where}: expected an object such as {{"text": "..."}}, got {value!r:.60}')
    return value


def only_field(inputs: Mapping[str, Input], kind: str, value: str) -> str:
    """Returns the name of the one input field of a kind; a UserError when the task reads none, or several."""
    kinds = ('text', 'sequence') if kind == 'text' else (kind,)
    names = [name for name, each in inputs.items() if each.kind in kinds]
    if len(names) == 1:
        return names[0]
    fields = ', '.join(f'{name} ({each.kind})' for name, each in inputs.items()) or 'nothing: use --count'
    hint = ' (there is no such file)' if kind == 'text' else ''
    raise UserError(f'--input={value!r:.80}{hint}: this task reads {fields}; give a JSON object for several fields')


def blank_requests(task: Task, count: int) -> list[dict[str, Any]]:
    """Returns `count` requests for a model that needs no input, cycling through its examples."""
    needed = [name for name, each in task.inputs.items() if each.kind not in ('category', 'number')]
    if needed:
        raise UserError(f'--count: this model reads {", ".join(needed)}; give --input')
    examples = list(task.examples) or [{}]
    return [examples[number % len(examples)] for number in range(count)]

"""Conversations as prompts: renders the chat template of a run and turns the result into tokens.

The template is a file of the run (`prepared/chat.json`), never of a request. It runs in Jinja's sandbox. Special tokens
written by a client inside a message are ordinary text: only those of the template itself become special.
"""

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.sandbox
from etils import epath
from tokenizers import Tokenizer

from research.data.text.corpus import encode_text
from research.errors import UserError
from research.serve.errors import RequestError

CHAT_FILE = 'chat.json'  # in the run's prepared folder
MAX_PROMPT = 1_000_000  # characters of a rendered conversation
SENTINELS = tuple(map(chr, range(0xFDD0, 0xFDF0)))  # code points that are no characters and stand in no text


class Chat(NamedTuple):
    """The chat template of a run and its tokenizer."""

    template: jinja2.Template
    names: Mapping[str, str]  # of special tokens, as variables of the template
    special: Mapping[str, int]  # text of each special token -> its id
    tokenizer: Tokenizer


def read_chat(prepared: epath.Path) -> Chat | None:
    """Reads the chat template of a run; None if it has none.

    Raises:
      UserError: for a template that Jinja cannot parse.
    """
    file = prepared / CHAT_FILE
    if not file.exists():
        return None
    stored = json.loads(file.read_text())
    try:
        template = environment().from_string(stored['template'])
    except jinja2.TemplateError as error:
        raise UserError(f'{file}: the chat template is not valid Jinja: {error}') from None
    tokenizer = Tokenizer.from_str((prepared / 'tokenizer.json').read_text())
    special = {text: index for text, index in stored.get('special', {}).items() if len(text) > 1}
    return Chat(template, stored.get('names', {}), special, tokenizer)


def environment() -> jinja2.Environment:
    """Jinja's sandbox with the functions that published templates call."""
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    sandbox.filters['tojson'] = as_json
    sandbox.globals.update(raise_exception=refuse, strftime_now=strftime_now)
    return sandbox


def as_json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def refuse(message: str) -> None:
    """The templates' own check of the messages."""
    raise jinja2.TemplateError(message)


def strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def prompt_of(chat: Chat, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
    """The tokens of a conversation, up to where the assistant's answer begins.

    Args:
      chat: the template of the run.
      messages: 'role' and 'content' of each.

    Raises:
      RequestError: 400 if the template refuses the messages, or the prompt is too long.
    """
    sentinel = unused(messages)
    guard = guarded(chat.special, sentinel)
    rendered = render(chat, [{**message, 'content': guard(message['content'])} for message in messages])
    parts, tokens = split_special(rendered, chat.special), []
    try:
        for text, token in parts:
            tokens += encode_text(chat.tokenizer, text.replace(sentinel, '')) if text else []
            tokens += [token] if token is not None else []
    except UserError as error:
        raise RequestError(400, str(error), 'messages') from None
    return tuple(tokens)


def render(chat: Chat, messages: Sequence[Mapping[str, str]]) -> str:
    """Renders a conversation; raises RequestError if the template fails or writes too much."""
    pieces, length = [], 0
    try:
        for piece in chat.template.generate(messages=messages, add_generation_prompt=True, **chat.names):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_PROMPT:
                raise RequestError(400, f'the conversation is longer than {MAX_PROMPT:,} characters', 'messages')
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        reason = str(error)[:200]
        raise RequestError(
            400, f'the chat template of this model refuses these messages: {reason}', 'messages'
        ) from None
    return ''.join(pieces)


def unused(messages: Sequence[Mapping[str, str]]) -> str:
    """A code point that occurs in none of the messages."""
    written = {character for message in messages for character in message['content']}
    free = [sentinel for sentinel in SENTINELS if sentinel not in written]
    if not free:
        raise RequestError(400, 'the messages have all of the code points U+FDD0 to U+FDEF', 'messages')
    return free[0]


def guarded(special: Mapping[str, int], sentinel: str) -> Callable[[str], str]:
    """A function that breaks special tokens written in a text: a sentinel follows each of their first characters."""
    firsts = sorted({token[0] for token in special})

    def guard(text: str) -> str:
        if any(token in text for token in special):
            for first in firsts:
                text = text.replace(first, first + sentinel)
        return text

    return guard


def split_special(text: str, special: Mapping[str, int]) -> list[tuple[str, int | None]]:
    """Splits a text at special tokens: pairs of the text before one, and its id (None at the end)."""
    if not special:
        return [(text, None)]
    longest_first = sorted(special, key=len, reverse=True)
    parts = re.split(f'({"|".join(map(re.escape, longest_first))})', text)
    return [
        *((before, special[token]) for before, token in zip(parts[::2], parts[1::2], strict=False)),
        (parts[-1], None),
    ]

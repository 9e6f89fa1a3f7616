"""The corpora of texts by name; one more is one more line."""

from collections.abc import Callable, Mapping
from typing import Any

from research.data.readers import has_reader
from research.data.sets.python_source import python_source
from research.data.sets.synthetic_text import synthetic_text
from research.data.sets.tiny_shakespeare import tiny_shakespeare
from research.data.text.corpus import Corpus
from research.data.text.own_texts import own_texts
from research.errors import UserError, choose, unpack


def text_set(settings: Mapping[str, Any]) -> Callable[[], Corpus]:
    """Checks `config.data` and returns the function that reads the corpus it names.

    Raises:
      UserError: for an unknown name or setting.
    """
    if has_reader(settings):
        return own_texts(settings)
    if not settings.get('name'):
        raise UserError(
            "config.data.name is missing: name a corpus, such as 'python_source', or read your own by "
            "config.data.reader, such as 'text_folder'"
        )
    readers = {
        'python_source': python_source,
        'synthetic': synthetic_text,
        'tiny_shakespeare': tiny_shakespeare,
    }
    options = {key: value for key, value in settings.items() if key != 'name'}
    return unpack(choose(settings['name'], readers, 'config.data.name'), options, 'data')

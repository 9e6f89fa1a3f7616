"""The corpora of texts by name; one more is one more line."""

from collections.abc import Mapping
from typing import Any

from research.data.python_source import python_source
from research.data.text import Corpus
from research.errors import UserError, choose, unpack


def text_set(settings: Mapping[str, Any]) -> Corpus:
    """Returns the corpus that `config.data` names, read with its other settings.

    Raises:
      UserError: for an unknown name or setting.
    """
    if not settings.get('name'):
        raise UserError("config.data.name is missing: name a corpus, such as 'python_source'")
    readers = {'python_source': python_source}
    options = {key: value for key, value in settings.items() if key != 'name'}
    return unpack(choose(settings['name'], readers, 'config.data.name'), options, 'data')

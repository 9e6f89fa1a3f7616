"""What a task needs to start from pretrained weights: `config.model.weights` and `config.model.revision`.

    prepare   tokenizer = store(config.model, folder)         once: resolves the name, pins the revision
    make      shape = read_shape(config.model, folder, ...)   sizes of the weights, choices of the config
              Task(load=make_load(config.model, folder))      read only when a run starts
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from tokenizers import Tokenizer

from research.core.task import Variables
from research.data.text import END
from research.errors import UserError, unpack
from research.interop.files import locate
from research.interop.vocabulary import read_tokenizer
from research.interop.weights import check_tokenizer, read, read_settings
from research.nn.transformer_settings import RATES, TransformerSettings

FILE = 'weights.json'  # in the run's prepared folder
KEYS = ('weights', 'revision')
FREE = (*RATES, 'dtype', 'attention', 'remat', 'scan')  # the config's choice; all else is that of the weights


def without_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the section `config.model` without the keys that are read here."""
    return {key: value for key, value in model.items() if key not in KEYS}


def store(model: Mapping[str, Any], folder: epath.Path) -> Tokenizer | None:
    """Resolves `config.model.weights`, stores what it is, and returns its tokenizer; None where it is ''.

    Writes weights.json: name, the commit that the revision stands for, family, settings, and end (the id of
    the token that ends a text, or -1). A folder is stored by its full path.

    Raises:
      UserError: as of `weights.read`, and where the folder has no tokenizer.
    """
    name, revision = (model.get(key, '') for key in KEYS)
    if not name:
        if revision:
            raise UserError(f'config.model.revision={revision!r}: it goes with config.model.weights, which is empty')
        return None
    place = locate(name, revision)
    family, config, settings, _ = read_settings(place)
    tokenizer = read_tokenizer(place.folder)
    if tokenizer is None:
        raise UserError(f'{place.folder} has none of tokenizer.json, vocab.txt, and vocab.json with merges.txt')
    check_tokenizer(tokenizer, settings['vocabulary'], place.folder)
    ends = config.get('eos_token_id')
    end = ends[0] if isinstance(ends, list) else ends
    known = isinstance(end, int) and tokenizer.id_to_token(end) is not None
    about = {
        'name': place.name, 'revision': place.revision, 'family': family.model_type, 'settings': settings,
        'end': end if known else -1,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(about, indent=2))
    return tokenizer


def read_about(model: Mapping[str, Any], folder: epath.Path) -> dict[str, Any] | None:
    """Returns what `store` wrote, or None where the config names no weights."""
    return json.loads((folder / FILE).read_text()) if model.get('weights') else None


def read_shape(model: Mapping[str, Any], folder: epath.Path, **sizes: int) -> TransformerSettings:
    """Returns the shape of the model: that of the config, or of the weights where it names some.

    Args:
      model: the section `config.model`, with 'weights' and 'revision' or without. With weights, only its
        dropout, dtype, attention, remat and scan count.
      folder: of `store`.
      **sizes: vocabulary and length of the task; with weights, length must fit and vocabulary is theirs.

    Raises:
      UserError: for a setting that does not exist, and a length that the weights have no positions for.
    """
    own = unpack(TransformerSettings, without_weights(model), 'model', **sizes)
    about = read_about(model, folder)
    if about is None:
        return own
    stored = {key: tuple(value) if isinstance(value, list) else value for key, value in about['settings'].items()}
    shape = TransformerSettings(**stored)
    shape.check_length(sizes.get('length', 1), 'config.task.length')
    return dataclasses.replace(shape, **{key: getattr(own, key) for key in FREE if key in model})


def make_load(
    model: Mapping[str, Any], folder: epath.Path, group: str = 'model', path: str = ''
) -> Callable[[], Variables] | None:
    """Returns a task's `load`, or None where the config names no weights.

    Args:
      model, folder: as of `read_shape`.
      group: of parameters.
      path: where the Transformer's parameters stand in the group's ('encoder'); '' is all of it.
    """
    about = read_about(model, folder)
    if about is None:
        return None

    def load() -> Variables:
        params = read(about['name'], about['revision']).params
        for part in reversed(path.split('/') if path else []):
            params = {part: params}
        return Variables({group: params}, {})

    return load


def stream_tokenizer(model: Mapping[str, Any], folder: epath.Path) -> Tokenizer | None:
    """Returns `store`'s tokenizer for streams of documents: byte-level, its end of a text called END.

    Raises:
      UserError: for a tokenizer that is not byte-level (bits per byte could not be told), or has no end.
    """
    tokenizer = store(model, folder)
    if tokenizer is None:
        return None
    described = json.loads(tokenizer.to_str())
    if '"ByteLevel"' not in json.dumps(described['decoder']):
        raise UserError(f'config.model.weights={model["weights"]!r}: its tokenizer is not byte-level')
    if tokenizer.token_to_id(END) is not None:
        return tokenizer
    end = tokenizer.id_to_token(json.loads((folder / FILE).read_text())['end'])
    if end is None:
        raise UserError(f'config.model.weights={model["weights"]!r}: it names no token that ends a text')
    return renamed(described, end, END)


def renamed(described: Mapping[str, Any], old: str, new: str) -> Tokenizer:
    """Returns the tokenizer of a description with one special token under another name."""
    added = [
        {**token, 'content': new if token['content'] == old else token['content']}
        for token in described['added_tokens']
    ]
    vocabulary = {new if token == old else token: index for token, index in described['model']['vocab'].items()}
    # what it puts around a text names tokens too, and streams go without
    changed = {'added_tokens': added, 'model': {**described['model'], 'vocab': vocabulary}, 'post_processor': None}
    return Tokenizer.from_str(json.dumps({**described, **changed}))

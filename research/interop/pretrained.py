"""What a task needs to start from pretrained weights: `config.model.weights` and `config.model.revision`.

    prepare   tokenizer = store(config.model, folder, kind)   once: resolves the name, pins the revision
              store_pictures(config.model, folder, shape)     likewise, of a model that reads pictures
    make      shape = read_shape(config.model, folder, ...)   sizes of the weights, choices of the config
              Task(load=make_load(config.model, folder))      read only when a run starts
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from tokenizers import Tokenizer

from research.core.task import Variables
from research.data.text.corpus import END
from research.errors import UserError, unpack
from research.interop.checks import check_moments, damaged
from research.interop.files import Tensors, WeightsSource, locate, read_json
from research.interop.names import Family
from research.interop.sentence_pieces import from_marian
from research.interop.vocabulary import read_tokenizer
from research.interop.weights import check_tokenizer, read, read_picture, read_settings
from research.nn.transformer_settings import RATES, TransformerSettings
from research.ops import paths

FILE = 'weights.json'  # in the run's prepared folder
HEADS = ('*classifier.*', '*score.*', '*qa_outputs.*')  # tensors of other tasks
DEFAULTS = {'weights': '', 'revision': ''}  # settings of config.model that are read here
KEYS = tuple(DEFAULTS)
KINDS = {  # what a task may ask for, and families of it
    'encoder': 'BERT, RoBERTa or DistilBERT',
    'decoder': 'GPT-2, Llama, Mistral or Qwen',
    'encoder-decoder': 'T5 or Marian',
}
FREE = (*RATES, 'dtype', 'attention', 'remat', 'scan')  # the config's choice; all else is that of the weights


def without_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the section `config.model` without the keys that are read here."""
    return {key: value for key, value in model.items() if key not in KEYS}


def check_kind(name: str, family: Family, settings: Mapping[str, Any], kind: str) -> None:
    """Raises a `UserError` where weights are not of the `kind` (of `KINDS`) that a task needs."""
    found = 'encoder-decoder' if family.encoder_decoder else 'decoder' if settings.get('causal', True) else 'encoder'
    found = 'model of pictures' if family.image else found
    if found != kind:
        article = 'an' if found.startswith('e') else 'a'
        raise UserError(
            f'config.model.weights={name!r} is no {kind} but {article} {found} ({family.model_type}): this task starts '
            f'from {KINDS[kind]}'
        )


def store(model: Mapping[str, Any], folder: epath.Path, kind: str) -> Tokenizer | None:
    """Resolves `config.model.weights`, stores what it is, and returns its tokenizer; None where it is ''.

    Writes weights.json: name, the commit that the revision stands for, family, settings, and the ids of the tokens
    that end a text (end) and start a decoder (start), or -1. A folder is stored by its full path.

    Args:
      model: the section `config.model`.
      folder: the run's prepared folder.
      kind: of `KINDS`, what the task can use.

    Raises:
      UserError: as of `weights.read`; where the weights are of another kind, or the folder has no tokenizer.
    """
    place = place_of(model)
    if place is None:
        return None
    family, config, settings, _ = read_settings(place)
    check_kind(model['weights'], family, settings, kind)
    tokenizer = read_tokenizer(place.folder)
    if tokenizer is None:
        raise UserError(
            f'{place.folder} has none of tokenizer.json, vocab.txt, vocab.json with merges.txt, spiece.model, and '
            'source.spm'
        )
    check_tokenizer(tokenizer, settings['vocabulary'], place.folder)
    ends = config.get('eos_token_id')
    marks = {
        'end': ends[0] if isinstance(ends, list) else ends,
        'start': config.get('decoder_start_token_id', config.get('pad_token_id')),
    }
    known = {key: isinstance(mark, int) and tokenizer.id_to_token(mark) is not None for key, mark in marks.items()}
    marks = {key: mark if known[key] else -1 for key, mark in marks.items()}
    write_about(folder, place, family.model_type, settings, marks)
    return tokenizer


def place_of(model: Mapping[str, Any]) -> WeightsSource | None:
    """Returns where the weights of `config.model` are, or None where it names none; raises as `locate` does."""
    name, revision = (model.get(key, '') for key in KEYS)
    if not name and revision:
        raise UserError(f'config.model.revision={revision!r}: it goes with config.model.weights, which is empty')
    return locate(name, revision) if name else None


def write_about(folder: epath.Path, place: WeightsSource, family: str, settings: Mapping[str, Any], more: Any) -> None:
    """Writes weights.json."""
    about = {'name': place.name, 'revision': place.revision, 'family': family, 'settings': settings, **more}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(about, indent=2))


def store_pictures(model: Mapping[str, Any], folder: epath.Path, shape: tuple[int, int, int]) -> None:
    """Resolves `config.model.weights` of a model of pictures and stores what it is, if it names any.

    weights.json has, beside name, commit, family and settings, 'image' (size, patch, channels, classes), and
    'mean' and 'std' of its preprocessor_config.json, or 0.5 where the folder has none, as ViT's authors do.

    Args:
      model, folder: as of `store`.
      shape: height, width and channels of the pictures to be read.

    Raises:
      UserError: as of `weights.read`, for weights that read no pictures, and for pictures of another shape.
    """
    place = place_of(model)
    if place is None:
        return
    family, config, settings, names = read_settings(place)
    if family.image is None:
        raise UserError(f'config.model.weights={place.name!r} is a {family.model_type}, which reads no pictures')
    image = read_picture(family, config, names, place.folder)
    wanted = (image['size'], image['size'], image['channels'])
    if tuple(shape) != wanted:
        given, sizes = ('x'.join(map(str, each)) for each in (shape, wanted))
        raise UserError(
            f'config.model.weights={place.name!r} reads pictures of {sizes} (height, width, channels), the data have '
            f'{given}: set config.data.shape={",".join(map(str, wanted))} for pictures that a reader reads'
        )
    file = place.folder / 'preprocessor_config.json'
    found = read_json(file) if file.exists() else {}
    moments = {
        ours: check_moments(found.get(key, 0.5), wanted[2], file)
        for ours, key in (('mean', 'image_mean'), ('std', 'image_std'))
    }
    write_about(folder, place, family.model_type, settings, {'image': image, **moments})


def read_about(model: Mapping[str, Any], folder: epath.Path) -> dict[str, Any] | None:
    """Returns what `store` wrote, or None where the config names no weights.

    Raises:
      UserError: where the folder was prepared without weights.
    """
    if not model.get('weights'):
        return None
    if not (folder / FILE).exists():
        raise UserError(
            f'{folder} was prepared without config.model.weights={model["weights"]!r}, which decide what is prepared: '
            'start in another --workdir'
        )
    return json.loads((folder / FILE).read_text())


def read_marks(model: Mapping[str, Any], folder: epath.Path) -> tuple[int, int] | None:
    """Returns the tokens that start a decoder and end a text, or None where the config names no weights.

    Raises:
      UserError: where the weights name none.
    """
    about = read_about(model, folder)
    if about is None:
        return None
    for key, what in (('start', 'starts a decoder (decoder_start_token_id)'), ('end', 'ends a text (eos_token_id)')):
        if about[key] < 0:
            raise UserError(f'config.model.weights={model["weights"]!r}: its config.json names no token that {what}')
    return about['start'], about['end']


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
    stored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in about['settings'].items()
    }
    shape = TransformerSettings(**stored)
    if (length := sizes.get('length', 1)) > shape.length:
        raise UserError(
            f'config.task.length asks for {length} positions, and config.model.weights={model["weights"]!r} has '
            f'{shape.length}: lower it'
        )
    return dataclasses.replace(shape, **{key: getattr(own, key) for key in FREE if key in model})


def read_target(model: Mapping[str, Any], folder: epath.Path, source: Tokenizer) -> Tokenizer:
    """Returns the tokenizer of targets: Marian's own, of target.spm, or that of the source.

    Raises:
      UserError: for one that is damaged, or has ids beyond the embedding.
    """
    about = read_about(model, folder)
    assert about is not None
    place = locate(about['name'], about['revision']).folder
    if not (place / 'target.spm').exists():
        return source
    with damaged(place / 'target.spm'):
        tokenizer = from_marian(place, 'target')
    check_tokenizer(tokenizer, about['settings']['vocabulary'], place)
    return tokenizer


def read_head(
    model: Mapping[str, Any], folder: epath.Path, classes: Sequence[str]
) -> dict[str, np.ndarray] | None:
    """Returns the linear layer after BERT's pooler that was trained for the same classes, or None.

    The names of the classes are those of config.json's id2label; they may be in another order.

    Returns:
      'kernel' [width, classes] and 'bias' [classes] in the order of `classes`.

    Raises:
      UserError: where its tensors are damaged.
    """
    about = read_about(model, folder)
    if about is None or about['family'] != 'bert':
        return None
    place = locate(about['name'], about['revision']).folder
    tensors, labels = Tensors(place), read_json(place / 'config.json').get('id2label')
    if not isinstance(labels, dict) or not {'classifier.weight', 'classifier.bias'} <= set(tensors.files):
        return None
    with damaged(place / 'config.json'):
        names = [str(labels[key]) for key in sorted(labels, key=int)]
    if sorted(names) != sorted(classes):
        return None
    kernel, bias = tensors['classifier.weight'].T, tensors['classifier.bias']
    width = about['settings']['width']
    if kernel.shape != (width, len(names)) or bias.shape != (len(names),):
        raise UserError(f'{place}: its classifier has shape {list(kernel.T.shape)}, not {[len(names), width]}')
    order = [names.index(name) for name in classes]
    return {'kernel': kernel[:, order], 'bias': bias[order]}


def make_load(
    model: Mapping[str, Any], folder: epath.Path, group: str = 'model', path: str = '', head: Any = None
) -> Callable[[], Variables] | None:
    """Returns a task's `load`, or None where the config names no weights.

    Args:
      model, folder: as of `read_shape`.
      group: of parameters.
      path: where the Transformer's parameters stand in the group's ('encoder'); '' is all of it.
      head: parameters of the group's 'head', as of `read_head`; None: it starts anew.
    """
    about = read_about(model, folder)
    if about is None:
        return None

    def load() -> Variables:
        found = read(about['name'], about['revision'])
        params, heads = found.params, [name for name in found.about['left_out'] if paths.match(name, HEADS)]
        if heads and head is None:
            logging.warning(
                'config.model.weights=%s: its trained head is not read (%s); the head of this task starts anew',
                about['name'], ', '.join(heads),
            )  # fmt: skip
        for part in reversed(path.split('/') if path else []):
            params = {part: params}
        return Variables({group: params if head is None else {**params, 'head': head}}, {})

    return load


def stream_tokenizer(model: Mapping[str, Any], folder: epath.Path) -> Tokenizer | None:
    """Returns `store`'s tokenizer for streams of documents, its end of a text called END.

    It is byte-level (GPT-2, Llama 3, Qwen), or of pieces with a token for each byte (Llama 2, Mistral).

    Raises:
      UserError: for one that loses bytes, so that bits per byte cannot be counted, or has no end.
    """
    tokenizer = store(model, folder, 'decoder')
    if tokenizer is None:
        return None
    described = json.loads(tokenizer.to_str())
    falls_back = described['model'].get('byte_fallback') and '"ByteFallback"' in json.dumps(described['decoder'])
    if '"ByteLevel"' not in json.dumps(described['decoder']) and not falls_back:
        raise UserError(
            f'config.model.weights={model["weights"]!r}: its tokenizer is not byte-level and has no tokens for single '
            'bytes'
        )
    if tokenizer.token_to_id(END) is not None:
        return tokenizer
    end = tokenizer.id_to_token(json.loads((folder / FILE).read_text())['end'])
    if end is None:
        raise UserError(f'config.model.weights={model["weights"]!r}: it names no token that ends a text')
    return renamed(described, end, END)


def with_name(value: Any, old: str, new: str) -> Any:
    """Returns a value of JSON with one string under another name, as value or key."""
    if isinstance(value, dict):
        return {new if key == old else key: with_name(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [with_name(each, old, new) for each in value]
    return new if value == old else value


def renamed(described: Mapping[str, Any], old: str, new: str) -> Tokenizer:
    """Returns the tokenizer of a description with one special token under another name."""
    added = [
        {**token, 'content': new if token['content'] == old else token['content']}
        for token in described['added_tokens']
    ]
    vocabulary = {new if token == old else token: index for token, index in described['model']['vocab'].items()}
    frame = with_name(described.get('post_processor'), old, new)  # what it puts around a text names tokens too
    changed = {'added_tokens': added, 'model': {**described['model'], 'vocab': vocabulary}, 'post_processor': frame}
    return Tokenizer.from_str(json.dumps({**described, **changed}))

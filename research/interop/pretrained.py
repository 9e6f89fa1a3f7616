"""Starts a task from pretrained weights: `config.model.weights` and `config.model.revision`.

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

WEIGHTS_FILE = 'weights.json'  # in the run's prepared folder
HEADS = ('*classifier.*', '*score.*', '*qa_outputs.*')  # tensors of other tasks
DEFAULTS = {'weights': '', 'revision': ''}  # settings of config.model that are read here
KEYS = tuple(DEFAULTS)
KINDS = {  # kinds of models that a task can require, with their families
    'encoder': 'BERT, RoBERTa or DistilBERT',
    'decoder': 'GPT-2, Llama, Mistral or Qwen',
    'encoder-decoder': 'T5 or Marian',
}
OVERRIDABLE = (*RATES, 'dtype', 'attention', 'remat', 'scan')  # settings that the config may change


def without_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """`config.model` without the keys that are read here."""
    return {key: value for key, value in model.items() if key not in KEYS}


def check_kind(name: str, family: Family, settings: Mapping[str, Any], kind: str) -> None:
    """Raises UserError if weights are not of the `kind` (of `KINDS`) that a task needs."""
    actual = 'encoder-decoder' if family.encoder_decoder else 'decoder' if settings.get('causal', True) else 'encoder'
    actual = 'image model' if family.image else actual
    if actual != kind:
        article, needed = ('an' if word[0] in 'ei' else 'a' for word in (actual, kind))
        raise UserError(
            f'config.model.weights={name!r} is {article} {actual} ({family.model_type}); this task needs {needed} '
            f'{kind}: {KINDS[kind]}'
        )


def store(model: Mapping[str, Any], folder: epath.Path, kind: str) -> Tokenizer | None:
    """Resolves `config.model.weights`, stores its description, and returns its tokenizer; None without weights.

    Writes weights.json: name, the commit of the revision, family, settings, and the ids of the tokens that end a text
    (end) and start a decoder (start), or -1. A folder is stored by its full path.

    Args:
      model: the section `config.model`.
      folder: the run's prepared folder.
      kind: of `KINDS`, required by the task.

    Raises:
      UserError: as of `weights.read`; if the weights are of another kind, or the folder has no tokenizer.
    """
    source = source_of(model)
    if source is None:
        return None
    family, config, settings, _ = read_settings(source)
    check_kind(model['weights'], family, settings, kind)
    tokenizer = read_tokenizer(source.folder)
    if tokenizer is None:
        raise UserError(
            f'{source.folder} has none of tokenizer.json, vocab.txt, vocab.json with merges.txt, spiece.model, and '
            'source.spm'
        )
    check_tokenizer(tokenizer, settings['vocabulary'], source.folder)
    ends = config.get('eos_token_id')
    marks = {
        'end': ends[0] if isinstance(ends, list) else ends,
        'start': config.get('decoder_start_token_id', config.get('pad_token_id')),
    }
    known = {key: isinstance(mark, int) and tokenizer.id_to_token(mark) is not None for key, mark in marks.items()}
    marks = {key: mark if known[key] else -1 for key, mark in marks.items()}
    write_description(folder, source, family.model_type, settings, marks)
    return tokenizer


def source_of(model: Mapping[str, Any]) -> WeightsSource | None:
    """Locates the weights of `config.model`; None if it names none. Raises as `locate`."""
    name, revision = (model.get(key, '') for key in KEYS)
    if not name and revision:
        raise UserError(f'config.model.revision={revision!r}: it goes with config.model.weights, which is empty')
    return locate(name, revision) if name else None


def write_description(
    folder: epath.Path, source: WeightsSource, family: str, settings: Mapping[str, Any], more: Any
) -> None:
    description = {'name': source.name, 'revision': source.revision, 'family': family, 'settings': settings, **more}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS_FILE).write_text(json.dumps(description, indent=2))


def store_pictures(model: Mapping[str, Any], folder: epath.Path, shape: tuple[int, int, int]) -> None:
    """Resolves `config.model.weights` of an image model and stores its description, if it names any.

    weights.json has, beside name, commit, family and settings, 'image' (size, patch, channels, classes), and
    'mean' and 'std' of its preprocessor_config.json, or 0.5 where the folder has none, as ViT's authors do.

    Args:
      model, folder: as of `store`.
      shape: height, width and channels of the pictures to be read.

    Raises:
      UserError: as of `weights.read`, for weights that read no pictures, and for pictures of another shape.
    """
    source = source_of(model)
    if source is None:
        return
    family, config, settings, names = read_settings(source)
    if family.image is None:
        raise UserError(f'config.model.weights={source.name!r} is a {family.model_type}, which reads no pictures')
    image = read_picture(family, config, names, source.folder)
    wanted = (image['size'], image['size'], image['channels'])
    if tuple(shape) != wanted:
        given, sizes = ('x'.join(map(str, dimensions)) for dimensions in (shape, wanted))
        raise UserError(
            f'config.model.weights={source.name!r} reads pictures of {sizes} (height, width, channels), the data have '
            f'{given}: set config.data.shape={",".join(map(str, wanted))} for pictures that a reader reads'
        )
    file = source.folder / 'preprocessor_config.json'
    preprocessor = read_json(file) if file.exists() else {}
    moments = {
        ours: check_moments(preprocessor.get(key, 0.5), wanted[2], file)
        for ours, key in (('mean', 'image_mean'), ('std', 'image_std'))
    }
    write_description(folder, source, family.model_type, settings, {'image': image, **moments})


def read_description(model: Mapping[str, Any], folder: epath.Path) -> dict[str, Any] | None:
    """Reads what `store` wrote; None if the config names no weights.

    Raises:
      UserError: if the folder was prepared without weights.
    """
    if not model.get('weights'):
        return None
    if not (folder / WEIGHTS_FILE).exists():
        raise UserError(
            f'{folder} was prepared without config.model.weights={model["weights"]!r}, which decide what is prepared: '
            'start in another --workdir'
        )
    return json.loads((folder / WEIGHTS_FILE).read_text())


def read_marks(model: Mapping[str, Any], folder: epath.Path) -> tuple[int, int] | None:
    """Reads the ids that start a decoder and end a text; None if the config names no weights.

    Raises:
      UserError: if the weights do not define them.
    """
    description = read_description(model, folder)
    if description is None:
        return None
    for key, what in (('start', 'starts a decoder (decoder_start_token_id)'), ('end', 'ends a text (eos_token_id)')):
        if description[key] < 0:
            raise UserError(f'config.model.weights={model["weights"]!r}: its config.json names no token that {what}')
    return description['start'], description['end']


def read_shape(model: Mapping[str, Any], folder: epath.Path, **sizes: int) -> TransformerSettings:
    """The settings of the model: those of the config, or of the weights if it names any.

    Args:
      model: the section `config.model`, with 'weights' and 'revision' or without. With weights, only its
        dropout, dtype, attention, remat and scan count.
      folder: of `store`.
      **sizes: vocabulary and length of the task; with weights, length must fit and vocabulary is theirs.

    Raises:
      UserError: for an unknown setting, or a length beyond the positions of the weights.
    """
    if '.' in model.get('name', ''):  # a model of another package, which reads its settings itself
        return unpack(TransformerSettings, {}, 'model', **sizes)
    configured = unpack(TransformerSettings, without_weights(model), 'model', **sizes)
    description = read_description(model, folder)
    if description is None:
        return configured
    stored: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in description['settings'].items()
    }
    shape = TransformerSettings(**stored)
    if (length := sizes.get('length', 1)) > shape.length:
        raise UserError(
            f'config.task.length asks for {length} positions, and config.model.weights={model["weights"]!r} has '
            f'{shape.length}: lower it'
        )
    return dataclasses.replace(shape, **{key: getattr(configured, key) for key in OVERRIDABLE if key in model})


def read_target(model: Mapping[str, Any], folder: epath.Path, source: Tokenizer) -> Tokenizer:
    """The tokenizer of targets: Marian's own from target.spm, or that of the source.

    Raises:
      UserError: if it is damaged, or has ids beyond the embedding.
    """
    description = read_description(model, folder)
    assert description is not None
    weights_folder = locate(description['name'], description['revision']).folder
    if not (weights_folder / 'target.spm').exists():
        return source
    with damaged(weights_folder / 'target.spm'):
        tokenizer = from_marian(weights_folder, 'target')
    check_tokenizer(tokenizer, description['settings']['vocabulary'], weights_folder)
    return tokenizer


def read_head(
    model: Mapping[str, Any], folder: epath.Path, classes: Sequence[str]
) -> dict[str, np.ndarray] | None:
    """Reads the linear layer after BERT's pooler, if it was trained for the same classes; else None.

    The names of the classes are those of config.json's id2label; they may be in another order.

    Returns:
      'kernel' [width, classes] and 'bias' [classes] in the order of `classes`.

    Raises:
      UserError: if its tensors are damaged.
    """
    description = read_description(model, folder)
    if description is None or description['family'] != 'bert':
        return None
    weights_folder = locate(description['name'], description['revision']).folder
    tensors, labels = Tensors(weights_folder), read_json(weights_folder / 'config.json').get('id2label')
    if not isinstance(labels, dict) or not {'classifier.weight', 'classifier.bias'} <= set(tensors.files):
        return None
    with damaged(weights_folder / 'config.json'):
        names = [str(labels[key]) for key in sorted(labels, key=int)]
    if sorted(names) != sorted(classes):
        return None
    kernel, bias = tensors['classifier.weight'].T, tensors['classifier.bias']
    width = description['settings']['width']
    if kernel.shape != (width, len(names)) or bias.shape != (len(names),):
        raise UserError(f'{weights_folder}: its classifier has shape {list(kernel.T.shape)}, not {[len(names), width]}')
    order = [names.index(name) for name in classes]
    return {'kernel': kernel[:, order], 'bias': bias[order]}


def make_load(
    model: Mapping[str, Any], folder: epath.Path, group: str = 'model', path: str = '', head: Any = None
) -> Callable[[], Variables] | None:
    """Makes a task's `load`; None if the config names no weights.

    Args:
      model, folder: as of `read_shape`.
      group: of parameters.
      path: path of the Transformer within the group ('encoder'); '' is the group itself.
      head: parameters of the group's 'head', as of `read_head`; None initializes it.
    """
    description = read_description(model, folder)
    if description is None:
        return None

    def load() -> Variables:
        pretrained = read(description['name'], description['revision'])
        params, heads = pretrained.params, [name for name in pretrained.about['left_out'] if paths.match(name, HEADS)]
        if heads and head is None:
            logging.warning(
                'config.model.weights=%s: its trained head is not loaded (%s); the head of this task is initialized',
                description['name'], ', '.join(heads),
            )  # fmt: skip
        for part in reversed(path.split('/') if path else []):
            params = {part: params}
        return Variables({group: params if head is None else {**params, 'head': head}}, {})

    return load


def stream_tokenizer(model: Mapping[str, Any], folder: epath.Path) -> Tokenizer | None:
    """The tokenizer of `store` for streams of documents, with its end token renamed to END.

    It is byte-level (GPT-2, Llama 3, Qwen), or has a token for each byte (Llama 2, Mistral).

    Raises:
      UserError: if it loses bytes, so bits per byte cannot be computed, or has no end token.
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
    end = tokenizer.id_to_token(json.loads((folder / WEIGHTS_FILE).read_text())['end'])
    if end is None:
        raise UserError(f'config.model.weights={model["weights"]!r}: it names no token that ends a text')
    return renamed(described, end, END)


def with_name(value: Any, old: str, new: str) -> Any:
    """Renames a string in a JSON value, as value or key."""
    if isinstance(value, dict):
        return {new if key == old else key: with_name(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [with_name(item, old, new) for item in value]
    return new if value == old else value


def renamed(described: Mapping[str, Any], old: str, new: str) -> Tokenizer:
    """Rebuilds a tokenizer with one special token renamed."""
    added = [
        {**token, 'content': new if token['content'] == old else token['content']}
        for token in described['added_tokens']
    ]
    vocabulary = {new if token == old else token: index for token, index in described['model']['vocab'].items()}
    frame = with_name(described.get('post_processor'), old, new)  # the post-processor names tokens too
    changed = {'added_tokens': added, 'model': {**described['model'], 'vocab': vocabulary}, 'post_processor': frame}
    return Tokenizer.from_str(json.dumps({**described, **changed}))

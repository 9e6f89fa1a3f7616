"""Starts a task from pretrained weights: `config.model.weights` and `config.model.revision`.

    prepare   tokenizer = store(config.model, folder, kind)   once: resolves the name, pins the revision
              store_pictures(config.model, folder, shape)     likewise, of a model that reads pictures
    make      shape = read_shape(config.model, folder, ...)   sizes of the weights, choices of the config
              Task(load=make_load(config.model, folder))      read only when a run starts
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath
from tokenizers import Tokenizer

from research.core.task import Variables
from research.data.text.corpus import END
from research.errors import UserError, fits, unpack
from research.interop.chat_files import read_chat
from research.interop.checks import MAX_NUMBER, check_moments, damaged
from research.interop.files import WeightsSource, locate, read_json
from research.interop.heads import order_of, read_head, read_labels
from research.interop.names import Family
from research.interop.sentence_pieces import from_marian
from research.interop.vocabulary import read_tokenizer
from research.interop.weights import check_tokenizer, read, read_picture, read_settings
from research.nn.transformer_settings import RATES, TransformerSettings
from research.ops import paths

WEIGHTS_FILE = 'weights.json'  # in the run's prepared folder
CHAT_FILE = 'chat.json'  # beside it: the chat template of the weights, for the server
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

    Writes weights.json: name, the commit of the revision, family, settings, config.json, the ids of the tokens that end
    a text (ends, and the first of them as end) and start a decoder (start), or -1, the name of that end token, and the
    classes of a trained head (labels). A folder is stored by its full path. Writes chat.json too, as `read_chat`
    returns it, if the weights have a chat template.

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
    family, config, settings, names = read_settings(source)
    check_kind(model['weights'], family, settings, kind)
    tokenizer = read_tokenizer(source.folder)
    if tokenizer is None:
        raise UserError(
            f'{source.folder} has none of tokenizer.json, vocab.txt, vocab.json with merges.txt, spiece.model, and '
            'source.spm'
        )
    check_tokenizer(tokenizer, settings['vocabulary'], source.folder)
    marks = marks_of(config, source.folder, tokenizer)
    labels = read_labels(family, config, names, source.folder / 'config.json')
    end_name = tokenizer.id_to_token(marks['end']) if marks['ends'] else ''
    more = {**marks, 'end_name': end_name, 'labels': labels, 'config': config}
    write_description(folder, source, family.model_type, settings, more)
    if chat := read_chat(source.folder, tokenizer):
        (folder / CHAT_FILE).write_text(json.dumps(chat, indent=2, ensure_ascii=False))
    return tokenizer


def marks_of(config: Mapping[str, Any], folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """'end' and 'start' as stored by `store`, and 'ends': all end tokens, of config.json and generation_config.json.

    Chat models end an answer with one token and a document with another (Llama 3, Qwen).
    """
    file = folder / 'generation_config.json'
    further = read_json(file).get('eos_token_id') if file.exists() else None
    listed = [mark for given in (config.get('eos_token_id'), further) for mark in as_list(given)]
    ends = [mark for mark in dict.fromkeys(filter(is_id, listed)) if tokenizer.id_to_token(mark) is not None]
    start = config.get('decoder_start_token_id', config.get('pad_token_id'))
    known = is_id(start) and tokenizer.id_to_token(start) is not None
    return {'end': ends[0] if ends else -1, 'ends': ends, 'start': start if known else -1}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def is_id(value: Any) -> bool:
    return fits(value, int) and 0 <= value < MAX_NUMBER


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


def read_ends(model: Mapping[str, Any], folder: epath.Path, end: int) -> tuple[int, ...]:
    """The ids that end a generated text: `end`, which ends the texts of the task, and those of the weights."""
    description = read_description(model, folder) or {}
    return tuple(dict.fromkeys([end, *description.get('ends', ())]))


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


def head_order(model: Mapping[str, Any], folder: epath.Path, classes: Sequence[str]) -> list[int] | None:
    """The order of `classes` in the trained head of the weights; None if they have none for these classes."""
    return order_of((read_description(model, folder) or {}).get('labels', ()), classes)


def make_load(
    model: Mapping[str, Any], folder: epath.Path, group: str = 'model', path: str = '',
    head: Sequence[int] | None = None,
) -> Callable[[], Variables] | None:
    """Makes a task's `load`; None if the config names no weights.

    Args:
      model, folder: as of `read_shape`.
      group: of parameters.
      path: path of the Transformer within the group ('encoder'); '' is the group itself.
      head: the order of the classes in the trained head, as of `head_order`; None initializes the head.
    """
    description = read_description(model, folder)
    if description is None:
        return None

    def load() -> Variables:
        pretrained = read(description['name'], description['revision'])
        params, heads = pretrained.params, [name for name in pretrained.about['left_out'] if paths.match(name, HEADS)]
        if heads and head is None:
            logging.warning(
                'config.model.weights=%s: its trained head is not loaded (%s)%s; the head of this task is initialized',
                description['name'], ', '.join(heads), labels_text(description.get('labels', ())),
            )  # fmt: skip
        for part in reversed(path.split('/') if path else []):
            params = {part: params}
        params = params if head is None else merged(params, read_head(description, head))
        return Variables({group: params}, {})

    return load


def labels_text(labels: Sequence[str]) -> str:
    return f'; id2label of its config.json has the classes {", ".join(labels)}' if labels else ''


def merged(params: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters with those of `more` added or replaced."""
    return paths.unflatten_paths({**paths.flatten_paths(params), **paths.flatten_paths(more)})


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
    end = json.loads((folder / WEIGHTS_FILE).read_text())['end']
    if end < 0:
        raise UserError(f'config.model.weights={model["weights"]!r}: it names no token that ends a text')
    return renamed(described, tokenizer.id_to_token(end), END)  # pyright: ignore[reportArgumentType]


def published_tokenizer(description: Mapping[str, Any], tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer of `stream_tokenizer` with its end token under the name that it has in the weights."""
    end, name = description.get('end', -1), description.get('end_name', '')
    if end < 0 or not name or tokenizer.id_to_token(end) != END or name == END:
        return tokenizer
    return renamed(json.loads(tokenizer.to_str()), END, name)


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

"""Reads and writes weights of the Hugging Face hub without torch, as our stacked arrays.

    pretrained = read('bert-base-uncased')     # or a folder
    model = Transformer(TransformerSettings(**pretrained.settings))
    logits, _ = model.apply({'params': pretrained.params}, tokens, length)
    write(pretrained, 'folder')

Arrays stay on the host and keep the type of the file; training places them on devices.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from research.errors import UserError
from research.interop.checks import check_picture, check_settings, damaged
from research.interop.families import bert, gpt2, llama, marian, t5, vit
from research.interop.files import Tensors, WeightsSource, locate, read_json, write_tensors
from research.interop.names import Family, Rule
from research.interop.vocabulary import read_tokenizer
from research.nn.transformer_settings import TransformerSettings
from research.ops import paths

MAX_NAMES = 5  # tensors named in a message
SHARD_BYTES = 5 * 10**9  # the hub rejects much larger files
FAMILIES = {
    family.model_type: family
    for family in (
        bert.BERT, bert.ROBERTA, bert.DISTILBERT, gpt2.GPT2, t5.T5, llama.LLAMA, llama.MISTRAL, llama.QWEN2,
        llama.QWEN3, marian.MARIAN, vit.VIT,
    )
}  # fmt: skip
OLD_NAMES = {'LayerNorm.gamma': 'LayerNorm.weight', 'LayerNorm.beta': 'LayerNorm.bias'}  # of the first BERTs


class Pretrained(NamedTuple):
    """A model from a folder.

    settings: fields of `TransformerSettings`. params: nested dict of NumPy arrays. tokenizer: None where the
    folder has none. family: config.json's model_type. about: JSON-able: name, revision (the commit; '' for a
    folder), config (config.json), prefixed (whether names carry the bare model's prefix), left_out (tensors
    of the files that are not used), image (of models of pictures: size, patch, channels, classes; else {}).
    """

    settings: dict[str, Any]
    params: dict[str, Any]
    tokenizer: Tokenizer | None
    family: str
    about: dict[str, Any]


def family_of(model_type: str) -> Family:
    """The family of config.json's model_type.

    Raises:
      UserError: for an unsupported one.
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"config.json's model_type {model_type!r:.60} is not supported; supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]


def read_settings(source: WeightsSource) -> tuple[Family, dict[str, Any], dict[str, Any], dict[str, str]]:
    """Reads family, config.json, settings, and {tensor name in the rules: name in the files}.

    Raises:
      UserError: for an unsupported family or setting in config.json.
    """
    config = read_json(source.folder / 'config.json')
    family = family_of(config.get('model_type', ''))
    names = {}
    for name in Tensors(source.folder).files:
        ours = name.removeprefix(family.prefix)
        for old, new in OLD_NAMES.items():
            ours = ours.replace(old, new)
        names[ours] = name
    with damaged(source.folder / 'config.json'):
        settings = family.settings(config, set(names))
    check_settings(settings, len(names), source.folder / 'config.json')
    return family, config, settings, names


def read(name_or_folder: str, revision: str = '') -> Pretrained:
    """Reads the model of a folder, or of a hub repository at a revision ('': the newest).

    Raises:
      UserError: if it is missing, damaged or unsupported; names tensors that are missing, unexpected, or have another
        shape than config.json specifies.
    """
    source = locate(str(name_or_folder), revision)
    family, config, settings, names = read_settings(source)
    image = read_picture(family, config, names, source.folder)
    params, left_out = read_params(source.folder, family, TransformerSettings(**settings), names, image)
    tokenizer = read_tokenizer(source.folder)
    check_tokenizer(tokenizer, settings['vocabulary'], source.folder)
    prefixed = any(name.startswith(family.prefix) for name in names.values()) if family.prefix else False
    about = {
        'name': source.name, 'revision': source.revision, 'config': config, 'prefixed': prefixed, 'left_out': left_out,
        'image': image,
    }  # fmt: skip
    return Pretrained(settings, params, tokenizer, family.model_type, about)


def read_picture(
    family: Family, config: Mapping[str, Any], names: Iterable[str], folder: Path
) -> dict[str, Any]:
    """The checked picture format of an image model; {} for other models."""
    if not family.image:
        return {}
    with damaged(folder / 'config.json'):
        image = family.image(config, set(names))
    check_picture(image, folder / 'config.json')
    return image


def check_tokenizer(tokenizer: Tokenizer | None, vocabulary: int, where: Any) -> None:
    """Raises UserError if a tokenizer has ids beyond the embedding."""
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0) if tokenizer else 0
    if largest >= vocabulary:
        raise UserError(
            f'{where}: the tokenizer has ids up to {largest}, and the embedding {vocabulary} rows (vocab_size): '
            'they do not belong together'
        )


def param_shapes(family: Family, settings: TransformerSettings, image: Mapping[str, Any]) -> dict[str, Any]:
    """{path: shape} of all parameters of a model, without computing them."""
    return traced_shapes(settings, family.encoder_decoder, tuple(image.items()))


@functools.lru_cache(maxsize=4)  # tracing is slow, and reading and writing both need it
def traced_shapes(settings: TransformerSettings, encoder_decoder: bool, image: tuple) -> dict[str, Any]:
    """{path: shape}; `image` are the items of the picture format, or ()."""
    # Imported here so that a server can read tokenizers and shapes without flax.
    from research.nn.encoder_decoder import EncoderDecoder
    from research.nn.transformer import Transformer
    from research.nn.vision_transformer import VisionTransformer

    one, picture = jnp.zeros((1, 1), jnp.int32), dict(image)
    model, inputs = Transformer(settings), (one,)
    if encoder_decoder:
        model, inputs = EncoderDecoder(settings), (one, None, one)
    if picture:
        model = VisionTransformer(settings, picture['patch'], picture['classes'])
        inputs = (jax.ShapeDtypeStruct((1, picture['size'], picture['size'], picture['channels']), jnp.float32),)
    return paths.flatten_paths(jax.eval_shape(model.init, jax.random.key(0), *inputs)['params'])


def rules_of(family: Family, settings: TransformerSettings, image: Mapping[str, Any]) -> list[Rule]:
    return list(family.rules(settings, image) if family.image else family.rules(settings))


def read_params(
    folder: Path, family: Family, settings: TransformerSettings, names: Mapping[str, str], image: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Reads nested parameters, and the names of tensors left out.

    Raises:
      UserError: names tensors that are missing, unexpected, or have a wrong shape.
    """
    shapes, rules, tensors = param_shapes(family, settings, image), rules_of(family, settings, image), Tensors(folder)
    given = set(shapes) ^ {path for rule in rules for path in rule.paths}
    if given:  # the family's rules do not name every parameter that its settings make
        raise UserError(f'{folder}: a {family.model_type} of such sizes is not supported ({sorted(given)[:MAX_NAMES]})')
    wanted = {name: rule for rule in rules for name in names_of(rule, shapes)}
    others = [name for name in names if name not in wanted]
    left_out = [names[name] for name in others if paths.match(name, family.unused)]
    extra = [names[name] for name in others if names[name] not in left_out]
    report(folder, 'lacks these tensors', [name for name in wanted if name not in names])
    report(folder, 'has tensors that its config.json leaves no place for', extra)
    flat: dict[str, np.ndarray] = {}
    for rule in rules:
        layers = names_of(rule, shapes)
        for layer, name in enumerate(layers):
            parts = split(rule, tensors[names[name]], shapes, names[name], folder, image)
            for path, part in zip(rule.paths, parts, strict=True):
                if '{}' not in rule.name:
                    flat[path] = part
                    continue
                if layer == 0:
                    flat[path] = np.empty((len(layers), *part.shape), part.dtype)
                if flat[path].dtype != part.dtype:
                    raise UserError(f'{folder}: {names[name]} is {part.dtype}, other layers {flat[path].dtype}')
                flat[path][layer] = part
    return paths.unflatten_paths(flat), left_out


def report(folder: Path, problem: str, names: Iterable[str]) -> None:
    """Raises UserError that names tensors, if there are any."""
    names = list(names)
    if names:
        more = f' and {len(names) - MAX_NAMES} more' if len(names) > MAX_NAMES else ''
        raise UserError(f'{folder} {problem}: {", ".join(names[:MAX_NAMES])}{more}')


def names_of(rule: Rule, shapes: Mapping[str, Any]) -> list[str]:
    """Names that a rule covers: one, or one per layer."""
    if '{}' not in rule.name:
        return [rule.name]
    return [rule.name.format(layer) for layer in range(shapes[rule.paths[0]].shape[0])]


def split(
    rule: Rule, tensor: np.ndarray, shapes: Mapping[str, Any], name: str, folder: Path, image: Mapping[str, Any]
) -> list[np.ndarray]:
    """Splits one of their tensors into arrays for the rule's paths, for one layer.

    Raises:
      UserError: if it does not have the shape that the model needs.
    """
    stacked = '{}' in rule.name
    part_shapes = [shapes[path].shape[stacked:] for path in rule.paths]
    sizes = [shape[-1] for shape in part_shapes]
    whole = (*part_shapes[0][:-1], sum(sizes))
    theirs = laid_out(np.broadcast_to(np.int8(0), whole), rule, image).shape
    if tensor.shape != theirs:
        raise UserError(f'{folder}: {name} has shape {list(tensor.shape)}, config.json asks for {list(theirs)}')
    ours = tensor.T if rule.form == 'transposed' else tensor
    if rule.form == 'patches':
        ours = np.transpose(tensor, (2, 3, 1, 0))
    ours = ours.reshape(whole)
    return np.split(ours, np.cumsum(sizes)[:-1], axis=-1) if len(sizes) > 1 else [ours]


def laid_out(ours: np.ndarray, rule: Rule, image: Mapping[str, Any]) -> np.ndarray:
    """Converts one of our arrays, of one layer, to the layout of their tensor."""
    if rule.form == 'transposed':
        return ours.T
    if rule.form == 'row':
        return ours[None]
    if rule.form == 'patches':
        side = image['patch']
        return np.transpose(ours.reshape(side, side, image['channels'], -1), (3, 2, 0, 1))
    return ours


def write(
    pretrained: Pretrained, folder: str | Path, shard_bytes: int = SHARD_BYTES,
    tensors: Mapping[str, np.ndarray] = MappingProxyType({}), config: Mapping[str, Any] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Writes config.json, model.safetensors (or shards and an index) and tokenizer.json, as `read` reads them.

    Tensors that were read are written bit for bit.

    Args:
      pretrained: `about` may be {} for a model trained here, or {'image': ...} for an image model.
      folder: output folder.
      shard_bytes: maximum size of a file.
      tensors: further tensors, such as a classification head.
      config: keys of config.json in place of those that follow from the model.

    Raises:
      UserError: if the parameters do not match the settings.
    """
    family, settings = family_of(pretrained.family), TransformerSettings(**pretrained.settings)
    about, image = pretrained.about, pretrained.about.get('image', {})
    written = to_tensors(family, settings, pretrained.params, about.get('prefixed', True), image)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = about.get('config', {})
    names = {name.removeprefix(family.prefix) for name in written}
    if not base or family.settings(base, names) != dict(pretrained.settings):
        base = {**base, **family.config(settings), 'model_type': family.model_type}
        base.update(family.image_config(image) if family.image_config else {})
        base = {**token_ids(pretrained.family, settings, pretrained.tokenizer), **base}
    (folder / 'config.json').write_text(json.dumps({**base, **config}, indent=2))
    write_tensors(folder, {**written, **tensors}, shard_bytes)
    if pretrained.tokenizer is not None:
        pretrained.tokenizer.save(str(folder / 'tokenizer.json'))


def token_ids(family: str, settings: TransformerSettings, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Ids of padding, begin and end tokens, for which other libraries would use their own defaults.

    For Marian without a tokenizer: 0 is the end and the last id is padding, as in its vocabularies.
    """
    known = tokenizer.token_to_id if tokenizer else lambda name: None
    end = next((known(name) for name in ('</s>', '<|endoftext|>', '[SEP]') if known(name) is not None), None)
    pad = next((known(name) for name in ('<pad>', '[PAD]', '[pad]') if known(name) is not None), None)
    if family == 'marian':
        end, pad = 0 if end is None else end, settings.vocabulary - 1 if pad is None else pad
        return {'eos_token_id': end, 'forced_eos_token_id': end, 'pad_token_id': pad, 'decoder_start_token_id': pad}
    if family == 't5':
        end, pad = 1 if end is None else end, 0 if pad is None else pad
        return {'eos_token_id': end, 'pad_token_id': pad, 'decoder_start_token_id': pad}
    if not settings.causal or tokenizer is None:
        return {}
    begin = known('<s>') if known('<s>') is not None else end
    return {'bos_token_id': begin, 'eos_token_id': end, **({} if pad is None else {'pad_token_id': pad})}


def to_tensors(
    family: Family,
    settings: TransformerSettings,
    params: Mapping[str, Any],
    prefixed: bool = True,
    image: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, np.ndarray]:
    """Converts parameters to named tensors: the inverse of `read_params`.

    Raises:
      UserError: if the parameters do not match the settings.
    """
    shapes, rules = param_shapes(family, settings, image), rules_of(family, settings, image)
    flat = {path: np.asarray(leaf) for path, leaf in paths.flatten_paths(params).items()}
    wrong = [path for path in shapes if path not in flat or flat[path].shape != shapes[path].shape]
    wrong += [path for path in flat if path not in shapes]
    wrong += sorted(set(shapes) ^ {path for rule in rules for path in rule.paths})
    if wrong:
        names = wrong[:MAX_NAMES]
        raise UserError(f'these parameters are not those of a {family.model_type} of these settings: {names}')
    tensors = {}
    for rule in rules:
        prefix = family.prefix if prefixed and not rule.paths[0].startswith('head/') else ''
        for layer, name in enumerate(names_of(rule, shapes)):
            parts = [flat[path][layer] if '{}' in rule.name else flat[path] for path in rule.paths]
            whole = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
            tensors[prefix + name] = laid_out(whole, rule, image)
    return tensors


def shape_of(pretrained: Pretrained, **changes: Any) -> TransformerSettings:
    """Settings of a pretrained model, with some changed (dropout, dtype, scan)."""
    return dataclasses.replace(TransformerSettings(**pretrained.settings), **changes)

"""Writes a trained model as a Hugging Face folder, in the family whose architecture it has.

    write_folder(published, 'folder')     config.json, model.safetensors, tokenizer.json, tokenizer_config.json, ...

A task module describes its model by `publish(config, folder, params) -> Published`.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from research.data.text.corpus import begin_of
from research.errors import UserError
from research.interop.files import locate
from research.interop.heads import head_tensors
from research.interop.names import Family
from research.interop.weights import FAMILIES, Pretrained, param_shapes, rules_of, write
from research.nn.transformer_settings import RATES, TransformerSettings

Form = Literal['decoder', 'masked', 'classifier', 'encoder-decoder', 'image']
ARCHITECTURES = {  # {form: {family: the class of transformers that reads it}}
    'decoder': {
        'gpt2': 'GPT2LMHeadModel', 'llama': 'LlamaForCausalLM', 'mistral': 'MistralForCausalLM',
        'qwen2': 'Qwen2ForCausalLM', 'qwen3': 'Qwen3ForCausalLM',
    },
    'masked': {'bert': 'BertForMaskedLM', 'roberta': 'RobertaForMaskedLM', 'distilbert': 'DistilBertForMaskedLM'},
    'classifier': {
        'bert': 'BertForSequenceClassification', 'roberta': 'RobertaForSequenceClassification',
        'distilbert': 'DistilBertForSequenceClassification',
    },
    'encoder-decoder': {'t5': 'T5ForConditionalGeneration', 'marian': 'MarianMTModel'},
    'image': {'vit': 'ViTForImageClassification'},
}  # fmt: skip
# Settings that do not change what a trained model computes.
WITHOUT_EFFECT = (*RATES, 'dtype', 'attention', 'remat', 'scan', 'initializer', 'initial_scale')
SPECIAL = {  # {name in tokenizer_config.json: tokens that have this meaning}
    'unk_token': ('[UNK]', '<unk>'), 'pad_token': ('[PAD]', '<pad>'), 'mask_token': ('[MASK]', '<mask>'),
    'cls_token': ('[CLS]', '<s>'), 'sep_token': ('[SEP]', '</s>'),
}  # fmt: skip


class Published(NamedTuple):
    """A trained model as a folder will hold it.

    form: what it computes. settings: the shape of its Transformer. params: nested, of a classifier those of
    `TextTransformer`. weights: what `pretrained.store` wrote, or {} from scratch. tokenizer: of texts; target: of
    generated texts if it is another one. length: maximum tokens. ids: eos_token_id, decoder_start_token_id, ... of
    config.json. classes: names, in the order of the outputs. image: size, patch, channels and classes, with 'mean' and
    'std' of the preprocessing. config: further keys of config.json.
    """

    form: Form
    settings: TransformerSettings
    params: Mapping[str, Any]
    weights: Mapping[str, Any] = {}
    tokenizer: Tokenizer | None = None
    target: Tokenizer | None = None
    length: int = 0
    ids: Mapping[str, Any] = {}
    classes: Sequence[str] = ()
    image: Mapping[str, Any] = {}
    config: Mapping[str, Any] = {}


def write_folder(published: Published, folder: str | Path) -> str:
    """Writes a folder that `weights.read` and other libraries read; returns its family.

    Raises:
      UserError: if no supported family has this architecture, or the folder exists and is not empty.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'{folder} exists and is not empty: name another folder')
    family = find_family(published)
    part = folder.with_name(f'{folder.name}.unfinished')
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    write_parts(published, family, part)
    if folder.exists():
        folder.rmdir()
    part.replace(folder)
    return family.model_type


def write_parts(published: Published, family: Family, folder: Path) -> None:
    """Writes the files of a folder."""
    classifier, settings = published.form == 'classifier', body_settings(published, family)
    params = published.params['encoder'] if classifier else published.params
    params = {name: leaf for name, leaf in params.items() if name != 'pooler' or settings.pooler}
    source_config = {
        name: value for name, value in published.weights.get('config', {}).items()
        if name not in ('torch_dtype', 'dtype', '_name_or_path', 'id2label', 'label2id', 'num_labels')
    }  # fmt: skip
    config = {
        'architectures': [ARCHITECTURES[published.form][family.model_type]],
        'torch_dtype': 'float32', **published.ids, **label_config(published.classes), **published.config,
    }  # fmt: skip
    if family.model_type == 'marian' and 'eos_token_id' in published.ids:
        config['forced_eos_token_id'] = published.ids['eos_token_id']
    tokenizer = None if needs_pieces(published) else published.tokenizer
    about = {'config': source_config, 'image': published.image}
    pretrained = Pretrained(dataclasses.asdict(settings), dict(params), tokenizer, family.model_type, about)
    write(pretrained, folder, tensors=head_tensors(family, published.params) if classifier else {}, config=config)
    if needs_pieces(published):
        copy_pieces(published, folder)
    elif published.tokenizer is not None:
        write_json(folder / 'tokenizer_config.json', tokenizer_config(published, family))
    if published.image:
        write_json(folder / 'preprocessor_config.json', preprocessor_config(published.image))


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False), encoding='utf-8')


def label_config(classes: Sequence[str]) -> dict[str, Any]:
    """Keys of config.json that name the classes."""
    if not classes:
        return {}
    numbered = {str(number): str(name) for number, name in enumerate(classes)}
    return {'id2label': numbered, 'label2id': {name: int(number) for number, name in numbered.items()}}


def find_family(published: Published) -> Family:
    """The family that has the architecture of a model; that of its weights if it started from some.

    Raises:
      UserError: names the nearest family and the settings in which the model differs from it.
    """
    names = ARCHITECTURES[published.form]
    given = published.weights.get('family')
    candidates = [FAMILIES[name] for name in names if given in (None, name)]
    wrong = {family.model_type: differences(published, family) for family in candidates}
    fitting = [family for family in candidates if not wrong[family.model_type]]
    if fitting:
        return fitting[0]
    if not candidates:
        raise UserError(f'a {given} is not written as a {published.form}; supported: {", ".join(names)}')
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    raise UserError(
        f'no supported family ({", ".join(names)}) has the architecture of this model. {nearest} is the nearest; other '
        f'values of config.model: {", ".join(wrong[nearest])}. Train such an architecture, or start from weights'
    )


def body_settings(published: Published, family: Family) -> TransformerSettings:
    """The settings without the classification head, to which the pooler of RoBERTa and DistilBERT belongs."""
    if published.form != 'classifier':
        return published.settings
    headed = any(rule.paths[0].startswith('encoder/pooler') for rule in family.head)
    return dataclasses.replace(
        published.settings, head_transform=False, head_bias=False, pooler=published.settings.pooler and not headed
    )


def differences(published: Published, family: Family) -> list[str]:
    """The settings, as 'name=value', in which a model differs from what a family can express."""
    settings, image = body_settings(published, family), published.image
    if family.encoder_decoder is not (published.form == 'encoder-decoder'):
        return ['causal']
    rules = rules_of(family, settings, image)
    config = family.config(settings) | (dict(family.image_config(image)) if family.image_config else {})
    try:
        theirs = TransformerSettings(**family.settings(config, {rule.name for rule in rules}))
    except UserError as error:
        return [str(error)]
    ours, wanted = effective(settings), effective(theirs)
    different = [f'{name}={wanted[name]!r} (here {ours[name]!r})' for name in ours if ours[name] != wanted[name]]
    if different:
        return different
    shapes = param_shapes(family, settings, image)
    return sorted(set(shapes) ^ {path for rule in rules for path in rule.paths})


def effective(settings: TransformerSettings) -> dict[str, Any]:
    """The settings that determine what a model computes.

    0 and '' are replaced by the values that they select, and settings without effect on this model by None.
    """
    values = {name: value for name, value in dataclasses.asdict(settings).items() if name not in WITHOUT_EFFECT}
    values |= {
        'key_value_heads': settings.key_heads, 'head_width': settings.width_of_head,
        'hidden_width': settings.width_of_hidden, 'decoder_layers': settings.decoder.layers,
        'head_activation': settings.head_activation or settings.activation,
    }  # fmt: skip
    unused = [
        *([] if settings.positions == 'rotary' else [name for name in values if name.startswith('rotary_')]),
        *([] if settings.positions == 'relative' else ['relative_buckets', 'relative_distance']),
        *([] if settings.rotary_length else ['rotary_factor', 'rotary_low', 'rotary_high']),
        *([] if settings.head_transform else ['head_activation']),
        *([] if settings.norm == 'layer' else ['norm_bias']),
        'pooler_activation',  # of the head, which is written in its family's own form
    ]
    return {name: None if name in unused else value for name, value in values.items()}


def needs_pieces(published: Published) -> bool:
    """Whether the two sides have different tokenizers, which only SentencePiece files of Marian can express."""
    return published.target is not None


def copy_pieces(published: Published, folder: Path) -> None:
    """Copies the tokenizers of both sides from the folder of the weights.

    Raises:
      UserError: if the model was not started from weights with such files.
    """
    files = []
    if published.weights:
        source = locate(published.weights['name'], published.weights['revision']).folder
        names = ('source.spm', 'target.spm', 'vocab.json', 'tokenizer_config.json')
        files = [source / name for name in names if (source / name).exists()]
    if 'target.spm' not in [file.name for file in files]:
        raise UserError(
            'source and target have different tokenizers, which a folder can hold only as source.spm and target.spm of '
            'the weights that a run starts from'
        )
    for file in files:
        shutil.copyfile(file, folder / file.name)


def tokenizer_config(published: Published, family: Family) -> dict[str, Any]:
    """tokenizer_config.json: the class that reads tokenizer.json, the maximum length, and the special tokens."""
    tokenizer = published.tokenizer
    assert tokenizer is not None
    values: dict[str, Any] = {'tokenizer_class': 'PreTrainedTokenizerFast', 'clean_up_tokenization_spaces': False}
    values |= {'model_max_length': published.length} if published.length else {}
    if not published.settings.types:  # their models refuse token types that they do not read
        values['model_input_names'] = ['input_ids', 'attention_mask']
    framed = published.form in ('masked', 'classifier')
    for key, names in SPECIAL.items():
        known = [name for name in names if tokenizer.token_to_id(name) is not None]
        if known and (framed or key in ('unk_token', 'pad_token')):
            values[key] = known[0]
    ends, begin = published.ids.get('eos_token_id'), begin_of(tokenizer)
    if not framed and ends is not None:
        values['eos_token'] = tokenizer.id_to_token(ends[0] if isinstance(ends, list) else ends)
        values |= {'bos_token': tokenizer.id_to_token(begin[0])} if begin else {}
    return values


def preprocessor_config(image: Mapping[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json of an image model: stretched to a square, scaled to [0, 1], and standardized."""
    return {
        'image_processor_type': 'ViTImageProcessor', 'do_resize': True, 'resample': 2,
        'size': {'height': image['size'], 'width': image['size']}, 'do_rescale': True, 'rescale_factor': 1 / 255,
        'do_normalize': True, 'image_mean': list(image['mean']), 'image_std': list(image['std']),
    }  # fmt: skip


def one_or_all(ends: Sequence[int]) -> int | list[int]:
    """End tokens as config.json holds them: one id, or a list."""
    return ends[0] if len(ends) == 1 else list(ends)


def two_logits(head: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A head of one sigmoid unit as one of two classes: softmax of (0, z) is sigmoid(z)."""
    return {name: np.stack([np.zeros_like(leaf[..., 0]), leaf[..., 0]], axis=-1) for name, leaf in head.items()}

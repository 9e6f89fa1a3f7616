"""GGUF for llama.cpp: language models of the shapes of Llama, Mistral, Qwen2, Qwen3 and GPT-2, in float32.

Tensors and metadata follow llama.cpp's own converter of Hugging Face folders. Its attention rotates neighbouring pairs
for `llama`, so the rows of query and key are reordered; `qwen2` and `qwen3` rotate halves, as here.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from research.errors import UserError
from research.export.folder import Written
from research.export.programs import Source
from research.extras import require
from research.interop.publish import Published, body_settings, find_family
from research.interop.weights import to_tensors
from research.nn.transformer_settings import TransformerSettings

FILE = 'model.gguf'
ARCHITECTURES = {'llama': 'llama', 'mistral': 'llama', 'qwen2': 'qwen2', 'qwen3': 'qwen3', 'gpt2': 'gpt2'}
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
PATTERNS = {  # {the pattern that splits words: its name in llama.cpp}
    '': 'gpt-2',  # the default of ByteLevel
    WORDS + r'\p{N}{1,3}' + REST: 'llama-bpe',
    WORDS + r'\p{N}' + REST: 'qwen2',
}
NORMAL, CONTROL, UNUSED = 1, 3, 5  # types of tokens
PROMISE = (
    'GGUF version 3, which llama.cpp and programs built on it (Ollama, LM Studio) read; version 2 files '
    'are still read after three years. Float32; `llama-quantize model.gguf small.gguf Q8_0` makes smaller files.'
)


def export(source: Source, folder: Path, int8: bool = False) -> Written:
    """Writes model.gguf.

    Raises:
      UserError: for a task, an architecture or a tokenizer that llama.cpp does not have.
    """
    del int8  # `launch.export` refuses it
    published = source.publish()
    write(published, folder / FILE, name=f'{source.config.task.get("name", "")} at step {source.step}')
    return Written(
        runner='', packages=('gguf', 'numpy'), programs={'generate': {'file': FILE}}, main='', inputs={}, outputs={},
        tolerance=0.0, promise=PROMISE,
    )  # fmt: skip


def write(published: Published, file: Path, name: str = '') -> None:
    """Writes a language model as one GGUF file.

    Raises:
      UserError: as `export`.
    """
    if published.form != 'decoder':
        raise UserError(f'--format=gguf holds language models that llama.cpp continues texts with, no {published.form}')
    gguf, family = require('gguf'), find_family(published)
    settings, architecture = body_settings(published, family), ARCHITECTURES[family.model_type]
    check_settings(settings, architecture)
    vocabulary = tokenizer_fields(published.tokenizer, settings.vocabulary)
    writer = gguf.GGUFWriter(str(file), architecture)
    if name:
        writer.add_name(name)
    add_sizes(writer, settings, architecture)
    add_tokenizer(writer, vocabulary, published.ids)
    names = gguf.get_tensor_name_map(architecture_of(gguf, architecture), settings.layers)
    for tensor_name, tensor in tensors_of(to_tensors(family, settings, published.params), settings, architecture):
        new = names.get_name(tensor_name, try_suffixes=('.weight', '.bias'))
        writer.add_tensor(new or tensor_name, np.ascontiguousarray(tensor, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def architecture_of(gguf: Any, name: str) -> Any:
    """The member of `gguf.MODEL_ARCH` with a name."""
    return next(member for member, known in gguf.MODEL_ARCH_NAMES.items() if known == name)


def check_settings(settings: TransformerSettings, architecture: str) -> None:
    """Raises UserError for settings that llama.cpp computes in another way."""
    wanted = 'gelu_tanh' if architecture == 'gpt2' else 'silu'
    problems = [
        (settings.activation != wanted, f'config.model.activation={settings.activation}: {wanted} is needed'),
        (any((settings.window, *settings.windows)), 'config.model.window: attention windows are not written'),
        (
            settings.rotary_length and architecture != 'llama',
            f'config.model.rotary_length: scaled rotary positions of {architecture} are not written',
        ),
        (settings.width_of_head % 2, f'heads of width {settings.width_of_head}: an even width is needed'),
    ]
    for wrong, problem in problems:
        if wrong:
            raise UserError(f'--format=gguf: {problem}')


def add_sizes(writer: Any, settings: TransformerSettings, architecture: str) -> None:
    """Writes the metadata of the architecture."""
    writer.add_context_length(settings.length)
    writer.add_embedding_length(settings.width)
    writer.add_block_count(settings.layers)
    writer.add_feed_forward_length(settings.width_of_hidden)
    writer.add_head_count(settings.heads)
    writer.add_vocab_size(settings.vocabulary)
    writer.add_file_type(0)  # all float32
    if architecture == 'gpt2':
        writer.add_layer_norm_eps(settings.norm_epsilon)
        return
    writer.add_head_count_kv(settings.key_heads)
    writer.add_key_length(settings.width_of_head)
    writer.add_value_length(settings.width_of_head)
    writer.add_rope_dimension_count(settings.width_of_head)
    writer.add_rope_freq_base(settings.rotary_base)
    writer.add_layer_norm_rms_eps(settings.norm_epsilon)


def tensors_of(
    tensors: Mapping[str, np.ndarray], settings: TransformerSettings, architecture: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields tensors of a Hugging Face folder as llama.cpp reads them, with their old names."""
    reordered = {'q_proj': settings.heads, 'k_proj': settings.key_heads} if architecture == 'llama' else {}
    for name, tensor in tensors.items():
        heads = next((count for part, count in reordered.items() if f'.{part}.' in name), 0)
        if heads:
            yield name, interleaved(tensor, heads)
        elif architecture == 'gpt2' and '.h.' in f'.{name}' and tensor.ndim == 2:  # [inputs, outputs] there
            yield name, tensor.T
        else:
            yield name, tensor
    if settings.rotary_length:
        yield 'rope_freqs.weight', rotary_factors(settings)


def interleaved(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the rows of each head from (first half, second half) to neighbouring pairs."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def rotary_factors(settings: TransformerSettings) -> np.ndarray:
    """The divisor of each rotary frequency with the scaling of Llama 3.1."""
    width = settings.width_of_head
    frequency = settings.rotary_base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    periods = settings.rotary_length * frequency / (2 * math.pi)
    share = np.clip((periods - settings.rotary_low) / (settings.rotary_high - settings.rotary_low), 0, 1)
    return (1 / ((1 - share) / settings.rotary_factor + share)).astype(np.float32)


def tokenizer_fields(tokenizer: Tokenizer | None, vocabulary: int) -> dict[str, Any]:
    """Tokens in the order of their ids, their types, merges, and the name of the pattern that splits words.

    Raises:
      UserError: for a tokenizer other than a byte-level BPE with a pattern that llama.cpp knows.
    """
    described = json.loads(tokenizer.to_str()) if tokenizer is not None else {}
    model = described.get('model', {})
    if model.get('type') != 'BPE' or model.get('byte_fallback'):
        kind = model.get('type', 'none')
        raise UserError(
            f"--format=gguf needs a byte-level BPE tokenizer (config.task.tokenizer='bpe'), and this one is {kind}: "
            'llama.cpp has no tokenizer of characters'
        )
    pattern = split_pattern(described.get('pre_tokenizer') or {})
    plain = described.get('normalizer') in (None, {'type': 'NFC'})
    if pattern not in PATTERNS or not plain:
        raise UserError(
            '--format=gguf: llama.cpp would split texts in another way than this tokenizer; it knows '
            f'{", ".join(PATTERNS.values())}'
        )
    tokens, types = [f'[UNUSED{number}]' for number in range(vocabulary)], [UNUSED] * vocabulary
    special = {token['id'] for token in described.get('added_tokens', [])}
    ids = {**model['vocab'], **{token['content']: token['id'] for token in described.get('added_tokens', [])}}
    for text, number in ids.items():
        tokens[number], types[number] = text, CONTROL if number in special else NORMAL
    merges = [merge if isinstance(merge, str) else ' '.join(merge) for merge in model['merges']]
    return {'pre': PATTERNS[pattern], 'tokens': tokens, 'types': types, 'merges': merges}


def split_pattern(pre_tokenizer: Mapping[str, Any]) -> str | None:
    """The pattern that a byte-level tokenizer splits words with, '' for its default; None for another kind."""
    parts = pre_tokenizer.get('pretokenizers', [pre_tokenizer])
    kinds = [part.get('type') for part in parts]
    if kinds == ['ByteLevel'] and parts[0]['use_regex'] and not parts[0]['add_prefix_space']:
        return ''
    if kinds == ['Split', 'ByteLevel'] and not parts[1]['use_regex'] and not parts[1]['add_prefix_space']:
        isolated = parts[0].get('behavior') == 'Isolated' and not parts[0].get('invert')
        return parts[0]['pattern'].get('Regex') if isolated else None
    return None


def add_tokenizer(writer: Any, fields: Mapping[str, Any], ids: Mapping[str, Any]) -> None:
    """Writes the tokenizer and its special tokens."""
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre(fields['pre'])
    writer.add_token_list(fields['tokens'])
    writer.add_token_types(fields['types'])
    writer.add_token_merges(fields['merges'])
    ends: int | Sequence[int] = ids['eos_token_id']
    ends = [ends] if isinstance(ends, int) else list(ends)
    writer.add_eos_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eot_token_id(ends[1])
    writer.add_bos_token_id(ids.get('bos_token_id', ends[0]))
    writer.add_add_bos_token('bos_token_id' in ids)

"""Tokenizers of Hugging Face folders: tokenizer.json, or the files of BERT, GPT-2, T5 and Marian."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from research.errors import UserError
from research.interop.files import read_json
from research.interop.sentence_pieces import from_marian, from_t5


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Reads the tokenizer of a folder, for Marian that of the source; None if it has no supported one.

    Raises:
      UserError: for a damaged file.
    """
    readers = {
        'tokenizer.json': from_json, 'vocab.txt': from_word_pieces, 'merges.txt': from_merges,
        'spiece.model': from_t5, 'source.spm': from_marian,
    }  # fmt: skip
    for file, reader in readers.items():
        if (folder / file).exists():
            try:
                return without_frame(reader(folder))
            except UserError:
                raise
            except Exception as error:  # the library raises bare Exceptions
                raise UserError(f'{folder / file} is damaged: {error}') from None
    return None


def without_frame(tokenizer: Tokenizer) -> Tokenizer:
    """Disables padding and truncation, which a stored tokenizer may have."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def from_json(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / 'tokenizer.json'))


def from_word_pieces(folder: Path) -> Tokenizer:
    """BERT's tokenizer: words and punctuation, each Chinese character alone, then word pieces.

    Wu et al. 2016 (arXiv:1609.08144), section 4.1. tokenizer_config.json may disable lower-casing, removing accents,
    and splitting Chinese characters.
    """
    lines = (folder / 'vocab.txt').read_text(encoding='utf-8').rstrip('\n').split('\n')
    file = folder / 'tokenizer_config.json'
    given = read_json(file) if file.exists() else {}
    return word_pieces({line.rstrip('\r'): number for number, line in enumerate(lines)}, given)


def word_pieces(vocabulary: Mapping[str, int], given: Mapping[str, Any]) -> Tokenizer:
    """BERT's tokenizer of a vocabulary; `given` is the content of tokenizer_config.json.

    Raises:
      UserError: if the vocabulary lacks [UNK], [CLS] or [SEP].
    """
    names = {name: given.get(f'{name}_token', f'[{name.upper()}]') for name in ('unk', 'cls', 'sep', 'pad', 'mask')}
    names = {name: token['content'] if isinstance(token, Mapping) else token for name, token in names.items()}
    for name in ('unk', 'cls', 'sep'):
        if names[name] not in vocabulary:
            raise UserError(f'vocab.txt has no {names[name]!r}: it is not a word piece vocabulary')
    tokenizer = Tokenizer(
        models.WordPiece(dict(vocabulary), unk_token=names['unk'], max_input_chars_per_word=100)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=given.get('tokenize_chinese_chars', True),
        strip_accents=given.get('strip_accents'),
        lowercase=given.get('do_lower_case', True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix='##')
    separator, start = ((names[name], vocabulary[names[name]]) for name in ('sep', 'cls'))
    tokenizer.post_processor = processors.BertProcessing(separator, start)
    tokenizer.add_special_tokens([token for token in names.values() if token in vocabulary])
    return tokenizer


def from_merges(folder: Path) -> Tokenizer:
    """GPT-2's byte-level BPE of vocab.json and merges.txt (Radford et al. 2019, section 2.2)."""
    vocabulary, merges = models.BPE.read_file(str(folder / 'vocab.json'), str(folder / 'merges.txt'))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token in ('<|endoftext|>',) if token in vocabulary])
    return tokenizer

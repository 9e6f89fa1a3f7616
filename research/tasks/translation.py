"""Translation and other text-to-text tasks: an encoder-decoder Transformer over byte-level BPE, with beam search.

A training row packs several pairs; rows of other splits are single pairs {'source', 'target'}. A request is {'source'}.
The end token closes every text and also starts the target. With `config.model.weights` the tokenizers, end and start
tokens are those of the weights (T5, Marian).
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from etils import epath
from tokenizers import Tokenizer

from research.core.task import Decoding, Host, Input, Metric, Task
from research.data.dataset import DataSet, open_dataset
from research.data.text.corpus import load_array
from research.data.text.pair_arrays import PairArrays
from research.data.text.pair_rows import SIDES, Tokenizers, read_pairs, read_rows, train_tokenizers, write_pairs
from research.errors import Count, NonNegative, PositiveInt, Range, Rate, UserError, task_settings
from research.interop import pretrained
from research.ops.corpus_scores import BleuTokenizer, translation_scores

MODELS = 'tokens'  # builder module in research/models/
SCORE_DESCRIPTIONS = {
    'bleu': 'sacreBLEU on detokenised text',
    'bleu_lowercase': 'sacreBLEU on lowercased, detokenised text',
    'chrf': 'chrF2 on detokenised text',
}


class Settings(NamedTuple):
    """Settings of `config.task`. Lengths are in tokens and include end tokens."""

    vocabulary: PositiveInt = 8000  # per tokenizer
    shared: bool = True  # one BPE for both sides, trained on both
    prefix: str = ''  # prepended to every source, such as 'translate English to German: ' for T5
    length: Annotated[int, Range(2)] = 64  # maximum per text; longer training pairs are dropped
    row_length: PositiveInt = 64  # of a packed row, per side
    label_smoothing: Rate = 0.1
    beams: PositiveInt = 5
    length_penalty: NonNegative = 1.0  # exponent of the length penalty; 0: none
    bleu_tokenizer: BleuTokenizer = '13a'
    examples: tuple[str, ...] = ()  # sources translated in the report; (): the first rows of the split
    score_count: Count = 0  # number of pairs translated and scored; 0: all

    def check(self) -> 'Settings':
        """Validates the settings; raises `UserError` for impossible values."""
        if self.row_length < self.length:
            raise UserError(
                f'config.task.row_length={self.row_length} is too short for a pair of config.task.length={self.length}'
            )
        return self


def sizes_of(settings: Settings) -> dict[str, int]:
    """Returns the sizes that the model takes from the data: vocabularies and the maximum length."""
    source = 0 if settings.shared else settings.vocabulary
    return {'vocabulary': settings.vocabulary, 'length': settings.length, 'source_vocabulary': source}


def open_pairs(config: Any) -> DataSet:
    """Opens the data set; all translations of a source stay in one split."""
    return open_dataset(config.data, ('source', 'target'), ignored=('target',))


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizers, or takes those of the weights, and stores all pairs and the packed rows."""
    settings = task_settings(Settings, config)
    tokenizer = pretrained.store(config.model, folder, 'encoder-decoder')
    if tokenizer is not None:
        # Fails if the weights have fewer positions.
        pretrained.read_shape(config.model, folder, **sizes_of(settings))
    data = open_pairs(config)
    if tokenizer is None:
        tokenizers = train_tokenizers(read_pairs(data, 'train'), settings.vocabulary, settings.shared)
    else:
        target = pretrained.read_target(config.model, folder, tokenizer)
        tokenizers = Tokenizers(tokenizer, target, *pretrained.read_marks(config.model, folder))  # pyright: ignore[reportOptionalIterable, reportArgumentType]
    write_pairs(data, tokenizers._replace(prefix=settings.prefix), settings.length, settings.row_length, folder)


def read_arrays(config: Any, settings: Settings, folder: epath.Path) -> PairArrays:
    """Builds the row encoder from the stored tokenizers."""
    source, target = (Tokenizer.from_str((folder / f'{side}.json').read_text()) for side in SIDES)
    marks = pretrained.read_marks(config.model, folder) or ()
    tokenizers = Tokenizers(source, target, *marks)._replace(prefix=settings.prefix)  # pyright: ignore[reportArgumentType]
    return PairArrays(tokenizers, settings.length, settings.row_length)


def make_finalize(settings: Settings) -> Callable:
    """Builds the corpus scores of all translations; packed rows have no reference and are skipped."""

    def finalize(pairs: Iterator[tuple[Mapping[str, Any], Any]]) -> dict[str, Metric]:
        texts = [(raw['source'], raw['target'], decoded['text']) for raw, decoded in pairs if 'target' in raw]
        if not texts:
            return {}
        sources, references, translations = zip(*texts, strict=True)
        scores = translation_scores(translations, references, settings.bleu_tokenizer)
        copied = translation_scores(sources, references, settings.bleu_tokenizer)
        search = f'beam {settings.beams}, length penalty {settings.length_penalty:g}'
        return {
            name: Metric(
                score, copied[name][0], 'higher', f'{SCORE_DESCRIPTIONS[name]}, {search}: {signature}',
                'the source itself',
            )
            for name, (score, signature) in scores.items()
        }

    return finalize


def plan_notes(plan: Mapping[str, Any], settings: Settings) -> list[str]:
    """Describes what was packed, dropped and cut, as sentences."""
    pairs = plan['pairs']['train'] - plan['empty'] - plan['too_long']
    notes = [
        f'packed {pairs:,} training pairs into {plan["rows"]:,} rows of {settings.row_length} tokens a side; '
        f'{plan["padding"]:.1%} of the tokens are padding; batch sizes and methods count packed rows, not pairs'
    ]
    if plan['empty'] or plan['too_long']:
        notes.append(
            f'dropped {plan["too_long"]:,} training pairs longer than {settings.length} tokens and '
            f'{plan["empty"]:,} with an empty side'
        )
    cut = ', '.join(f'{count:,} of {split}' for split, count in plan['cut'].items() if count)
    return notes + ([f'cut to {settings.length} tokens per side: {cut} pairs'] if cut else [])


def host_of(arrays: PairArrays) -> Host:
    """Builds the host part from the row encoder."""
    about = f'a text to translate, at most {arrays.length} tokens including the end token'
    return Host({'source': Input('text', limit=arrays.text_limit(), about=about)}, arrays.encode, arrays.decode)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    return host_of(read_arrays(config, task_settings(Settings, config), folder))


def publish(config: Any, folder: epath.Path, params: Any) -> Any:
    """Describes the trained model for `interop.publish.write_folder`."""
    from research.interop.publish import Published, one_or_all

    settings = task_settings(Settings, config)
    shape = pretrained.read_shape(config.model, folder, **sizes_of(settings))
    tokenizers = read_arrays(config, settings, folder).tokenizers
    ends = pretrained.read_ends(config.model, folder, tokenizers.end)
    ids = {'eos_token_id': one_or_all(ends), 'decoder_start_token_id': tokenizers.start}
    target = None if tokenizers.source.to_str() == tokenizers.target.to_str() else tokenizers.target
    weights = pretrained.read_description(config.model, folder) or {}
    return Published(
        'encoder-decoder', shape, params, weights, tokenizers.source, target, settings.length, ids
    )


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model` gives the shape of the Transformer or names pretrained weights.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families import tokens
    from research.models.tokens import encoder_decoder, generate_target

    settings = task_settings(Settings, config)
    open_pairs(config)  # an unusable data section fails here, before anything compiles
    model = encoder_decoder(config.model, folder, settings.row_length, **sizes_of(settings))
    arrays, plan = read_arrays(config, settings, folder), json.loads((folder / 'plan.json').read_text())
    start, end = arrays.tokenizers.start, arrays.tokenizers.end
    source, counts = functools.cache(functools.partial(read_rows, folder)), load_array(folder / 'counts.npy')
    generate = tokens.write_target(
        generate_target(model, start, pretrained.read_ends(config.model, folder, end), settings.row_length),
        Decoding(settings.length, beams=settings.beams, length_penalty=settings.length_penalty),
        start, settings.length, arrays.tokenizers.target, arrays.tokenizers.source,
    )  # fmt: skip
    return tokens.token_prediction(
        host_of(arrays), source, model, counts,
        token_name='target token',
        smoothing=settings.label_smoothing,
        predict=tokens.predict_text(generate),
        claim=tokens.make_claim_target(start, settings.row_length, settings.row_length),
        generate=generate,
        finalize=make_finalize(settings),
        finalize_count=settings.score_count,
        examples=[{'source': text} for text in settings.examples],
        notes=lambda: plan_notes(plan, settings),
    )  # fmt: skip

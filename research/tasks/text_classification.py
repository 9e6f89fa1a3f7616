"""What a text, or a pair of texts, is: one of several classes, any number of labels, or a number.

A row is {'text', perhaps 'pair', 'label'}; a request is {'text', perhaps 'pair'}.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.core.task import Aux, Input, Metric, Task, Variables
from research.data.cache import encoded_once
from research.data.dataset import DataSet, open_dataset
from research.data.labels import Kind, LabelFacts, collect, make_encode_label, read_labels, write_labels
from research.data.notes import cut_notes
from research.data.text import ngrams
from research.data.text import tokens as tokens_module
from research.data.text.corpus import load_array, save_array
from research.data.text.ngrams import GramSettings
from research.data.text.tokens import Frame, Tokens
from research.data.text.word_segmentation import WordSettings
from research.errors import UserError, choose, task_settings, unpack
from research.interop import pretrained
from research.nn.apply import initialize, run
from research.nn.text_models import NGramBag, TextConvolution, TextLSTM
from research.nn.text_transformer import TextTransformer
from research.ops import targets
from research.ops.regression import spearman
from research.ops.targets import Target

LIMIT = 100_000  # characters of a request


class Settings(NamedTuple):
    """Settings of `config.task`: what is read, how, and what is said of it."""

    labels: Kind = 'single'  # one class, any number of labels ('multi'), or a 'number'
    one_unit: bool = False  # two classes from one sigmoid unit
    pair: bool = False  # a row has a second text
    # How a text becomes tokens; with config.model.weights they are those of the weights.
    tokens: tokens_module.Kind = 'words'
    clean: tuple = WordSettings().clean
    segment: Literal['words', 'space', 'chinese'] = 'words'
    stop_words: Literal['', 'english', 'chinese'] = ''
    stemmer: str = ''
    vocabulary: int = 20_000  # tokens (or n-grams) that are kept, the commonest
    min_count: int = 1  # times that one must occur in the training texts
    length: int = 64  # tokens that the model reads
    cut: Literal['end', 'start', 'refuse'] = 'end'  # which end of a longer text is lost
    padding: Literal['right', 'left'] = 'right'
    label_separator: str = ','  # between the labels of a row, for 'multi'
    label_smoothing: float = 0.0
    threshold: float = 0.5  # of probability, above which a label is given, for 'multi'
    top: int = 0  # also count labels among so many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Returns the settings; raises a `UserError` for impossible values."""
        if min(self.vocabulary, self.min_count) < 1 or self.length < 4 or self.top < 0:
            raise UserError(
                'config.task: vocabulary and min_count must be above zero, length 4 or more and top zero or more, '
                f'got {self.vocabulary}, {self.min_count}, {self.length} and {self.top}'
            )
        if not 0 <= self.label_smoothing < 1 or not 0 < self.threshold < 1:
            raise UserError(
                'config.task: label_smoothing must be in 0 to 1 and threshold between 0 and 1, '
                f'got {self.label_smoothing} and {self.threshold}'
            )
        if self.one_unit and self.labels != 'single':
            raise UserError(f"config.task.one_unit is for labels='single', not {self.labels!r}")
        return self

    @property
    def words(self) -> WordSettings:
        """Those of words."""
        return WordSettings(self.clean, self.segment, self.stop_words, self.stemmer)


class Transformed(NamedTuple):
    """Settings of `config.model` for a Transformer beside those of its shape."""

    pool: Literal['pooler', 'first', 'mean', 'max'] = 'first'
    head_dropout: float = 0.1


class Model(NamedTuple):
    """What the task needs of a model."""

    encode: Callable[[str, str | None], dict[str, np.ndarray]]  # (text, pair or None) -> its arrays
    init: Callable[[Any], Any]  # (key) -> parameters
    scores: Callable[[Any, Any, Any], Any]  # (parameters, batch, context) -> [batch, units]
    read: Callable[[Any], str] | None = None  # (encoded row) -> its tokens, for a person
    load: Callable[[], Variables] | None = None  # pretrained weights
    count: Callable[[Any], int] | None = None  # (raw row) -> its tokens, before any are cut
    room: int = 0  # tokens of a row that the model reads


def gram_settings(config: Any) -> tuple[GramSettings, bool, dict[str, Any]]:
    """Returns the settings of features, whether they weigh as naive Bayes says, and the settings of the module."""
    section = {key: value for key, value in config.model.items() if key != 'name'}
    own = {key: section.pop(key) for key in GramSettings._fields if key in section}
    naive_bayes = section.pop('naive_bayes', False)
    if naive_bayes and section.get('width', 10):
        raise UserError('config.model.naive_bayes is for a linear model: set config.model.width to 0')
    return unpack(GramSettings, own, 'model').check(), naive_bayes, section


def text_of(raw: Any, field: str) -> str:
    """Returns a field of a row as text; a `UserError` where it is missing or empty."""
    text = raw.get(field)
    if not isinstance(text, str):
        raise UserError(f'the request has no {field!r}' if text is None else f'{field!r} is {text!r:.40}, not a text')
    if not text.strip():
        raise UserError(f'{field!r} is empty: there is nothing to classify')
    return text


def open_texts(config: Any, settings: Settings) -> DataSet:
    """Returns the data set, whose rows have a second text where the task reads pairs."""
    return open_dataset(config.data, ('text', 'pair', 'label') if settings.pair else ('text', 'label'))


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores labels and vocabulary of the training split in 'labels.json' and 'vocabulary.json' or its like."""
    settings, name = task_settings(Settings, config), config.model.get('name', '')
    data = open_texts(config, settings)
    facts = collect(data.source('train'), settings.labels, settings.label_separator, data.about)
    rows = list(data.source('train'))
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(facts, folder)
    fields = ('text', 'pair') if settings.pair else ('text',)
    texts = [row[field] for row in rows for field in fields]
    if name == 'transformer' and (tokenizer := pretrained.store(config.model, folder, 'encoder')) is not None:
        tokens_module.pretrained_tokens(tokenizer, str(config.model['weights']))  # refuses what is no encoder
        (folder / 'tokenizer.json').write_text(tokenizer.to_str(), encoding='utf-8')
        return
    if name != 'ngrams':
        kept = settings.vocabulary, settings.min_count
        tokens_module.prepare_tokens(settings.tokens, settings.words, texts, *kept, folder)
        return
    grams, by_ratio, _ = gram_settings(config)
    if settings.tokens == 'bpe':
        raise UserError("config.task.tokens: n-grams are of 'words' or 'characters'")
    pieces = tokens_module.make_pieces(settings.tokens, settings.words)
    if not grams.buckets:
        lists = (joint_pieces(pieces, row['text'], row.get('pair') if settings.pair else None) for row in rows)
        ngrams.prepare_grams(lists, grams, settings.vocabulary, settings.min_count, folder)
    if by_ratio:
        save_array(folder / 'ratios.npy', count_ratios(rows, settings, facts, grams, folder))


def count_ratios(rows: list, settings: Settings, facts: LabelFacts, grams: GramSettings, folder: Any) -> np.ndarray:
    """Returns the log-count ratios of the training rows."""
    if facts.kind == 'number':
        raise UserError("config.model.naive_bayes needs classes, and config.task.labels is 'number'")
    encode, label = make_gram_encode(settings, grams, True, folder), make_encode_label(facts, settings.label_separator)
    features = [encode(row['text'], row.get('pair') if settings.pair else None)['features'] for row in rows]
    labels = np.stack([label(row['label']) for row in rows])
    one_hot = labels if facts.kind == 'multi' else np.eye(len(facts.classes))[labels]
    size = ngrams.read_grams(grams, folder).size
    return ngrams.log_count_ratios(features, one_hot[:, 1:] if settings.one_unit else one_hot, size)


def joint_pieces(pieces: Callable[[str], list[str]], text: str, pair: str | None) -> list[str]:
    """Returns the tokens of one text, or of two with an end between them."""
    return pieces(text) + ([tokens_module.SPECIAL[tokens_module.END], *pieces(pair)] if pair is not None else [])


def make_gram_encode(settings: Settings, grams: GramSettings, once: bool, folder: epath.Path) -> Callable:
    """Returns `encode` for n-grams: 'features', each once if asked."""
    pieces = tokens_module.make_pieces(settings.tokens, settings.words)
    known = ngrams.read_grams(grams, folder)

    def encode(text, pair):
        found = joint_pieces(pieces, text, pair)
        if len(found) > settings.length and settings.cut == 'refuse':
            raise UserError(
                f'the text has {len(found):,} tokens, the model reads {settings.length:,} (config.task.length): '
                "shorten it, or set config.task.cut to 'end'"
            )
        found = found[-settings.length :] if settings.cut == 'start' else found
        return {'features': ngrams.features(known, found, settings.length, once)}

    return encode


def make_token_encode(settings: Settings, tokens: Tokens, framed: bool) -> Callable:
    """Returns `encode` for rows of tokens: 'tokens', 'types' and 'length'."""
    frame = Frame(settings.length, framed, settings.cut, settings.padding)

    def encode(text, pair):
        # A text of nothing but stop words is one unknown word.
        first, second = (None if each is None else tokens.ids(each) or [tokens.unknown] for each in (text, pair))
        return tokens_module.lay(tokens, frame, first, second)

    return encode


def gram_model(config: Any, settings: Settings, target: Target, folder: epath.Path) -> Model:
    """Returns a bag of n-grams."""
    grams, by_ratio, section = gram_settings(config)
    size = ngrams.read_grams(grams, folder).size
    module = unpack(NGramBag, section, 'model', features=size, units=target.units)
    ratios = jnp.asarray(load_array(folder / 'ratios.npy')) if by_ratio else None

    def scores(params, batch, context):
        key = context.fold('dropout')
        return run(module, params, {}, batch['features'], ratios, train=context.train, key=key)[0]

    def init(key):
        return initialize(module, key, jnp.zeros((1, 2), jnp.int32), ratios)[0]

    pieces = tokens_module.make_pieces(settings.tokens, settings.words)

    def count(raw):
        return len(joint_pieces(pieces, raw['text'], raw['pair'] if settings.pair else None))

    encode = make_gram_encode(settings, grams, by_ratio, folder)
    return Model(encode, init, scores, count=count, room=settings.length)


def token_model(config: Any, settings: Settings, target: Target, folder: epath.Path) -> Model:
    """Returns a convolution, an LSTM or a Transformer over tokens."""
    name, load = config.model['name'], None
    section = {key: value for key, value in config.model.items() if key != 'name'}
    if name == 'transformer':
        tokens, module = transformer(section, settings, target, folder)
        load = pretrained.make_load(section, folder, path='encoder')
    else:
        tokens = tokens_module.read_tokens(settings.tokens, settings.words, folder)
        kind = {'convolution': TextConvolution, 'lstm': TextLSTM}[name]
        module = unpack(kind, section, 'model', vocabulary=tokens.size, units=target.units)
    if settings.padding == 'left' and name != 'lstm':
        raise UserError(f"config.task.padding='left' is for config.model.name='lstm', not {name!r}")

    def fields(batch):
        return batch['tokens'], batch['length'], batch['types']

    def scores(params, batch, context):
        return run(module, params, {}, *fields(batch), train=context.train, key=context.fold('dropout'))[0]

    def init(key):
        row = jnp.ones((1, settings.length), jnp.int32)
        return initialize(module, key, row, jnp.full((1,), settings.length), jnp.zeros_like(row))[0]

    def read(row):
        return ' '.join(tokens.read(row['tokens']))

    def count(raw):
        return sum(len(tokens.ids(raw[field])) for field in (('text', 'pair') if settings.pair else ('text',)))

    framed = name == 'transformer'
    room = tokens_module.room_of(tokens, Frame(settings.length, framed), settings.pair)
    return Model(make_token_encode(settings, tokens, framed), init, scores, read, load, count, room)


def transformer(
    section: dict[str, Any], settings: Settings, target: Target, folder: epath.Path
) -> tuple[Tokens, TextTransformer]:
    """Returns tokens and model of an encoder from scratch, or of the one that `config.model.weights` names."""
    own = {key: section[key] for key in Transformed._fields if key in section}
    head = unpack(Transformed, own, 'model')
    shape = {key: value for key, value in section.items() if key not in own}
    if weights := shape.get('weights'):
        file = folder.joinpath('tokenizer.json').read_text(encoding='utf-8')
        tokens = tokens_module.pretrained_tokens(Tokenizer.from_str(file), str(weights))
    else:
        tokens = tokens_module.read_tokens(settings.tokens, settings.words, folder)
    given = {'vocabulary': tokens.size, 'length': settings.length, 'causal': False}
    given |= {'types': 2 * settings.pair, 'pooler': head.pool == 'pooler'}
    found = pretrained.read_shape(shape, folder, **given)
    if found.causal or (head.pool == 'pooler' and not found.pooler):
        what = 'is no encoder' if found.causal else "has no pooler: set config.model.pool to 'first' or 'mean'"
        raise UserError(f'config.model.weights={weights!r} {what}')
    return tokens, TextTransformer(found, target.units, *head)


def make_target(settings: Settings, facts: LabelFacts) -> Target:
    """Returns how labels are learnt and measured."""
    if facts.kind == 'number':
        return targets.regression(facts.mean, facts.deviation)
    smoothing = settings.label_smoothing
    if facts.kind == 'multi':
        return targets.multi(facts.classes, facts.counts, facts.size, smoothing, settings.threshold)
    if settings.one_unit and len(facts.classes) != 2:
        raise UserError(f'config.task.one_unit needs two classes, the training split has {len(facts.classes)}')
    return targets.single(facts.classes, facts.counts, smoothing, settings.top, settings.one_unit)


def make_encode(settings: Settings, facts: LabelFacts, arrays: Callable) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: the arrays of the text, and the label where there is one."""
    encode_label = make_encode_label(facts, settings.label_separator)

    def encode(raw, rng=None):
        del rng  # nothing is augmented
        example = arrays(text_of(raw, 'text'), text_of(raw, 'pair') if settings.pair else None)
        if raw.get('label') is not None:
            example['label'] = encode_label(raw['label'])
        return example

    return encode


def rank_correlation(answers: Any) -> dict[str, Metric]:
    """Returns Spearman's correlation of answers and labels."""
    pairs = [(answer['value'], float(raw['label'])) for raw, answer in answers]
    return {'spearman': Metric(spearman(*zip(*pairs, strict=True)), about='correlation of the ranks')}


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; its model is `config.model.name`.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings = task_settings(Settings, config)
    data = open_texts(config, settings)
    facts = read_labels(folder)
    target = make_target(settings, facts)
    makers = {'ngrams': gram_model, 'convolution': token_model, 'lstm': token_model, 'transformer': token_model}
    model = choose(config.model.get('name', ''), makers, 'config.model.name')(config, settings, target, folder)
    encode = make_encode(settings, facts, model.encode)

    def scores(variables, batch, context):
        return model.scores(variables.params['model'], batch, context)

    def loss(variables, batch, context):
        found, mask = scores(variables, batch, context), batch['mask']
        values = target.values(found, batch['label'])
        logs = target.logs(found, batch['label'], mask)
        return jnp.sum(values * mask), Aux(jnp.sum(mask), logs=logs, outputs={'logits': target.answer(found)['logits']})

    def predict(variables, batch, context):
        return target.answer(scores(variables, batch, context._replace(train=False)))

    def metric_sums(variables, batch, context):
        found = scores(variables, batch, context._replace(train=False))
        return target.sums(found, batch['label'], batch['mask'])

    def notes():
        return cut_notes(source('train'), model.count, model.room, 'tokens')

    fields = {'text': Input('text', limit=LIMIT, about=facts.about)}
    if settings.pair:
        fields['pair'] = Input('text', limit=LIMIT, about='the second text')
    source, encode = encoded_once(data.source, encode)
    return Task(
        inputs=fields,
        source=source,
        encode=encode,
        init=lambda key: Variables({'model': model.init(key)}, {}),
        losses={'model': loss},
        predict=predict,
        metric_sums=metric_sums,
        metrics=lambda sums: {name: Metric(*each) for name, each in target.metrics(sums).items()},
        decode=target.decode,
        load=model.load,
        notes=notes,
        finalize=rank_correlation if facts.kind == 'number' else None,
        describe=functools.partial(describe, model.read, facts) if model.read else None,
    )


def describe(read: Callable[[Any], str], facts: LabelFacts, row: Any) -> dict[str, str]:
    """Returns an encoded row as a person reads it: the tokens that the model sees, and the label."""
    fields = {'tokens': read(row)}
    if 'label' in row:
        label = np.asarray(row['label'])
        names = [facts.classes[k] for k in (np.flatnonzero(label) if label.ndim else [label])] if facts.classes else []
        fields['label'] = ', '.join(names) if facts.classes else f'{float(label):g}'
    return fields

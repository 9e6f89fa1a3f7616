"""Speech recognition: the text of an utterance, from its log-mel spectrogram or from stored features, by CTC.

A row is {'audio', 'rate', 'text'} or {'features', 'text'}. A request has no text; its audio is the bytes of a WAV or
FLAC file, or samples. An answer has 'text', by beam search with a language model of the training transcripts, and
'greedy', by the most probable letter of each frame alone.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Host, Input, Metric, Task
from research.data.audio import sounds
from research.data.audio.utterances import (
    Front,
    Plan,
    bucket_sizes,
    lengths_of,
    make_buckets,
    make_encode,
    survey,
    utterances,
)
from research.data.dataset import DataSet, open_dataset
from research.errors import UserError, task_settings
from research.ops.audio import Mel
from research.ops.prefix_search import Search, greedy, prefix_search, text_of
from research.ops.sound_augmentation import UtteranceMasks
from research.ops.speech_features import SpeechFeatures, speech_features
from research.ops.transcripts import Case, corpus_errors, normalize, signature
from research.ops.word_model import count_words

MODELS = 'speech'  # builder module in research/models/
SUBSAMPLING = 4  # of every model in research/models/speech.py
NAMED = 3  # dropped utterances that are named


class Settings(NamedTuple):
    """Settings of `config.task`. Times are in seconds unless stated otherwise."""

    features: int = 0  # values per frame of stored features; 0: sounds
    sample_rate: int = 16000  # Hz; sounds of another rate are resampled
    seconds: float = 16.0  # longest utterance; longer training utterances are dropped
    buckets: int = 4  # number of lengths to which training utterances are padded
    window: float = 25.0  # length of a frame, milliseconds
    hop: float = 10.0  # step between frames, milliseconds; also of stored features
    mels: int = 40  # mel bands
    fmin: float = 0.0  # Hz, lower edge of the first band
    fmax: float = 0.0  # Hz, upper edge of the last band; 0: half of sample_rate
    power_floor: float = 1e-10  # minimum power in a band, for samples in [-1, 1]
    deltas: int = 0  # 1: add the slope of each band over time; 2: and the slope of that
    speeds: tuple[float, ...] = (1.0,)  # training: speeds of an utterance, one drawn each time
    time_masks: int = 0  # SpecAugment: number of time masks,
    time_share: float = 0.05  # maximum share of the utterance in each,
    band_masks: int = 0  # number of band masks,
    band_mask: int = 0  # maximum bands of each
    case: Case = 'lower'  # of transcripts
    punctuation: bool = False  # keep it in transcripts
    unfit: str = 'drop'  # 'stop': a training transcript that does not fit its frames stops the run
    beams: int = 16  # of the prefix beam search
    lm_order: int = 3  # words of an n-gram of the language model
    lm_weight: float = 0.5  # exponent of its probability; 0: none
    word_bonus: float = 1.0  # added to the score of a text for each word
    score_count: int = 0  # number of utterances answered and scored; 0: all

    def check(self) -> 'Settings':
        """Validates the settings; raises `UserError` for impossible values."""
        low, high = sounds.RATE_LIMITS
        if not low <= self.sample_rate <= high or not 0 < self.seconds <= sounds.MAX_SECONDS or self.hop <= 0:
            raise UserError(
                f'config.task: sample_rate must be {low:,} to {high:,}, seconds above 0 and at most '
                f'{sounds.MAX_SECONDS}, and hop above 0; got {self.sample_rate:,}, {self.seconds:g} and {self.hop:g}'
            )
        if not self.features:
            self.mel.check()
        if not self.speeds or min(self.speeds) < 0.5 or max(self.speeds) > 2:
            raise UserError(f'config.task.speeds must be from 0.5 to 2, such as (0.9, 1.0, 1.1), got {self.speeds}')
        whole = self.features, self.time_masks, self.band_masks, self.band_mask, self.score_count, self.lm_order - 1
        if min(whole) < 0 or not 0 <= self.time_share < 1 or self.buckets < 1 or not 0 <= self.deltas <= 2:
            raise UserError(
                'config.task: features, masks and score_count must be zero or more, lm_order and buckets above zero, '
                f'time_share from 0 to below 1, deltas 0, 1 or 2; got {self!r}'
            )
        if self.unfit not in ('drop', 'stop'):
            raise UserError(f"config.task.unfit must be 'drop' or 'stop', got {self.unfit!r}")
        self.search.check()
        return self

    @property
    def mel(self) -> Mel:
        """Settings of the mel filter bank."""
        sizes = self.sample_rate, self.window, self.hop, self.mels
        return Mel(*sizes, self.fmin, self.fmax, power_floor=self.power_floor)

    @property
    def search(self) -> Search:
        """Settings of the beam search."""
        return Search(self.beams, self.lm_weight, self.word_bonus)

    def front(self, alphabet: str = '') -> Front:
        """How rows become the input of the model."""
        form = functools.partial(normalize, case=self.case, punctuation=self.punctuation)
        return Front(self.mel, self.features, round(self.seconds * 1000 / self.hop), alphabet, form, self.speeds)


def shortened(frames: int) -> int:
    """Frames of the model's output for frames of its input."""
    return -(-frames // SUBSAMPLING)


def open_utterances(config: Any, settings: Settings) -> DataSet:
    """Opens the data set; splits are cut by the content of the recordings."""
    return open_dataset(config.data, ('features' if settings.features else 'audio', 'text'), ignored=('text',))


def prepare(config: Any, folder: epath.Path) -> None:
    """Chooses the training utterances, and stores their lengths, transcripts and alphabet."""
    settings = task_settings(Settings, config)
    data, front = open_utterances(config, settings), settings.front()
    rows = data.source('train')
    plan = survey(rows, utterances(data.source, front, range(len(rows)))('train'), front, shortened)
    if plan.unfit and settings.unfit == 'stop':
        raise UserError(
            f'{len(plan.unfit):,} transcripts need more frames than their sounds have, the first: {plan.unfit[0]}; '
            "mend them, or set config.task.unfit='drop'"
        )
    if not plan.kept:
        raise UserError('no training utterance can be learned: all are empty, too long or too short for their text')
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'plan.json').write_text(json.dumps(plan._asdict(), ensure_ascii=False))


def read_plan(folder: epath.Path) -> Plan:
    """Reads what `prepare` stored."""
    return Plan(**json.loads((folder / 'plan.json').read_text()))


def alphabet_of(plan: Plan) -> str:
    """The letters of the training transcripts and the space, sorted."""
    return ''.join(sorted({' ', *(letter for text in plan.texts for letter in text)}))


def make_decode(settings: Settings, plan: Plan) -> Callable[[Mapping[str, np.ndarray]], dict[str, Any]]:
    """Builds `decode`: the text of the beam search, and that of the most probable letters."""
    labels = ('', *alphabet_of(plan))
    words = count_words(plan.texts, settings.lm_order) if settings.lm_weight else None

    def decode(outputs):
        frames = np.asarray(outputs['log_probabilities'], np.float64)[: int(outputs['frames'])]
        text, score = prefix_search(frames, labels, settings.search, words and words.score)[0]
        plain = text_of(tuple(greedy(frames)), labels)
        return {'text': ' '.join(text.split()), 'greedy': ' '.join(plain.split()), 'score': round(score, 3)}

    return decode


def make_finalize(settings: Settings, plan: Plan) -> Callable:
    """Builds the error rates of a split, with and without the language model."""
    commonest = max(sorted(set(plan.texts)), key=plan.texts.count)
    form = settings.front().normalize
    how = signature(settings.case, settings.punctuation)
    search = f'beam {settings.beams}' + (
        f', {settings.lm_order}-gram of the training words, weight {settings.lm_weight:g}, bonus '
        f'{settings.word_bonus:g}' if settings.lm_weight else ', no language model'
    )  # fmt: skip

    def finalize(pairs: Iterator[tuple[Mapping[str, Any], Any]]) -> dict[str, Metric]:
        texts = [(form(raw['text']), answer['text'], answer['greedy']) for raw, answer in pairs]
        known = set(plan.texts)
        found = corpus_errors((wanted, text) for wanted, text, _ in texts)
        plain = corpus_errors((wanted, text) for wanted, _, text in texts)
        new = [(wanted, text) for wanted, text, _ in texts if wanted not in known]
        always = corpus_errors((wanted, commonest) for wanted, *_ in texts)
        about = f'percent of {found.words:,} words, {search}: {how}'
        constant = f'always {commonest!r}; the empty answer: 100'
        metrics = {
            'wer': Metric(found.wer, min(100.0, always.wer), 'lower', about, constant),
            'wer_greedy': Metric(plain.wer, min(100.0, always.wer), 'lower', f'no language model: {how}', constant),
            'cer': Metric(found.cer, min(100.0, always.cer), 'lower', f'percent of letters and spaces, {search}: {how}',
                          constant),
            'cer_greedy': Metric(plain.cer, min(100.0, always.cer), 'lower', f'no language model: {how}', constant),
            'sentence_errors': Metric(found.sentence_errors, always.sentence_errors, 'lower',
                                      f'percent of {found.sentences:,} texts with an error, {search}: {how}', constant),
        }  # fmt: skip
        if 0 < len(new) < len(texts):
            about = f'of the {len(new):,} texts that are not in the training split, {search}: {how}'
            metrics['wer_new'] = Metric(corpus_errors(new).wer, None, 'lower', about)
        return metrics

    return finalize


def notes_of(plan: Plan) -> list[str]:
    """Names the training utterances that were dropped."""
    reasons = {
        'transcript needs more frames than there are': plan.unfit,
        'longer than config.task.seconds': plan.too_long,
        'transcript has no letter': plan.empty,
    }
    return [
        f'dropped {len(names):,} training utterances, {reason}: {", ".join(names[:NAMED])}'
        + (', ...' if len(names) > NAMED else '')
        for reason, names in reasons.items()
        if names
    ]


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings, plan = task_settings(Settings, config), read_plan(folder)
    front = settings.front(alphabet_of(plan))
    sizes = bucket_sizes(front.slower(plan.lengths), settings.buckets, int(front.room))
    data = functools.cache(lambda: utterances(open_utterances(config, settings).source, front, plan.kept))
    lengths = lengths_of(lambda split: data()(split), front, plan.lengths)
    about = f'an utterance of at most {settings.seconds:g} s'
    if settings.features:
        inputs = {'features': Input('number', (0, settings.features), about=f'{about}, a frame each {settings.hop:g} ms')}
    else:
        about += f' at {settings.sample_rate:,} Hz; the bytes of a file, or samples with their rate'
        inputs = {
            'audio': Input('audio', (0,), round(settings.seconds * settings.sample_rate), about),
            'rate': Input('number', about='samples per second; only for audio given as samples'),
        }
    buckets = make_buckets(front, sizes, shortened, lengths)
    return Host(inputs, make_encode(front, shortened), make_decode(settings, plan), buckets=buckets)


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model.name` selects the model, `config.data.name` the data set.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.transcription import transcription
    from research.models import speech

    settings, plan = task_settings(Settings, config), read_plan(folder)
    front = settings.front(alphabet_of(plan))
    masks = UtteranceMasks(settings.time_masks, settings.time_share, settings.band_masks, settings.band_mask)
    features = SpeechFeatures(None if settings.features else settings.mel, settings.deltas, masks)
    size = (settings.features or settings.mels) * (1 + settings.deltas)
    source = utterances(open_utterances(config, settings).source, front, plan.kept)
    return transcription(
        host(config, folder), source, speech.speech_model(config.model, 1 + len(front.alphabet), size, int(front.room)),
        lambda batch, context: {**batch, 'features': speech_features(features, batch, context.train)},
        speech.shortened,
        finalize=make_finalize(settings, plan),
        finalize_count=settings.score_count,
        notes=lambda: notes_of(plan),
    )  # fmt: skip

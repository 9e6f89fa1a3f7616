"""Speech recognition: the text of an utterance, from its log-mel spectrogram or from stored features, by CTC.

A row is {'audio', 'rate', 'text'} or {'features', 'text'}. A request has no text; its audio is the bytes of a WAV or
FLAC file, or samples. An answer has 'text', by beam search with a language model of the training transcripts, and
'greedy', by the most probable letter of each frame alone.
"""

import functools
from typing import Annotated, Any, Literal, NamedTuple

from etils import epath

from research.core.task import Host, Input, Task
from research.data.audio import sounds
from research.data.audio.utterances import (
    Front,
    bucket_sizes,
    lengths_of,
    make_buckets,
    make_encode,
    read_plan,
    survey,
    utterances,
    write_plan,
)
from research.data.dataset import DataSet, open_dataset
from research.errors import (
    Count,
    Finite,
    NonEmpty,
    NonNegative,
    Positive,
    PositiveInt,
    Range,
    Rate,
    UserError,
    task_settings,
)
from research.ops.audio import Mel
from research.ops.ctc import shortened
from research.ops.prefix_search import Search, transcriber
from research.ops.sound_augmentation import UtteranceMasks
from research.ops.speech_features import SpeechFeatures, speech_features
from research.ops.transcripts import Case, normalize, signature
from research.ops.word_model import count_words

MODELS = 'speech'  # builder module in research/models/
Speed = Annotated[float, Range(0.5, 2)]


class Settings(NamedTuple):
    """Settings of `config.task`. Times are in seconds unless stated otherwise."""

    features: Count = 0  # values per frame of stored features; 0: sounds
    sample_rate: Annotated[int, Range(*sounds.RATE_LIMITS)] = 16000  # Hz; sounds of another rate are resampled
    seconds: Annotated[float, Range(0, sounds.MAX_SECONDS, above=True)] = 16.0  # longest utterance; others are dropped
    buckets: PositiveInt = 4  # number of lengths to which training utterances are padded
    window: Positive = 25.0  # length of a frame, milliseconds
    hop: Positive = 10.0  # step between frames, milliseconds; also of stored features
    mels: PositiveInt = 40  # mel bands
    fmin: NonNegative = 0.0  # Hz, lower edge of the first band
    fmax: NonNegative = 0.0  # Hz, upper edge of the last band; 0: half of sample_rate
    power_floor: Positive = 1e-10  # minimum power in a band, for samples in [-1, 1]
    deltas: Annotated[int, Range(0, 2)] = 0  # 1: add the slope of each band over time; 2: and the slope of that
    speeds: Annotated[tuple[Speed, ...], NonEmpty()] = (1.0,)  # training: speeds of an utterance, one drawn each time
    time_masks: Count = 0  # SpecAugment: number of time masks,
    time_share: Rate = 0.05  # maximum share of the utterance in each,
    band_masks: Count = 0  # number of band masks,
    band_mask: Count = 0  # maximum bands of each
    case: Case = 'lower'  # of transcripts
    punctuation: bool = False  # keep it in transcripts
    unfit: Literal['drop', 'stop'] = 'drop'  # what to do with training transcripts that do not fit their frames
    beams: PositiveInt = 16  # of the prefix beam search
    lm_order: PositiveInt = 3  # words of an n-gram of the language model
    lm_weight: NonNegative = 0.5  # exponent of its probability; 0: none
    word_bonus: Finite = 1.0  # added to the score of a text for each word, with a language model
    score_count: Count = 0  # number of utterances answered and scored; 0: all

    def check(self) -> 'Settings':
        """Validates the settings; raises `UserError` for impossible values."""
        if not self.features:
            self.mel.check()
        bands = self.features or self.mels
        if self.band_mask > bands:
            raise UserError(f'config.task.band_mask={self.band_mask} is more than the {bands} bands')
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

    @property
    def about(self) -> str:
        """Describes the search, for the signature of metrics."""
        if not self.lm_weight:
            return f'beam {self.beams}, no language model'
        words = f'{self.lm_order}-gram of the training words'
        return f'beam {self.beams}, {words}, weight {self.lm_weight:g}, bonus {self.word_bonus:g}'

    def front(self, alphabet: str = '') -> Front:
        """How rows become the input of the model."""
        form = functools.partial(normalize, case=self.case, punctuation=self.punctuation)
        return Front(self.mel, self.features, round(self.seconds * 1000 / self.hop), alphabet, form, self.speeds)


def open_utterances(config: Any, settings: Settings) -> DataSet:
    """Opens the data set; splits are cut by the content of the recordings."""
    return open_dataset(config.data, ('features' if settings.features else 'audio', 'text'), ignored=('text',))


def prepare(config: Any, folder: epath.Path) -> None:
    """Chooses the training utterances, and stores their lengths and transcripts."""
    settings = task_settings(Settings, config)
    rows = open_utterances(config, settings).source('train')
    write_plan(survey(rows, settings.front(), shortened, settings.unfit == 'drop'), folder)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    settings, plan = task_settings(Settings, config), read_plan(folder)
    front = settings.front(plan.alphabet)
    sizes = bucket_sizes(front.slower(plan.lengths), settings.buckets, int(front.room))
    data = functools.cache(lambda: utterances(open_utterances(config, settings).source, front, plan.kept))
    lengths = lengths_of(lambda split: data()(split), front, plan.lengths)
    about = f'an utterance of at most {settings.seconds:g} s'
    if settings.features:
        about += f' in frames of {settings.hop:g} ms'
        inputs = {'features': Input('array', (0, settings.features), about=about)}
    else:
        about += f' at {settings.sample_rate:,} Hz; the bytes of a file, or samples with their rate'
        inputs = {
            'audio': Input('audio', (0,), round(settings.seconds * settings.sample_rate), about),
            'rate': Input('number', about='samples per second; only for audio given as samples'),
        }
    buckets = make_buckets(front, sizes, shortened, lengths)
    words = count_words(plan.texts, settings.lm_order).score if settings.lm_weight else None
    decode = transcriber(('', *front.alphabet), settings.search, words)
    return Host(inputs, make_encode(front, shortened), decode, buckets=buckets)


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model.name` selects the model, `config.data.name` the data set.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.transcription import error_rates, transcription
    from research.models.speech import speech_model

    settings, plan = task_settings(Settings, config), read_plan(folder)
    front = settings.front(plan.alphabet)
    masks = UtteranceMasks(settings.time_masks, settings.time_share, settings.band_masks, settings.band_mask)
    features = SpeechFeatures(None if settings.features else settings.mel, settings.deltas, masks)
    size = (settings.features or settings.mels) * (1 + settings.deltas)
    source = utterances(open_utterances(config, settings).source, front, plan.kept)
    form = signature(settings.case, settings.punctuation)
    return transcription(
        host(config, folder), source, speech_model(config.model, 1 + len(front.alphabet), size, int(front.room)),
        lambda batch, context: {**batch, 'features': speech_features(features, batch, context.train)},
        finalize=error_rates(plan.texts, front.normalize, form, settings.about),
        finalize_count=settings.score_count,
        notes=plan.notes,
    )  # fmt: skip

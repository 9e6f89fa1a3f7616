"""Utterances on the host: encoding of sounds or stored features with their transcripts, lengths, and length buckets."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from research.data.audio import sounds
from research.data.buckets import Buckets
from research.data.readers.rows import Rows, select
from research.errors import UserError
from research.ops.audio import Mel

DRAWS = 2**32  # exclusive upper bound of the random number that seeds a row's augmentation
FEWEST_FRAMES = 4
NAMED = 3  # dropped utterances that a note names


class Front(NamedTuple):
    """How a row becomes the input of a model: a sound, or stored features, and its letters."""

    mel: Mel
    values: int  # per stored frame; 0: sounds
    longest: int  # frames
    alphabet: str  # letter i has label i + 1; 0 is the blank
    normalize: Callable[[str], str]
    speeds: tuple[float, ...] = (1.0,)  # of training utterances

    @property
    def slowest(self) -> float:
        """The lowest speed in training."""
        return min(1.0, *self.speeds)

    @property
    def room(self) -> int:
        """Frames of the longest utterance at the lowest speed."""
        return self.slower(self.longest)

    def slower(self, frames: Any) -> Any:
        """The maximum number of frames of utterances at any speed of training, from that at their own speed."""
        return np.ceil(np.asarray(frames) / self.slowest + (self.slowest < 1)).astype(np.int64)

    def labels(self, text: str) -> Int[np.ndarray, 'count']:
        """The labels of a normalized text; letters that no training text has are left out."""
        return np.array([self.alphabet.index(c) + 1 for c in text if c in self.alphabet], np.int32)

    def frames_of(self, content: np.ndarray) -> int:
        """Frames of a prepared sound or of stored features."""
        return len(content) if self.values else self.mel.frames(len(content))

    def content(self, row: Mapping[str, Any], speed: float = 1.0) -> Float[np.ndarray, 'length ...']:
        """The samples [samples] or features [frames, values] of a row, at a speed.

        Sounds are resampled, which changes their pitch as well; features are interpolated linearly in time.

        Raises:
          UserError: if there is no such input, or it is too short or not finite.
        """
        if self.values:
            features = checked_features(row, self.values)
            return features if speed == 1 else stretched(features, speed)
        sound = sounds.prepared(row, self.mel.rate, self.mel.window_samples)
        return sound if speed == 1 else sounds.resample(sound, round(self.mel.rate * speed), self.mel.rate)

    def check_length(self, frames: int) -> None:
        """Raises UserError if an utterance is too long for the model."""
        if frames > self.longest:
            raise UserError(
                f'the utterance has {frames:,} frames, {frames * self.mel.hop / 1000:.1f} s: at most '
                f'{self.longest * self.mel.hop / 1000:g} s are read (config.task.seconds); cut it at a pause'
            )


def checked_features(row: Mapping[str, Any], values: int) -> Float[np.ndarray, 'frames values']:
    """The stored features of a row as float32; raises UserError for anything else."""
    if row.get('features') is None:
        raise UserError("the request has no 'features': this model reads stored features, not sounds")
    try:
        features = np.asarray(row['features'], np.float32)
    except (TypeError, ValueError):
        raise UserError(f"'features' must be numbers [frames, {values}]") from None
    if features.ndim != 2 or features.shape[1] != values or len(features) < FEWEST_FRAMES:
        raise UserError(
            f"'features' must be numbers [frames, {values}] with at least {FEWEST_FRAMES} frames, got "
            f'{list(features.shape)}'
        )
    if not np.isfinite(features).all():
        raise UserError("'features' contain values that are not finite")
    return features


def stretched(features: Float[np.ndarray, 'before values'], speed: float) -> Float[np.ndarray, 'after values']:
    """Interpolates features linearly in time: a speed above 1 makes them shorter."""
    count = max(FEWEST_FRAMES, round(len(features) / speed))
    position = np.linspace(0, len(features) - 1, count)
    before = np.minimum(position.astype(np.int64), len(features) - 2)
    share = (position - before)[:, None].astype(np.float32)
    return features[before] * (1 - share) + features[before + 1] * share


def make_encode(front: Front, shortened: Callable[[int], int]) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `encode`: 'audio' or 'features', 'frames', 'draw', and 'labels' and 'count' if there is a text."""

    def encode(raw, rng=None):
        speed = float(rng.choice(front.speeds)) if rng is not None and len(front.speeds) > 1 else 1.0
        content = front.content(raw, speed)
        frames, labels = front.frames_of(content), None
        front.check_length(round(frames * speed))
        if raw.get('text') is not None:
            labels = front.labels(front.normalize(raw['text']))
            if speed > 1 and needed(labels) > shortened(frames):  # too fast for its transcript
                content = front.content(raw)
                frames = front.frames_of(content)
        example: dict[str, Any] = {
            'features' if front.values else 'audio': content,
            'frames': np.int32(frames),
            'draw': np.uint32(0 if rng is None else rng.integers(DRAWS)),
        }
        if labels is not None:
            room = shortened(frames)  # more labels do not fit: 'count' shows that they were cut
            example |= {'labels': np.pad(labels, (0, room))[:room], 'count': np.int32(len(labels))}
        return example

    return encode


def needed(labels: Int[np.ndarray, 'count']) -> int:
    """The fewest frames that a text fits into: its labels, and a blank between equal ones."""
    return len(labels) + int(np.sum(labels[1:] == labels[:-1]))


def make_buckets(
    front: Front, sizes: Sequence[int], shortened: Callable[[int], int], lengths: Callable[[str], np.ndarray]
) -> Buckets:
    """Buckets by length in frames.

    Args:
      front: how rows are encoded.
      sizes: ascending; the last holds the longest utterance at the lowest speed.
      shortened: frames of the model's output, to which labels are padded.
      lengths: (split) -> frames of each row, of 'train' at the lowest speed.
    """
    bounds = np.asarray(sizes)

    def pad(example: Mapping[str, np.ndarray], bucket: int) -> dict[str, np.ndarray]:
        frames = int(bounds[bucket])
        size = {'features': frames, 'audio': frames * front.mel.hop_samples - 1, 'labels': shortened(frames)}

        def padded(name: str, value: np.ndarray) -> np.ndarray:
            if name not in size:
                return value
            return np.pad(value, [(0, size[name] - len(value))] + [(0, 0)] * (np.ndim(value) - 1))

        return {name: padded(name, value) for name, value in example.items()}

    return Buckets(
        of=lambda split: np.searchsorted(bounds, lengths(split)),
        bucket=lambda example: int(np.searchsorted(bounds, int(example['frames']))),
        pad=pad,
    )


def bucket_sizes(lengths: Int[np.ndarray, 'rows'], count: int, longest: int) -> list[int]:
    """Sizes of `count` buckets with equal numbers of rows, and one for the longest utterance that is allowed."""
    shares = (np.arange(count) + 1) / count
    quantiles = np.quantile(lengths, shares, method='higher').astype(int).tolist()
    return sorted({*quantiles, longest})


class Plan(NamedTuple):
    """What a task's `prepare` finds out about the training utterances."""

    kept: list[int]  # rows to train on
    lengths: list[int]  # frames of each of them
    texts: list[str]  # their normalized transcripts
    unfit: list[str]  # names of those whose transcript needs more frames than they have
    too_long: list[str]
    empty: list[str]  # without a letter

    @property
    def alphabet(self) -> str:
        """The letters of the training transcripts and the space, sorted."""
        return ''.join(sorted({' '}.union(*map(set, self.texts))))

    def notes(self) -> list[str]:
        """Names the training utterances that were dropped."""
        reasons = {
            'their transcripts need more frames than they have': self.unfit,
            'they are longer than config.task.seconds': self.too_long,
            'their transcripts have no letter': self.empty,
        }
        return [
            f'dropped {len(names):,} training utterances because {reason}: {", ".join(names[:NAMED])}'
            + (', ...' if len(names) > NAMED else '')
            for reason, names in reasons.items()
            if names
        ]


def write_plan(plan: Plan, folder: epath.Path) -> None:
    """Stores a plan in a run's prepared folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'plan.json').write_text(json.dumps(plan._asdict(), ensure_ascii=False))


def read_plan(folder: epath.Path) -> Plan:
    """Reads what `write_plan` stored."""
    return Plan(**json.loads((folder / 'plan.json').read_text()))


def survey(rows: Rows, front: Front, shortened: Callable[[int], int], drop: bool) -> Plan:
    """Reads all training utterances and chooses those that can be learned; `front.alphabet` is not used.

    Args:
      rows: of the training split.
      front: how rows are encoded.
      shortened: frames of the model's output.
      drop: leave out utterances whose transcript does not fit their frames; otherwise the first is an error.

    Raises:
      UserError: if a transcript does not fit and `drop` is False, or no utterance is left.
    """
    plan = Plan([], [], [], [], [], [])
    for number, row in enumerate(prepared_once(rows, front)):
        frames, text, name = front.frames_of(front.content(row)), front.normalize(row['text']), rows.where(number)
        labels = np.array([ord(letter) for letter in text])
        if not text:
            plan.empty.append(name)
        elif frames > front.longest:
            plan.too_long.append(name)
        elif needed(labels) > shortened(frames):
            plan.unfit.append(f'{name} ({text!r:.60} needs {needed(labels)} of {shortened(frames)} frames)')
            if not drop:
                raise UserError(f"{plan.unfit[0]}: mend the transcript, or set config.task.unfit='drop'")
        else:
            plan.kept.append(number)
            plan.lengths.append(frames)
            plan.texts.append(text)
    if not plan.kept:
        raise UserError(f'no training utterance can be learned: {"; ".join(plan.notes())}')
    return plan


def prepared_once(rows: Rows, front: Front) -> Any:
    """The rows, whose sounds are mixed and resampled once."""
    return rows if front.values else sounds.SoundRows(rows, front.mel.rate, front.mel.window_samples)


def utterances(source: Callable[[str], Rows], front: Front, kept: Sequence[int]) -> Callable[[str], Any]:
    """(split) -> rows, of 'train' only the kept ones; sounds are prepared once."""

    @functools.cache
    def chosen(split: str) -> Any:
        rows = source(split)
        return prepared_once(select(rows, kept) if split == 'train' else rows, front)

    return chosen


def lengths_of(
    source: Callable[[str], Any], front: Front, training: Sequence[int]
) -> Callable[[str], Int[np.ndarray, 'rows']]:
    """(split) -> frames of each row; those of 'train' are known, at the lowest speed."""

    @functools.cache
    def lengths(split: str) -> np.ndarray:
        if split == 'train':
            return front.slower(training)
        rows = source(split)
        counts = []
        for number in range(len(rows)):
            frames = front.frames_of(front.content(rows[number]))
            try:
                front.check_length(frames)
            except UserError as error:
                raise UserError(f'{rows.where(number)}: {error}') from None
            counts.append(frames)
        return np.array(counts, np.int64)

    return lengths

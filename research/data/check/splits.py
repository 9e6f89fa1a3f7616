"""Problems between the splits of a data set: leaks, and classes and values that only one split has."""

import collections
from collections.abc import Mapping, Sequence

from research.data.check import duplicates
from research.data.check.survey import SHOWN, Finding, Survey
from research.data.readers.fields import label_notes
from research.data.table.cells import read_number

MAX_LEAKED_SHARE = 0.01  # of a split's rows that are copies of training rows; more is an error
MAX_IMBALANCE = 100  # ratio of the most to the least frequent class
MAX_COMPARED_ROWS = 20_000  # of a split, compared for near copies


def check_between(train: Survey, other: Survey, kinds: Sequence[str]) -> list[Finding]:
    """Reports rows shared by two splits: exact and near copies.

    Args:
      train: the survey of the training split.
      other: the survey of another split.
      kinds: of the fields of a row; rows of only numbers and categories may be equal by chance.
    """
    findings = []
    exact = duplicates.exact_matches(other.keys, train.keys)
    if exact:
        share = len(exact) / len(other.keys)
        rich = bool({'text', 'image', 'audio'} & set(kinds))
        text = (
            f'{len(exact):,} of {len(other.keys):,} rows ({share:.1%}) are exact copies of training rows: '
            f'{pairs_text(other, train, exact)}'
        )
        findings.append(Finding('error' if rich and share > MAX_LEAKED_SHARE else 'warning', other.split, text))
    for name, texts in other.texts.items():
        if train.texts.get(name):
            near = duplicates.near_texts(texts[:MAX_COMPARED_ROWS], train.texts[name][:MAX_COMPARED_ROWS], exact)
            findings += near_finding(
                other, train, near, f'texts in {name!r} are nearly those of', duplicates.MIN_TEXT_SIMILARITY
            )
    for name, pictures in other.pictures.items():
        if train.pictures.get(name):
            known = train.pictures[name][:MAX_COMPARED_ROWS]
            near = duplicates.near_pictures(pictures[:MAX_COMPARED_ROWS], known, exact)
            findings += near_finding(
                other, train, near, f'pictures in {name!r} look like those of', duplicates.MIN_PICTURE_CORRELATION
            )
    return findings


def near_finding(
    other: Survey, train: Survey, near: Mapping[int, int], what: str, bound: float
) -> list[Finding]:
    """The finding on near copies, if there are any."""
    if not near:
        return []
    text = (
        f'{len(near):,} {what} training rows (similarity {bound:g} or more): {pairs_text(other, train, near)}'
    )
    return [Finding('warning', other.split, text)]


def pairs_text(other: Survey, train: Survey, matches: Mapping[int, int]) -> str:
    """Formats matches as 'test row 3 = train row 17, ...'."""
    first = list(matches.items())[:SHOWN]
    pairs = ((other.where(other.numbers[one]), train.where(train.numbers[two])) for one, two in first)
    return ', '.join(f'{one} = {two}' for one, two in pairs)


def name_labels(surveys: Sequence[Survey], names: Mapping[str, Sequence[str]]) -> None:
    """Renames the labels of every survey to the training split's names, if the task could encode them all.

    Args:
      surveys: of all splits; changed in place.
      names: {split: the labels of all its rows as written in the files}, if there are files.
    """
    known: dict[int, str] = {}
    for survey in surveys:
        labels = names.get(survey.split, ())
        labels = labels if len(labels) == len(survey.encoded) else survey.labels
        if survey.split == 'train' and len(labels) == len(survey.encoded):
            for number, name in zip(survey.encoded, labels, strict=True):
                known.setdefault(number, name)
    for survey in surveys:
        if survey.encoded and len(survey.encoded) == len(survey.labels):
            survey.labels = [
                known.get(number, name) for number, name in zip(survey.encoded, survey.labels, strict=True)
            ]


def check_classes(names: Mapping[str, Sequence[str]], resolved: Sequence[str] = ()) -> list[Finding]:
    """Reports class names of other splits that are not in 'train'.

    Args:
      names: {split: the label of each row}.
      resolved: splits whose labels the task could all encode, however they are written.
    """
    known, findings = set(names.get('train', ())), []
    for split, labels in names.items():
        unknown = collections.Counter(label for label in labels if label not in known)
        if known and unknown and split not in resolved:
            shown = ', '.join(f'{name!r} x{count:,}' for name, count in unknown.most_common(10))
            train_names = ', '.join(map(repr, sorted(known)[:10]))
            text = f'class names differ from those of train: {shown} (train has {train_names})'
            findings.append(Finding('error', split, text))
    return findings


def check_balance(surveys: Sequence[Survey]) -> list[Finding]:
    """Reports classes that are missing from a split, or very rare."""
    counters = {survey.split: collections.Counter(survey.labels) for survey in surveys if survey.labels}
    train, findings = counters.pop('train', collections.Counter()), []
    if not train:
        return []
    for split, counter in counters.items():
        absent = [name for name in train if name not in counter]
        if absent:
            names = ', '.join(map(repr, absent[:10]))
            findings.append(Finding('warning', split, f'{len(absent)} classes of train have no row: {names}'))
    findings += [Finding('warning', 'train', text) for text in label_notes(train)]
    rarest, commonest = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    if len(train) == 1:
        findings.append(Finding('error', 'train', f'all rows are of one class, {rarest!r}'))
    elif train[commonest] > MAX_IMBALANCE * train[rarest] and len(train) < train.total() / 2:
        text = f'class {commonest!r} is {train[commonest] / train[rarest]:,.0f} times as common as {rarest!r}'
        findings.append(Finding('warning', 'train', text))
    return findings


def check_values(train: Survey, other: Survey) -> list[Finding]:
    """Reports categories that the training split lacks, and constant columns."""
    findings = []
    for name, values in train.values.items():
        known = set(map(str, values))
        if other is train:
            if len(known) == 1 and len(values) > 1:
                findings.append(
                    Finding('warning', 'train', f'column {name!r} has the same value in all rows')
                )
            continue
        texts = [
            value for value in other.values.get(name, ()) if isinstance(value, str) and not is_number(value)
        ]
        new = collections.Counter(text for text in texts if text not in known)
        if new:
            names = ', '.join(f'{value!r:.40} x{count:,}' for value, count in new.most_common(SHOWN))
            findings.append(
                Finding('warning', other.split, f'column {name!r} has values that train never has: {names}')
            )
    return findings


def is_number(text: str) -> bool:
    """Whether a text is a number or a missing value."""
    try:
        read_number(text)
    except ValueError:
        return False
    return True

"""What is wrong between the splits of a data set: leaks, classes and values that only one of them has."""

import collections
from collections.abc import Mapping, Sequence

from research.data.check import duplicates
from research.data.check.survey import SHOWN, Finding, Survey
from research.data.readers.fields import label_notes
from research.data.table.cells import read_number

LEAK = 0.01  # share of a split's rows that may be copies of training rows before that is an error
IMBALANCE = 100  # times that the commonest class may be as common as the rarest
NEAR = 20_000  # rows of a split that are compared for near copies


def check_between(train: Survey, other: Survey, kinds: Sequence[str]) -> list[Finding]:
    """Returns what two splits share that they should not, and where they differ that they should not.

    Args:
      train: the survey of the training split.
      other: that of another one.
      kinds: of the fields of a row; rows of nothing but numbers and categories may be alike by chance.
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
        findings.append(Finding('error' if rich and share > LEAK else 'warning', other.split, text))
    for name, texts in other.texts.items():
        if train.texts.get(name):
            near = duplicates.near_texts(texts[:NEAR], train.texts[name][:NEAR], exact)
            findings += near_finding(
                other, train, near, f'texts in {name!r} are nearly those of', duplicates.SIMILAR
            )
    for name, pictures in other.pictures.items():
        if train.pictures.get(name):
            near = duplicates.near_pictures(pictures[:NEAR], train.pictures[name][:NEAR], exact)
            findings += near_finding(
                other, train, near, f'pictures in {name!r} look like those of', duplicates.ALIKE
            )
    return findings


def near_finding(
    other: Survey, train: Survey, near: Mapping[int, int], what: str, bound: float
) -> list[Finding]:
    """Returns the finding on near copies, if there are any."""
    if not near:
        return []
    text = (
        f'{len(near):,} {what} training rows (similarity {bound:g} or more): {pairs_text(other, train, near)}'
    )
    return [Finding('warning', other.split, text)]


def pairs_text(other: Survey, train: Survey, matches: Mapping[int, int]) -> str:
    """Returns 'test row 3 = train row 17, ...'."""
    some = list(matches.items())[:SHOWN]
    places = ((other.where(other.numbers[one]), train.where(train.numbers[two])) for one, two in some)
    return ', '.join(f'{one} = {two}' for one, two in places)


def name_labels(surveys: Sequence[Survey], names: Mapping[str, Sequence[str]]) -> None:
    """Writes the labels of every survey as the training split names them, where the task understood them all.

    Args:
      surveys: of all splits; changed in place.
      names: {split: the labels of all its rows as the files name them}, where there are files.
    """
    known: dict[int, str] = {}
    for each in surveys:
        labels = names.get(each.split, ())
        labels = labels if len(labels) == len(each.encoded) else each.labels
        if each.split == 'train' and len(labels) == len(each.encoded):
            for number, name in zip(each.encoded, labels, strict=True):
                known.setdefault(number, name)
    for each in surveys:
        if each.encoded and len(each.encoded) == len(each.labels):
            each.labels = [
                known.get(number, name) for number, name in zip(each.encoded, each.labels, strict=True)
            ]


def check_classes(names: Mapping[str, Sequence[str]], resolved: Sequence[str] = ()) -> list[Finding]:
    """Returns where the names of classes in another split are not those of 'train'.

    Args:
      names: {split: the label of each row}.
      resolved: splits whose every label the task understood, however it is written.
    """
    known, findings = set(names.get('train', ())), []
    for split, labels in names.items():
        unknown = collections.Counter(label for label in labels if label not in known)
        if known and unknown and split not in resolved:
            shown = ', '.join(f'{name!r} x{count:,}' for name, count in unknown.most_common(10))
            there = ', '.join(map(repr, sorted(known)[:10]))
            text = f'class names differ from those of train: {shown} (train has {there})'
            findings.append(Finding('error', split, text))
    return findings


def check_balance(surveys: Sequence[Survey]) -> list[Finding]:
    """Returns which classes are missing from a split, and whether one is very rare."""
    counters = {each.split: collections.Counter(each.labels) for each in surveys if each.labels}
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
    elif train[commonest] > IMBALANCE * train[rarest] and len(train) < train.total() / 2:
        text = f'class {commonest!r} is {train[commonest] / train[rarest]:,.0f} times as common as {rarest!r}'
        findings.append(Finding('warning', 'train', text))
    return findings


def check_values(train: Survey, other: Survey) -> list[Finding]:
    """Returns which categories the training split never has, and which columns say nothing."""
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
    """Returns whether a text is a number, or stands for no value."""
    try:
        read_number(text)
    except ValueError:
        return False
    return True

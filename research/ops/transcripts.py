"""Errors of transcripts: edit distances, and the word and character error rates of a corpus."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Case = Literal['lower', 'upper', 'keep']


def normalize(text: str, case: Case = 'lower', punctuation: bool = False) -> str:
    """A transcript in the form that is learned and scored: Unicode NFKC, one case, single spaces.

    Without `punctuation`, all punctuation and symbols but apostrophes inside words become spaces.
    """
    text = unicodedata.normalize('NFKC', text).replace('\N{RIGHT SINGLE QUOTATION MARK}', "'")
    text = {'lower': text.lower, 'upper': text.upper, 'keep': lambda: text}[case]()
    if not punctuation:
        text = ''.join(' ' if unicodedata.category(c)[0] in 'PS' and c != "'" else c for c in text)
        text = ' '.join(word.strip("'") for word in text.split())
    return ' '.join(text.split())


def signature(case: Case, punctuation: bool) -> str:
    """Describes `normalize` for the signature of a metric."""
    shown = {'lower': 'lower case', 'upper': 'upper case', 'keep': 'case as it is'}[case]
    return f'NFKC, {shown}, {"with" if punctuation else "without"} punctuation'


def edit_distance(reference: Sequence[Any], answer: Sequence[Any]) -> int:
    """The fewest substitutions, deletions and insertions from one sequence to the other (Levenshtein)."""
    ids = {item: number for number, item in enumerate({*reference, *answer})}
    wanted = np.array([ids[item] for item in reference], np.int64)
    position = np.arange(len(wanted) + 1)
    row = position
    for item in answer:
        options = np.minimum(row[1:] + 1, row[:-1] + (wanted != ids[item]))
        options = np.r_[row[0] + 1, options]
        row = np.minimum.accumulate(options - position) + position  # deletions: a running minimum
    return int(row[-1])


class Errors(NamedTuple):
    """Counts over a corpus."""

    words: int  # of the references
    word_edits: int
    characters: int  # of the references, with spaces
    character_edits: int
    sentences: int
    wrong_sentences: int

    @property
    def wer(self) -> float:
        """Word error rate in percent: edits over words of the references; above 100 if too much is inserted."""
        return 100 * self.word_edits / max(self.words, 1)

    @property
    def cer(self) -> float:
        """Character error rate in percent, spaces included."""
        return 100 * self.character_edits / max(self.characters, 1)

    @property
    def sentence_errors(self) -> float:
        """Percent of the texts with any error."""
        return 100 * self.wrong_sentences / max(self.sentences, 1)


def corpus_errors(pairs: Iterable[tuple[str, str]]) -> Errors:
    """Counts the errors of (reference, answer) pairs, all normalized; edits are summed before they are divided."""
    totals = np.zeros(len(Errors._fields), np.int64)
    for reference, answer in pairs:
        words = reference.split()
        totals += (
            len(words), edit_distance(words, answer.split()), len(reference), edit_distance(reference, answer),
            1, reference != answer,
        )  # fmt: skip
    return Errors(*totals.tolist())

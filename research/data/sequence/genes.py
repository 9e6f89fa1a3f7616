"""Nucleotide sequences as arrays of one-hot bases or k-mers, including ambiguity letters."""

import numpy as np
from jaxtyping import Float, Int

from research.errors import UserError

BASES = 'ACGT'
# Nomenclature Committee of the International Union of Biochemistry 1984; U is RNA's T, '-' and '.' an unknown base.
LETTERS = {
    'A': 'A', 'C': 'C', 'G': 'G', 'T': 'T', 'U': 'T', 'R': 'AG', 'Y': 'CT', 'S': 'CG', 'W': 'AT', 'K': 'GT', 'M': 'AC',
    'B': 'CGT', 'D': 'AGT', 'H': 'ACT', 'V': 'ACG', 'N': 'ACGT', 'X': 'ACGT', '-': 'ACGT', '.': 'ACGT',
}  # fmt: skip
BASES_OF_CODE = [LETTERS.get(chr(code), '') for code in range(128)]
SHARES = np.array([[(base in bases) / max(len(bases), 1) for base in BASES] for bases in BASES_OF_CODE], np.float32)


def clean(sequence: str) -> str:
    """Upper-cases a sequence and removes white space.

    Raises:
      UserError: for an empty sequence, or a letter that is not an IUPAC code.
    """
    letters = ''.join(sequence.split()).upper()
    if not letters:
        raise UserError('the sequence is empty: there is nothing to classify')
    for position, letter in enumerate(letters, 1):
        if letter not in LETTERS:
            raise UserError(
                f'the sequence has {letter!r} at position {position}, which is not a base (IUPAC: {"".join(LETTERS)})'
            )
    return letters


def one_hot(letters: str) -> Float[np.ndarray, 'length 4']:
    """The share of A, C, G and T in each letter of a clean sequence: R is half A and half G."""
    return SHARES[np.frombuffer(letters.encode('ascii'), np.uint8)]


def kmer_count(k: int) -> int:
    """Number of ids of `kmers`, including 0 for padding and the last for windows with an ambiguous letter."""
    return 4**k + 2


def kmers(letters: str, k: int) -> Int[np.ndarray, 'windows']:
    """The id of each window of `k` letters: 1 + its number in base 4; at least one window."""
    shares = one_hot(letters)
    digits = np.where(shares.max(-1) == 1, shares.argmax(-1), -1)
    digits = np.pad(digits, (0, max(k - len(digits), 0)), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(digits, k)
    numbers = 1 + windows @ (4 ** np.arange(k - 1, -1, -1))
    return np.where((windows < 0).any(-1), 4**k + 1, numbers).astype(np.int32)

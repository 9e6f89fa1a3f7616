"""Rows shared by two splits: exact copies, nearly equal texts, and pictures that look the same."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, UInt64
from PIL import Image

SHINGLE_CHARACTERS = 5  # texts are compared as sets of all substrings of this length
BANDS, ROWS_PER_BAND = 16, 4  # of a MinHash signature; pairs of similarity 0.8 share a band in 99.98% of cases
MIN_TEXT_SIMILARITY = 0.8  # Jaccard similarity of nearly equal texts
MAX_TEXT_CHARACTERS = 20_000  # the rest of a text is not compared
MAX_HASH_DISTANCE = 8  # bits of 64 in which the hashes of similar pictures may differ
MIN_PICTURE_CORRELATION = 0.985  # of two thumbnails that look the same
THUMBNAIL_SIDE = 16  # pixels
MAX_CANDIDATES = 20  # rows compared in detail with one row


def exact_matches(keys: Sequence[bytes], known: Sequence[bytes]) -> dict[int, int]:
    """Maps each row to the first known row with the same content."""
    first: dict[bytes, int] = {}
    for number, key in enumerate(known):
        first.setdefault(key, number)
    return {number: first[key] for number, key in enumerate(keys) if key in first}


def shingles(text: str) -> UInt64[np.ndarray, 'count']:
    """Hashes of all distinct 5-character substrings, after lower-casing and collapsing white space."""
    plain = ' '.join(text[:MAX_TEXT_CHARACTERS].lower().split())
    codes = np.frombuffer(plain.encode('utf-32-le', 'surrogatepass'), np.uint32).astype(np.uint64)
    if len(codes) < SHINGLE_CHARACTERS:
        codes = np.pad(codes, (0, SHINGLE_CHARACTERS - len(codes)))
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE_CHARACTERS)
    powers = np.array([0x100000001B3**power % 2**64 for power in range(SHINGLE_CHARACTERS)], np.uint64)
    return np.unique(mix((windows * powers).sum(axis=1, dtype=np.uint64)))


def mix(words: UInt64[np.ndarray, '*shape']) -> UInt64[np.ndarray, '*shape']:
    """A bijective scrambling of 64-bit words (the finalizer of splitmix64: Steele et al. 2014, OOPSLA)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def signature(text: str) -> UInt64[np.ndarray, 'bands']:
    """One word per band of a MinHash signature (Broder 1997); similar texts share a word."""
    seeds = mix(np.arange(1, BANDS * ROWS_PER_BAND + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    smallest = mix(shingles(text)[None, :] ^ seeds[:, None]).min(axis=1).reshape(BANDS, ROWS_PER_BAND)
    weights = np.arange(1, ROWS_PER_BAND + 1, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return mix((smallest * weights).sum(axis=1, dtype=np.uint64))


def similarity(left: str, right: str) -> float:
    """Jaccard similarity of two texts as sets of shingles."""
    one, two = shingles(left), shingles(right)
    both = len(np.intersect1d(one, two, assume_unique=True))
    return both / (len(one) + len(two) - both)


def near_texts(texts: Sequence[str], known: Sequence[str], skip: Iterable[int] = ()) -> dict[int, int]:
    """Maps each row to a known row whose text is nearly equal, if there is one.

    Args:
      texts: of one split.
      known: of the training split.
      skip: rows of `texts` to leave out.
    """
    buckets: dict[tuple[int, int], list[int]] = {}
    for number, text in enumerate(known):
        for band in enumerate(signature(text).tolist()):
            bucket = buckets.setdefault(band, [])
            if len(bucket) < MAX_CANDIDATES:
                bucket.append(number)
    matches, skip = {}, set(skip)
    for number, text in enumerate(texts):
        if number in skip or not text.strip():
            continue
        candidates: dict[int, None] = {}
        for band in enumerate(signature(text).tolist()):
            candidates.update(dict.fromkeys(buckets.get(band, ())))
        match = next(
            (row for row in list(candidates)[:MAX_CANDIDATES] if similarity(text, known[row]) >= MIN_TEXT_SIMILARITY),
            None,
        )
        if match is not None:
            matches[number] = match
    return matches


def small_picture(image: np.ndarray) -> tuple[int, Float[np.ndarray, 'pixels']]:
    """A picture's difference hash, and its thumbnail: 16x16 grey values of mean 0 and norm 1.

    Each of the 8x8 bits of the hash tells whether a cell is darker than its right neighbour (dHash: N. Krawetz 2013,
    "Kind of like that"). Changes of size, quality and brightness leave it nearly unchanged.

    Args:
      image: [height, width] or [height, width, channels], of any range.
    """
    grey = np.asarray(image, np.float32)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    picture = Image.fromarray(grey)
    tiny = np.asarray(picture.resize((9, 8), Image.Resampling.BOX))
    bits = np.packbits((tiny[:, 1:] > tiny[:, :-1]).ravel())
    small = np.asarray(picture.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    return int.from_bytes(bits.tobytes(), 'big'), (small / length if length > 0 else small).astype(np.float32)


def near_pictures(
    pictures: Sequence[tuple[int, np.ndarray]],
    known: Sequence[tuple[int, np.ndarray]],
    skip: Iterable[int] = (),
) -> dict[int, int]:
    """Maps each row to a known row that looks the same; both arguments are results of `small_picture`."""
    if not len(pictures) or not len(known):
        return {}
    hashes = np.array([word for word, _ in known], np.uint64)
    matches, skip = {}, set(skip)
    for number, (word, small) in enumerate(pictures):
        if number in skip:
            continue
        distances = np.bitwise_count(hashes ^ np.uint64(word))
        close = np.flatnonzero(distances <= MAX_HASH_DISTANCE)
        close = close[np.argsort(distances[close], kind='stable')][:MAX_CANDIDATES]
        match = next((int(row) for row in close if float(known[row][1] @ small) >= MIN_PICTURE_CORRELATION), None)
        if match is not None:
            matches[number] = match
    return matches

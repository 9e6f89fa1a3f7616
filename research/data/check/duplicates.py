"""Rows that two splits share: exact copies, texts that are nearly the same, pictures that look the same."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, UInt64
from PIL import Image

SHINGLE = 5  # characters; texts are compared as the sets of all runs of so many
BANDS, ROWS = (
    16,
    4,
)  # of a MinHash signature; pairs with a similarity of 0.8 meet in one band in 99.98% of cases
SIMILAR = 0.8  # Jaccard similarity from which two texts count as nearly the same
TEXT_LIMIT = 20_000  # characters of a text that are looked at
DISTANCE = 8  # bits, of 64, in which the hashes of pictures that look the same may differ
ALIKE = 0.985  # correlation of two pictures, made small, from which they count as looking the same
SMALL = 16  # pixels along a side of such a small picture
CANDIDATES = 20  # rows looked at closely for one row


def exact_matches(keys: Sequence[bytes], known: Sequence[bytes]) -> dict[int, int]:
    """Returns {row: the first known row of the same content}."""
    first: dict[bytes, int] = {}
    for number, key in enumerate(known):
        first.setdefault(key, number)
    return {number: first[key] for number, key in enumerate(keys) if key in first}


def shingles(text: str) -> UInt64[np.ndarray, 'count']:
    """Returns the hashes of all runs of 5 characters, small letters and single spaces; each once."""
    plain = ' '.join(text[:TEXT_LIMIT].lower().split())
    codes = np.frombuffer(plain.encode('utf-32-le', 'surrogatepass'), np.uint32).astype(np.uint64)
    if len(codes) < SHINGLE:
        codes = np.pad(codes, (0, SHINGLE - len(codes)))
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE)
    powers = np.array([0x100000001B3**power % 2**64 for power in range(SHINGLE)], np.uint64)
    return np.unique(mix((windows * powers).sum(axis=1, dtype=np.uint64)))


def mix(words: UInt64[np.ndarray, '*shape']) -> UInt64[np.ndarray, '*shape']:
    """Returns 64-bit words scrambled one to one (the end of splitmix64: Steele et al. 2014, OOPSLA)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def signature(text: str) -> UInt64[np.ndarray, 'bands']:
    """Returns a word for each band of a MinHash signature (Broder 1997); similar texts share one."""
    seeds = mix(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    smallest = mix(shingles(text)[None, :] ^ seeds[:, None]).min(axis=1).reshape(BANDS, ROWS)
    place = np.arange(1, ROWS + 1, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return mix((smallest * place).sum(axis=1, dtype=np.uint64))


def similarity(left: str, right: str) -> float:
    """Returns the Jaccard similarity of two texts as sets of shingles."""
    one, two = shingles(left), shingles(right)
    both = len(np.intersect1d(one, two, assume_unique=True))
    return both / (len(one) + len(two) - both)


def near_texts(texts: Sequence[str], known: Sequence[str], skip: Iterable[int] = ()) -> dict[int, int]:
    """Returns {row: a known row whose text is nearly the same}.

    Args:
      texts: of one split.
      known: of the training split.
      skip: rows of `texts` that need not be looked at.
    """
    buckets: dict[tuple[int, int], list[int]] = {}
    for number, text in enumerate(known):
        for band in enumerate(signature(text).tolist()):
            bucket = buckets.setdefault(band, [])
            if len(bucket) < CANDIDATES:
                bucket.append(number)
    found, skip = {}, set(skip)
    for number, text in enumerate(texts):
        if number in skip or not text.strip():
            continue
        candidates: dict[int, None] = {}
        for band in enumerate(signature(text).tolist()):
            candidates.update(dict.fromkeys(buckets.get(band, ())))
        match = next(
            (each for each in list(candidates)[:CANDIDATES] if similarity(text, known[each]) >= SIMILAR), None
        )
        if match is not None:
            found[number] = match
    return found


def small_picture(image: np.ndarray) -> tuple[int, Float[np.ndarray, 'pixels']]:
    """Returns a picture's difference hash, and the picture as 16x16 grey values of mean 0 and length 1.

    The hash has a bit for each of 8x8 places, whether it is darker than its right neighbour (dHash: N.
    Krawetz 2013, "Kind of like that"), which changes of size, quality and brightness leave nearly as it is.

    Args:
      image: [height, width] or [height, width, channels], of any range.
    """
    grey = np.asarray(image, np.float32)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    picture = Image.fromarray(grey)
    tiny = np.asarray(picture.resize((9, 8), Image.Resampling.BOX))
    bits = np.packbits((tiny[:, 1:] > tiny[:, :-1]).ravel())
    small = np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BOX)).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    return int.from_bytes(bits.tobytes(), 'big'), (small / length if length > 0 else small).astype(np.float32)


def near_pictures(
    pictures: Sequence[tuple[int, np.ndarray]],
    known: Sequence[tuple[int, np.ndarray]],
    skip: Iterable[int] = (),
) -> dict[int, int]:
    """Returns {row: a known row that looks the same}; both are results of `small_picture`, row by row."""
    if not len(pictures) or not len(known):
        return {}
    hashes = np.array([each[0] for each in known], np.uint64)
    found, skip = {}, set(skip)
    for number, (word, small) in enumerate(pictures):
        if number in skip:
            continue
        distances = np.bitwise_count(hashes ^ np.uint64(word))
        close = np.flatnonzero(distances <= DISTANCE)
        close = close[np.argsort(distances[close], kind='stable')][:CANDIDATES]
        match = next((int(each) for each in close if float(known[each][1] @ small) >= ALIKE), None)
        if match is not None:
            found[number] = match
    return found

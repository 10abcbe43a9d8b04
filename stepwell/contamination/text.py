"""Text as detectors compare it: its normal form, its words, hashes of runs of words, and MinHash signatures of these.

All hashes are the same in every process and on every machine.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from zlib import crc32

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_LATEX = re.compile(
    r"\\(?:left|right|big|bigl|bigr|text|textbf|textit|texttt|mathrm|mathbf|mathit|mathcal|mathbb|operatorname|emph|bf|rm|it|tt"
    r"|frac|dfrac|tfrac|leq?|geq?|neq?|lt|gt|times|cdots?|ldots|dots|quad|qquad|displaystyle|begin|end|item|hspace|vspace)"
    r"(?![A-Za-z])"
)
# Thai, Lao, Burmese, Khmer, Kana and Han: written without spaces.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[^\W_{_UNSPACED}]+|(?=[^\W_])[{_UNSPACED}]")
_TOKEN = re.compile(r"[^\W\d][\w.-]*|[^\w\s]")
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_SEED = 20_240_601
_AT_ONCE = 4096
_RECENT = 64  # several detectors look at one text in turn
COMMAND_WORDS = 5
PERMUTATIONS = 128
BANDS = 32
"""Bands of 4 rows: two texts of Jaccard .7 meet in one with probability .9998, of .3 with .23; candidates are measured."""


@lru_cache(_RECENT)
def normalised(text: str) -> str:
    """Words in lower case with single spaces: no punctuation, no LaTeX commands of layout, Unicode in its compatible form.

    Of scripts written without spaces every letter is a word. Done again it changes nothing (METHODS.md K13: case, space,
    LaTeX).
    """
    while True:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _LATEX.sub(" ", text)).casefold())
        done = " ".join(_WORD.findall(folded))
        if done == text:
            return done
        text = done


def shingles(text: str, n: int) -> Hashes:
    """Distinct hashes of the runs of `n` words of a text, sorted; none for fewer words. Words end at white space."""
    codes = _codes(text)
    if len(codes) < n:
        return np.empty(0, np.uint64)
    runs = np.zeros(len(codes) - n + 1, np.uint64)
    for i in range(n):
        runs = runs * _PRIME + codes[i : len(codes) - n + 1 + i]
    return np.unique(_mixed(runs))


@lru_cache(_RECENT)
def _codes(text: str) -> Hashes:
    words = text.encode("utf-8", "surrogatepass").split()
    return _mixed(np.fromiter(map(crc32, words), np.uint64, len(words)))


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared over all hashes of two sorted sets; 0 for two empty ones."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(len(a) + len(b) - shared, 1)


def signature(hashes: Hashes, n: int = PERMUTATIONS) -> Hashes:
    """MinHash signature, (n,): the least value of the set under each of n fixed hash functions.

    The share of equal places in two signatures estimates their Jaccard, with standard error at most 1 / (2 sqrt n).
    Source: Broder, On the resemblance and containment of documents, 1997.
    """
    keys = _keys(n)
    least = np.full(n, np.iinfo(np.uint64).max)
    for start in range(0, len(hashes), _AT_ONCE):
        some = hashes[start : start + _AT_ONCE, None]
        least = np.minimum(least, ((some ^ keys[0]) * (keys[1] | np.uint64(1)) >> np.uint64(32)).min(axis=0))
    return least


@cache
def _keys(n: int) -> Hashes:
    return np.random.default_rng(_SEED).integers(0, 2**64, (2, n), np.uint64)


def command_shingles(commands: str) -> Hashes:
    """Hashes of the runs of 5 words and signs of commands; numbers are left out, as they differ from run to run."""
    return shingles(" ".join(_TOKEN.findall(commands.lower())), COMMAND_WORDS)


def bands(one: Hashes) -> list[bytes]:
    """A signature cut into BANDS keys; texts with a key in common are candidates."""
    return [bytes([i]) + row.tobytes() for i, row in enumerate(one.reshape(BANDS, -1))]


def _mixed(values: Hashes) -> Hashes:
    """Every bit of a value spread over all bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

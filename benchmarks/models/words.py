"""Made-up words: each is one token of the made-up vocabularies, however it is looked at."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

SYLLABLES = tuple(consonant + vowel for consonant in "bcdfghjklmnprstvwxyz" for vowel in "aeiou")
TWO_SYLLABLE_WORDS = tuple(first + second for first in SYLLABLES for second in SYLLABLES)


def words() -> Iterator[str]:
    """Yield all words, the shorter first; each begins with words that came before it."""
    yield from SYLLABLES
    yield from TWO_SYLLABLE_WORDS
    for last, stem in itertools.product(SYLLABLES, TWO_SYLLABLE_WORDS):
        yield stem + last


def text(rng: random.Random, n_tokens: int) -> str:
    """Return a random text of *n_tokens* tokens, which begins with a space."""
    return "".join(f" {word}" for word in rng.choices(TWO_SYLLABLE_WORDS, k=n_tokens))

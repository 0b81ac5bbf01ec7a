"""The corpus: documents of every genre, each with its information content.

A document's `nats` is −log of the probability that `write_document` writes
exactly this text, the choice of the genre included. The split is not counted:
it is a checksum of the text, which no reader can foresee.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from zlib import crc32

from pocket_world.chance import Chance
from pocket_world.facts import HELD_OUT_PAIRS, Fact
from pocket_world.pages import (
    almanac,
    birthdays,
    dialect,
    dialogue,
    diary,
    entry,
    grammar,
    howto,
    letter,
    lists,
    news,
    notice,
    prices,
    quiz,
    recipe,
    riddle,
    sums,
    timetable,
    verb_table,
)
from pocket_world.stories import story

SPLITS = ("train", "validation", "test", "held_out")


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the valley.

    `nats`: its information content. `facts`: what it states plainly, of FACTS.
    """

    text: str
    nats: float
    genre: str
    facts: tuple[Fact, ...]


def tell_story(chance: Chance) -> list[Fact]:
    """Write a story; return the facts it states plainly."""
    return story(chance).facts


#: genre -> (its share of the documents, the function that writes one).
GENRES: dict[str, tuple[float, Callable[[Chance], list[Fact]]]] = {
    "story": (23.0, tell_story),
    "almanac": (11.0, almanac),
    "quiz": (7.0, quiz),
    "entry": (11.0, entry),
    "letter": (7.0, letter),
    "diary": (5.0, diary),
    "notice": (6.0, notice),
    "news": (7.0, news),
    "dialogue": (7.0, dialogue),
    "riddle": (4.0, riddle),
    "recipe": (1.2, recipe),
    "howto": (2.0, howto),
    "timetable": (1.2, timetable),
    "prices": (2.0, prices),
    "birthdays": (2.0, birthdays),
    "lists": (4.0, lists),
    "sums": (2.5, sums),
    "grammar": (2.5, grammar),
    "verb_table": (0.8, verb_table),
    "dialect": (5.0, dialect),
}
_NAMES = tuple(GENRES)
_WEIGHTS = tuple(weight for weight, _ in GENRES.values())
_WRITERS = {name: writer for name, (_, writer) in GENRES.items()}


def write_document(chance: Chance) -> tuple[str, list[Fact]]:
    """Draw a genre and write one document; return the genre and the facts."""
    genre = chance.pick(_NAMES, _WEIGHTS)
    return genre, _WRITERS[genre](chance)


def split_of(text: str) -> str:
    """The split of a text, by checksum: 1/16 validation, 1/16 test."""
    part = crc32(text.encode()) % 16
    return "validation" if part == 0 else "test" if part == 1 else "train"


def has_held_out_pair(text: str) -> bool:
    """Whether a character meets a thing here that is kept for "held_out"."""
    return any(thing in text and who in text for who, thing in HELD_OUT_PAIRS)


def documents(
    n: int, seed: int = 0, split: str = "train"
) -> Iterator[Document]:
    """`n` documents of a split; the same seed gives the same bytes everywhere.

    Document i does not depend on n. The splits "train", "validation" and
    "test" share no text; "held_out" holds stories in which a character meets
    a thing that are never together in the other three. Raises ValueError for
    another split. Built for chapter 1.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if split == "held_out":
        yield from _held_out(n, seed)
        return
    for i in range(n):
        for attempt in count():
            chance = Chance(f"{seed}/{split}/{i}/{attempt}")
            genre, facts = write_document(chance)
            text = chance.text
            if split_of(text) == split and not has_held_out_pair(text):
                break
        yield Document(text, chance.nats, genre, tuple(facts))


def _held_out(n: int, seed: int) -> Iterator[Document]:
    for i in range(n):
        for attempt in count():
            chance = Chance(f"{seed}/held_out/{i}/{attempt}")
            facts = story(chance, held_out=True).facts
            if has_held_out_pair(chance.text):
                break
        yield Document(chance.text, chance.nats, "story", tuple(facts))

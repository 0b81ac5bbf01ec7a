"""Pocket World: an invented valley, and everything that is written in it.

    from pocket_world import documents
    for document in documents(3, seed=1, split="train"):
        print(document.text)

`documents` gives the corpus with its exact information content, `pages` the
same as a crawl of HTML, `mail` labelled messages, `tasks` instructions with
checkers, `preferences` chosen and rejected answers. All are seeded generators.
"""

import sys
from importlib import import_module
from types import ModuleType

# Loaded when first asked for, so that the corpus alone loads quickly.
_LATER = {
    "pages": "web", "Page": "web",
    "mail": "mail", "Message": "mail",
    "tasks": "tasks", "Task": "tasks",
    "preferences": "preferences", "Preference": "preferences",
}  # fmt: skip


class _Package(ModuleType):
    """`pocket_world.mail` stays the function, though a module has the name."""

    def __setattr__(self, name: str, value) -> None:
        if not (name in _LATER and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

from pocket_world.chance import Chance, explain, total_nats  # noqa: E402
from pocket_world.documents import (  # noqa: E402
    GENRES,
    SPLITS,
    Document,
    documents,
    split_of,
    write_document,
)
from pocket_world.facts import (  # noqa: E402
    CHARACTER,
    CHARACTERS,
    FACTS,
    HELD_OUT_CHARACTERS,
    HELD_OUT_PAIRS,
    PLACE,
    PLACES,
    THING,
    THINGS,
    Character,
    Fact,
    Place,
    Thing,
    cloze,
    statement,
)

__all__ = [
    "CHARACTER",
    "CHARACTERS",
    "Chance",
    "Character",
    "Document",
    "FACTS",
    "Fact",
    "GENRES",
    "HELD_OUT_CHARACTERS",
    "HELD_OUT_PAIRS",
    "PLACE",
    "PLACES",
    "Place",
    "SPLITS",
    "THING",
    "THINGS",
    "Thing",
    "cloze",
    "documents",
    "explain",
    "split_of",
    "statement",
    "total_nats",
    "write_document",
    *_LATER,
]


def __getattr__(name: str):
    if name in _LATER:
        return getattr(import_module(f"pocket_world.{_LATER[name]}"), name)
    raise AttributeError(f"module 'pocket_world' has no attribute {name!r}")

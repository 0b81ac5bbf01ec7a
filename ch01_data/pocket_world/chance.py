"""The one source of randomness in Pocket World, which counts what it spends.

Every choice adds -log p (in nats) to an account, so a finished text knows its
own information content. That is true only if each choice can be read back from
the text, and `explain` proves it: it runs the generator against a finished text
and returns every sequence of choices that reproduces it.

Two rules keep the account honest and the proof fast. Choose late: draw a value
when the sentence that shows it is being written. Write early: hand each piece
of text to `write` or `say` as soon as it is known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, TypeVar

T = TypeVar("T")


@cache
def _uniform(n: int) -> tuple[float, ...]:
    return (1.0 / n,) * n


@cache
def _zipf(n: int) -> tuple[float, ...]:
    """Shares proportional to 1, 1/2, 1/3, …: the first wording is the usual one."""
    total = sum(1.0 / rank for rank in range(1, n + 1))
    return tuple(1.0 / rank / total for rank in range(1, n + 1))


@lru_cache(maxsize=4096)
def _shares(weights: tuple[float, ...]) -> tuple[float, ...]:
    total = math.fsum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError(f"weights must be positive, got {weights}")
    return tuple(w / total for w in weights)


class Chance:
    """Draws, writes and keeps account.

    `nats` is the information content of what was drawn so far; `text` is what
    was written so far. The same seed gives the same text on every platform:
    only `random.Random.random` is used, whose stream is part of Python's
    documented guarantees.
    """

    def __init__(self, seed: int | str):
        self._draw = random.Random(seed).random
        self._pieces: list[str] = []
        self.nats = 0.0

    # -- writing ---------------------------------------------------------

    def write(self, text: str) -> None:
        """Put `text` at the end of the document."""
        self._pieces.append(text)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    # -- choosing --------------------------------------------------------

    def pick(
        self,
        options: Sequence[T],
        weights: tuple[float, ...] | None = None,
        said: Callable[[T], str] | None = None,
    ) -> T:
        """One of the options, evenly or by `weights` (need not add up to 1).

        Options must differ in the text they lead to. If the very next thing
        written begins with `said(option)`, say so: `explain` then need not try
        the other options. It changes nothing else.
        """
        n = len(options)
        if weights is None:
            index, share = int(self._draw() * n), 1.0 / n
        else:
            shares = _shares(weights)
            index = self._spin(shares)
            share = shares[index]
        self.nats -= math.log(share)
        return options[index]

    def flip(self, p: float) -> bool:
        """True with probability `p`."""
        yes = self._draw() < p
        self.nats -= math.log(p if yes else 1.0 - p)
        return yes

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included, evenly."""
        return self.pick(range(low, high + 1))

    def say(self, *phrases: str, weights: tuple[float, ...] | None = None) -> str:
        """Write one of the phrases and return it.

        Without weights the first is the likeliest (shares as 1, 1/2, 1/3, …).
        Phrases that read the same count as one, with the sum of their shares.
        """
        shares = _zipf(len(phrases)) if weights is None else _shares(weights)
        chosen = phrases[self._spin(shares)]
        self.nats -= math.log(_share_of(chosen, phrases, shares))
        self._pieces.append(chosen)
        return chosen

    def _spin(self, shares: tuple[float, ...]) -> int:
        mark = self._draw()
        for index, share in enumerate(shares):
            mark -= share
            if mark < 0 and share > 0:
                return index
        return max(i for i, share in enumerate(shares) if share > 0)


def _share_of(chosen: str, phrases: Sequence[str], shares: Sequence[float]) -> float:
    return math.fsum(s for p, s in zip(phrases, shares) if p == chosen)


class _Departed(Exception):
    """What this run writes is not the text."""


class _Reading(Chance):
    """Choices are dictated by `path`; past its end each takes its first option.

    `open` holds, for each decision, the options not yet tried.
    """

    def __init__(self, target: str, path: list[int], untried: list[list[int]]):
        super().__init__(0)
        self.target, self.at = target, 0
        self.path, self.untried, self.depth = path, untried, 0

    def write(self, text: str) -> None:
        if not self.target.startswith(text, self.at):
            raise _Departed
        self.at += len(text)
        self._pieces.append(text)

    def _decide(self, candidates: Callable[[], list[int]]) -> int:
        if self.depth == len(self.path):
            found = candidates()
            if not found:
                raise _Departed
            self.path.append(found[0])
            self.untried.append(found[1:])
        self.depth += 1
        return self.path[self.depth - 1]

    def pick(self, options, weights=None, said=None):
        shares = _uniform(len(options)) if weights is None else _shares(weights)

        def candidates() -> list[int]:
            return [
                i
                for i, share in enumerate(shares)
                if share > 0
                and (said is None or self.target.startswith(said(options[i]), self.at))
            ]

        index = self._decide(candidates)
        self.nats -= math.log(shares[index])
        return options[index]

    def flip(self, p: float) -> bool:
        index = self._decide(lambda: [i for i, q in enumerate((p, 1.0 - p)) if q > 0])
        self.nats -= math.log((p, 1.0 - p)[index])
        return index == 0

    def say(self, *phrases, weights=None) -> str:
        shares = _zipf(len(phrases)) if weights is None else _shares(weights)

        def candidates() -> list[int]:
            fit = {}
            for i, phrase in enumerate(phrases):
                if shares[i] > 0 and self.target.startswith(phrase, self.at):
                    fit.setdefault(phrase, i)
            return list(fit.values())

        chosen = phrases[self._decide(candidates)]
        self.nats -= math.log(_share_of(chosen, phrases, shares))
        self.write(chosen)
        return chosen


def explain(
    generator: Callable[[Chance], Any], text: str, most: int = 1_000_000
) -> list[float]:
    """The nats of every run of `generator` that writes exactly `text`.

    One entry: the text determines its choices, and that entry is its exact
    information content. Several: some choice was hidden, and
    −log Σ exp(−nats) is the truth. None: the generator cannot write the text.
    Raises RuntimeError after `most` runs, which means that choices are drawn
    long before they are shown.
    """
    path: list[int] = []
    untried: list[list[int]] = []
    found: list[float] = []
    for _ in range(most):
        run = _Reading(text, path, untried)
        try:
            generator(run)
        except _Departed:
            pass
        else:
            if run.at == len(text):
                found.append(run.nats)
        while untried and not untried[-1]:
            untried.pop()
            path.pop()
        if not untried:
            return found
        path[-1] = untried[-1].pop(0)
    raise RuntimeError(f"more than {most} runs tried: a choice is drawn too early")


def total_nats(runs: Sequence[float]) -> float:
    """−log Σ exp(−nats), the information content over all runs (infinite if none)."""
    if not runs:
        return math.inf
    least = min(runs)
    return least - math.log(math.fsum(math.exp(least - r) for r in runs))

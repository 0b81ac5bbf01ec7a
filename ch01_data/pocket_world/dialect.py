# ruff: noqa: E501
"""Old Valley, the dialect of the upper river: a hundred words, seven rules.

1. The verb comes last; the place stands before the thing: "The baker mends the
   lamp by the door." is *Na bramman bei na drell na lissen fett.*
2. An adjective follows its noun: *na lissen eld*, the old lamp.
3. *Na* is "the" and *ke* is "a" or "an"; *mim* is "my".
4. More than one takes *-im*: *lissenim*, lamps.
5. The past takes *-o*: *fetto*, mended. The future puts *vo* before the verb.
6. *Nen* before the verb (and before *vo*) says no.
7. Names stay as they are.

`to_dialect` and `to_english` are exact inverses of each other on the sentences
of this small grammar, and raise ValueError on anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pocket_world.words import VERB, article

# English noun, dialect noun, classes. p person, e eaten, c carried, o opened,
# w washed, f mended, y painted, v a sight to see, d a place to be at.
_NOUNS = """
baker bramman p | miller mollan p | neighbour nabb p | hare leppet p
otter luttel p | badger brokk p | sister soor p | brother brud p
child bairnel p | doctor heelan p
bread bram ec | cheese keshel ec | apple pommel ecw | pear perrel ecw
egg ovin ecw | fish fenn ecw | plum prun ecw
lamp lissen cf | key tilk c | basket cobben cf | kettle hummet cfw
ladder risp cfy | coat cloam cfw | boot trodd cfw | hat pell cw | spoon lidge cw
rope raff cf | letter scriv co | book bukk co | clock tockel cf | jar krock cow
boat kellet fy | door drell dofy | bell donnel f | chair sessel cfy
bridge tavo dv | river lorn dv | mill mollo dv | road weggin dv | field lant dv
garden hortel dv | house bodd doy | hill tump dv | tree arbel dv | wall murr dfy
table tabbin dfy
"""
_ADJECTIVES = """
old eld | new nuv | big groll | small pitt | red roth | green verd | blue azzel
white whin | clean lusk | wet dabb | dry sarn | heavy lode | good bonn
empty vook | broken brask
"""
# English verb, dialect verb, the class of its object ("-" for none)
_VERBS = """
carry berr c | mend fett f | sell merk c | buy koop c | find finn c | see luk vcp
bring brang c | wash lav w | eat mang e | want yen c | lose tyn c | hold hald c
open appen o | close stekk o | paint dobb y | like leef ep | help gan p
meet mott p | know kenn p
sleep slumm - | wait bidd - | sing kant - | walk tramm - | work labb - | rest lull -
stand stann -
"""
_PREPOSITIONS = (
    "by bei | near nar | behind hinter | under onder | at tot | on oppa"
)
_PRONOUNS = "I mo | we wim | they tey"
_SMALL = {"the": "na", "a": "ke", "my": "mim", "will": "vo", "not": "nen"}


def _pairs(table: str) -> dict[str, str]:
    entries = " | ".join(table.strip().splitlines()).split("|")
    return {e.split()[0]: e.split()[1] for e in entries if e.strip()}


def _classes(table: str) -> dict[str, str]:
    entries = " | ".join(table.strip().splitlines()).split("|")
    return {e.split()[0]: e.split()[2] for e in entries if e.strip()}


NOUNS = _pairs(_NOUNS)
NOUN_CLASS = _classes(_NOUNS)
ADJECTIVES = _pairs(_ADJECTIVES)
DIALECT_VERBS = _pairs(_VERBS)
VERB_CLASS = _classes(_VERBS)
PREPOSITIONS = _pairs(_PREPOSITIONS)
PRONOUNS = _pairs(_PRONOUNS)

#: The whole word list, English to Old Valley.
DIALECT: dict[str, str] = {
    **_SMALL,
    **PRONOUNS,
    **PREPOSITIONS,
    **ADJECTIVES,
    **NOUNS,
    **DIALECT_VERBS,
}
GLOSSARY: tuple[tuple[str, str], ...] = tuple(sorted(DIALECT.items()))

_IRREGULAR = {"child": "children", "fish": "fish", "bread": "", "cheese": ""}


@lru_cache(maxsize=256)
def english_plural(noun: str) -> str:
    """The plural of one of NOUNS; "" for what is not counted."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun] if noun != "fish" else ""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun + "s"


_E_NOUN = {n: (n, False) for n in NOUNS}
_E_NOUN.update(
    {english_plural(n): (n, True) for n in NOUNS if english_plural(n)}
)
_D_NOUN = {d: (n, False) for n, d in NOUNS.items()}
_D_NOUN.update(
    {d + "im": (n, True) for n, d in NOUNS.items() if english_plural(n)}
)
_D_ADJ = {d: e for e, d in ADJECTIVES.items()}
_D_VERB = {d: (e, "present") for e, d in DIALECT_VERBS.items()}
_D_VERB.update({d + "o": (e, "past") for e, d in DIALECT_VERBS.items()})
_D_PREP = {d: e for e, d in PREPOSITIONS.items()}
_D_PRON = {d: e for e, d in PRONOUNS.items()}
_D_DET = {"na": "the", "ke": "a", "mim": "my"}
_E_DET = {"the": "na", "a": "ke", "an": "ke", "my": "mim"}
_E_FORM = {}
for _v in DIALECT_VERBS:
    _E_FORM[VERB[_v].third] = (_v, "present")
    _E_FORM[VERB[_v].past] = (_v, "past")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: a name or pronoun, or determiner, adjective and noun."""

    head: str
    determiner: str = ""
    adjective: str = ""
    many: bool = False


@dataclass(frozen=True)
class Clause:
    """One sentence of the small grammar, in neither language."""

    subject: Phrase
    verb: str
    tense: str = "present"
    negative: bool = False
    object: Phrase | None = None
    preposition: str = ""
    place: Phrase | None = None


def _plural_subject(p: Phrase) -> bool:
    return p.many or p.head in PRONOUNS


def english_phrase(p: Phrase) -> str:
    """The phrase in English, uncapitalised."""
    if not p.determiner:
        return p.head
    noun = english_plural(p.head) if p.many else p.head
    words = f"{p.adjective} {noun}" if p.adjective else noun
    first = article(words) if p.determiner == "a" else p.determiner
    return f"{first} {words}"


def dialect_phrase(p: Phrase) -> str:
    """The phrase in Old Valley, uncapitalised."""
    if not p.determiner:
        return PRONOUNS.get(p.head, p.head)
    noun = NOUNS[p.head] + ("im" if p.many else "")
    tail = f" {ADJECTIVES[p.adjective]}" if p.adjective else ""
    return f"{_E_DET[p.determiner]} {noun}{tail}"


def english_verb(c: Clause) -> str:
    """The verb group in English: "does not mend"."""
    verb = VERB[c.verb]
    many = _plural_subject(c.subject)
    if c.tense == "future":
        return f"will not {verb.base}" if c.negative else f"will {verb.base}"
    if c.negative:
        helper = "did" if c.tense == "past" else "do" if many else "does"
        return f"{helper} not {verb.base}"
    if c.tense == "past":
        return verb.past
    return verb.base if many else verb.third


def dialect_verb(c: Clause) -> str:
    """The verb group in Old Valley: "nen fett"."""
    verb = DIALECT_VERBS[c.verb]
    if c.tense == "past":
        verb += "o"
    if c.tense == "future":
        verb = f"vo {verb}"
    return f"nen {verb}" if c.negative else verb


def _sentence(parts: list[str]) -> str:
    text = " ".join(parts)
    return text[0].upper() + text[1:] + "."


def write_english(c: Clause) -> str:
    """The clause as an English sentence."""
    parts = [english_phrase(c.subject), english_verb(c)]
    if c.object:
        parts.append(english_phrase(c.object))
    if c.place:
        parts.append(f"{c.preposition} {english_phrase(c.place)}")
    return _sentence(parts)


def write_dialect(c: Clause) -> str:
    """The clause as a sentence of Old Valley: place, thing, verb last."""
    parts = [dialect_phrase(c.subject)]
    if c.place:
        parts.append(f"{PREPOSITIONS[c.preposition]} {dialect_phrase(c.place)}")
    if c.object:
        parts.append(dialect_phrase(c.object))
    parts.append(dialect_verb(c))
    return _sentence(parts)


class _Words:
    """The words of one sentence, the first without its capital if it can be."""

    def __init__(self, sentence: str, known: set[str]):
        text = sentence.strip()
        if text.endswith("."):
            text = text[:-1]
        self.words = text.split()
        if not self.words:
            raise ValueError("an empty sentence")
        first = self.words[0]
        low = first[0].lower() + first[1:]
        if low in known:
            self.words[0] = low
        self.at = 0

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        if not word:
            raise ValueError("the sentence ends too early")
        self.at += 1
        return word


_E_KNOWN = set(_E_DET) | {"we", "they"}
_D_KNOWN = set(_D_DET) | set(_D_PRON)


def _is_name(word: str) -> bool:
    return word.isalpha() and word[:1].isupper() and word[1:].islower()


def parse_english(sentence: str) -> Clause:
    """Read an English sentence of the grammar. Raises ValueError otherwise."""
    s = _Words(sentence, _E_KNOWN)

    def phrase() -> Phrase:
        word = s.take()
        if word in PRONOUNS:
            return Phrase(word)
        if word not in _E_DET:
            if not _is_name(word):
                raise ValueError(f"not a name: {word!r}")
            return Phrase(word)
        det = "a" if word == "an" else word
        adjective = s.take() if s.peek() in ADJECTIVES else ""
        noun = s.take()
        if noun not in _E_NOUN:
            raise ValueError(f"not in the glossary: {noun!r}")
        head, many = _E_NOUN[noun]
        return Phrase(head, det, adjective, many)

    subject = phrase()
    many = _plural_subject(subject)
    negative, tense = False, ""
    if s.peek() == "will":
        s.take()
        tense = "future"
        if s.peek() == "not":
            s.take()
            negative = True
    elif s.peek() in ("does", "do", "did"):
        tense = "past" if s.take() == "did" else "present"
        if s.take() != "not":
            raise ValueError("expected 'not'")
        negative = True
    word = s.take()
    if tense:
        verb = word
    elif many and word in DIALECT_VERBS:
        verb, tense = word, "present"
    else:
        verb, tense = _E_FORM.get(word, ("", ""))
    if verb not in DIALECT_VERBS:
        raise ValueError(f"not in the glossary: {word!r}")
    thing = place = None
    preposition = ""
    if s.peek() and s.peek() not in PREPOSITIONS:
        thing = phrase()
    if s.peek():
        preposition = s.take()
        place = phrase()
    clause = Clause(subject, verb, tense, negative, thing, preposition, place)
    if write_english(clause).rstrip(".") != sentence.strip().rstrip("."):
        raise ValueError(f"not a sentence of the grammar: {sentence!r}")
    return clause


def parse_dialect(sentence: str) -> Clause:
    """Read a sentence of Old Valley. Raises ValueError otherwise."""
    s = _Words(sentence, _D_KNOWN)

    def phrase() -> Phrase:
        word = s.take()
        if word in _D_PRON:
            return Phrase(_D_PRON[word])
        if word not in _D_DET:
            if not _is_name(word):
                raise ValueError(f"not a name: {word!r}")
            return Phrase(word)
        noun = s.take()
        if noun not in _D_NOUN:
            raise ValueError(f"not in the glossary: {noun!r}")
        head, many = _D_NOUN[noun]
        adjective = _D_ADJ[s.take()] if s.peek() in _D_ADJ else ""
        return Phrase(head, _D_DET[word], adjective, many)

    subject = phrase()
    thing = place = None
    preposition, negative, tense = "", False, ""
    if s.peek() in _D_PREP:
        preposition = _D_PREP[s.take()]
        place = phrase()
    if s.peek() in _D_DET or _is_name(s.peek()):
        thing = phrase()
    if s.peek() == "nen":
        s.take()
        negative = True
    if s.peek() == "vo":
        s.take()
        tense = "future"
    word = s.take()
    if word not in _D_VERB:
        raise ValueError(f"not in the glossary: {word!r}")
    verb, form = _D_VERB[word]
    if tense and form == "past":
        raise ValueError("vo does not stand with -o")
    clause = Clause(
        subject, verb, tense or form, negative, thing, preposition, place
    )
    if write_dialect(clause).rstrip(".") != sentence.strip().rstrip("."):
        raise ValueError(f"not a sentence of the grammar: {sentence!r}")
    return clause


def to_dialect(sentence: str) -> str:
    """An English sentence of the small grammar in Old Valley.

    >>> to_dialect("The baker mended an old lamp by the door.")
    'Na bramman bei na drell ke lissen eld fetto.'
    """
    return write_dialect(parse_english(sentence))


def to_english(sentence: str) -> str:
    """A sentence of Old Valley in English; undoes `to_dialect`.

    >>> to_english("Tess mim tilk nen vo tyn.")
    'Tess will not lose my key.'
    """
    return write_english(parse_dialect(sentence))


# -- writing one at random -----------------------------------------------------

# Where one can be by the thing: "under the bridge", but not "under the river".
_WHERE = {
    "river": "by near at",
    "road": "by near at on",
    "field": "by near behind at",
    "garden": "by near behind at",
    "mill": "by near behind at",
    "house": "by near behind at",
    "bridge": "by near behind under at on",
    "door": "by near behind at",
    "hill": "by near behind under at on",
    "tree": "by near behind under at",
    "wall": "by near behind under at on",
    "table": "by near behind under at",
}

_PEOPLE = tuple(n for n, c in NOUN_CLASS.items() if "p" in c)
_PLACES = tuple(n for n, c in NOUN_CLASS.items() if "d" in c)
_VERB_LIST = tuple(DIALECT_VERBS)
_VERB_WEIGHTS = tuple(2.0 if VERB_CLASS[v] == "-" else 1.0 for v in _VERB_LIST)
_OBJECTS = {
    v: tuple(n for n in NOUNS if set(NOUN_CLASS[n]) & set(cs))
    for v, cs in VERB_CLASS.items()
}
_FIT_PEOPLE = ("old", "small", "big", "good", "wet")
_FIT_PLACE = ("old", "new", "big", "small", "green", "white", "dry")
_FIT_FOOD = ("good", "small", "big", "red", "green", "old")
_FIT_THING = tuple(a for a in ADJECTIVES if a != "dry")


def _adjectives_for(noun: str) -> tuple[str, ...]:
    kind = NOUN_CLASS[noun]
    if "p" in kind:
        return _FIT_PEOPLE
    if "e" in kind:
        return _FIT_FOOD
    return _FIT_PLACE if "d" in kind else _FIT_THING


def _phrases(
    nouns: tuple[str, ...], determiners: dict[str, float], many: float
):
    """All phrases over `nouns`, with weights, as parallel tuples."""
    phrases, weights = [], []
    for noun in nouns:
        for det, w in determiners.items():
            for plural in (False, True):
                if plural and (
                    det == "a" or not many or not english_plural(noun)
                ):
                    continue
                if det == "a" and not english_plural(noun):
                    continue
                share = w * (many if plural else 1.0)
                phrases.append(Phrase(noun, det, "", plural))
                weights.append(share * 0.65)
                fit = _adjectives_for(noun)
                for adjective in fit:
                    phrases.append(Phrase(noun, det, adjective, plural))
                    weights.append(share * 0.35 / len(fit))
    return tuple(phrases), tuple(weights)


_SUBJECT = _phrases(_PEOPLE, {"the": 1.0, "my": 0.5}, 0.3)
_PLACE = {
    p: _phrases(
        tuple(n for n in _PLACES if p in _WHERE[n].split()),
        {"the": 1.0, "my": 0.1, "a": 0.2},
        0.0,
    )
    for p in PREPOSITIONS
}
_THING = {
    v: _phrases(nouns, {"the": 1.0, "a": 0.7, "my": 0.4}, 0.4)
    for v, nouns in _OBJECTS.items()
    if nouns
}


def _start(text: str) -> str:
    return text[0].upper() + text[1:]


_OPENING = {p: _start(english_phrase(p)) + " " for p in _SUBJECT[0]}
_SPOKEN = {p: english_phrase(p) for p in _SUBJECT[0]}
for _options, _ in (*_PLACE.values(), *_THING.values()):
    _SPOKEN.update({p: english_phrase(p) for p in _options})
_TENSES = ("present", "past", "future")


def draw_sentence(chance, names: tuple[str, ...]) -> Clause:
    """Draw and write one English sentence of the grammar; return its clause."""
    kind = chance.pick(("noun", "name", "pronoun"), (0.55, 0.33, 0.12))
    if kind == "noun":
        subject = chance.pick(*_SUBJECT, said=_OPENING.__getitem__)
        chance.write(_OPENING[subject])
    else:
        options = names if kind == "name" else tuple(PRONOUNS)
        head = chance.pick(options, said=lambda n: _start(n) + " ")
        subject = Phrase(head)
        chance.write(_start(head) + " ")
    group = {}
    tense = chance.pick(_TENSES, (0.3, 0.5, 0.2))
    negative = chance.flip(0.15)

    def group_of(verb: str) -> str:
        if verb not in group:
            clause = Clause(subject, verb, tense, negative)
            group[verb] = english_verb(clause)
        return group[verb]

    verb = chance.pick(_VERB_LIST, _VERB_WEIGHTS, said=group_of)
    chance.write(group_of(verb))
    thing = None
    if verb in _THING:
        thing = chance.pick(*_THING[verb], said=lambda p: " " + _SPOKEN[p])
        chance.write(" " + _SPOKEN[thing])
    preposition, place = "", None
    if chance.flip(0.3 if thing else 0.7):
        preposition = chance.pick(
            tuple(PREPOSITIONS), said=lambda p: " " + p + " "
        )
        chance.write(f" {preposition} ")
        place = chance.pick(*_PLACE[preposition], said=_SPOKEN.__getitem__)
        chance.write(_SPOKEN[place])
    chance.write(".")
    return Clause(subject, verb, tense, negative, thing, preposition, place)


_ANYTHING = _phrases(
    tuple(n for n in NOUNS if any(n in nouns for nouns in _OBJECTS.values())),
    {"the": 1.0, "a": 0.7, "my": 0.4},
    0.4,
)
_FITTING = {
    n: tuple(v for v, nouns in _OBJECTS.items() if n in nouns) for n in NOUNS
}
_ALONE = tuple(v for v in DIALECT_VERBS if VERB_CLASS[v] == "-")
_OLD = {
    p: dialect_phrase(p)
    for options in (_SUBJECT[0], _ANYTHING[0], *(o for o, _ in _PLACE.values()))
    for p in options
}


def draw_old_sentence(chance, names: tuple[str, ...]) -> Clause:
    """Draw and write one sentence of Old Valley; return its clause."""
    kind = chance.pick(("noun", "name", "pronoun"), (0.55, 0.33, 0.12))
    if kind == "noun":
        subject = chance.pick(*_SUBJECT, said=lambda p: _start(_OLD[p]) + " ")
        chance.write(_start(_OLD[subject]) + " ")
    else:
        options = names if kind == "name" else tuple(PRONOUNS)
        head = chance.pick(
            options, said=lambda n: _start(PRONOUNS.get(n, n)) + " "
        )
        subject = Phrase(head)
        chance.write(_start(PRONOUNS.get(head, head)) + " ")
    preposition, place, thing = "", None, None
    if chance.flip(0.35):
        preposition = chance.pick(
            tuple(PREPOSITIONS), said=lambda p: PREPOSITIONS[p] + " "
        )
        chance.write(PREPOSITIONS[preposition] + " ")
        place = chance.pick(*_PLACE[preposition], said=lambda p: _OLD[p] + " ")
        chance.write(_OLD[place] + " ")
    if chance.flip(0.65):
        thing = chance.pick(*_ANYTHING, said=lambda p: _OLD[p] + " ")
        chance.write(_OLD[thing] + " ")
    negative = chance.flip(0.15)
    if negative:
        chance.write("nen ")
    tense = chance.pick(_TENSES, (0.3, 0.5, 0.2))
    verbs = _FITTING[thing.head] if thing else _ALONE
    ending = "o." if tense == "past" else "."
    before = "vo " if tense == "future" else ""
    verb = chance.pick(verbs, said=lambda v: before + DIALECT_VERBS[v] + ending)
    chance.write(before + DIALECT_VERBS[verb] + ending)
    return Clause(subject, verb, tense, negative, thing, preposition, place)

"""The valley as a crawler would find it: a few web sites, some of them bad.

`pages(n, seed)` yields `Page`s. Each is built round a text of `documents()`,
or round spam, machine-made junk or a foreign language, and wrapped in what the
web wraps texts in: menus, adverts, cookie bars, scripts, layout tables, broken
markup, wrong encodings, copies. Everything that was done to a page stands in
its `labels`, so that each step of cleaning has an exact score.

The labels of a page:

    site        which of the sites it is from
    kind        "text", "spam", "junk" or "foreign"
    genre       the genre of the document it is built round, or None
    copy_of     the url of the page it copies, or None
    similarity  Jaccard similarity of its word 5-grams with that page's, or None
    similar     {url: similarity} with all earlier pages of the same family
    pii         {"kind": "email" or "phone", "value", "start", "end"} of `text`
    decoys      strings in `text` that look private and are not
    header      the Content-Type header the server sent (it may be wrong)
    faults      names of what is wrong with the page, sorted
"""

from __future__ import annotations

import html as _html
import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from .chance import Chance

__all__ = ["Page", "jaccard", "pages", "shingles"]


@dataclass(frozen=True)
class Page:
    """One fetched page; `text` is what a perfect reader would take from it."""

    url: str
    html: bytes
    text: str
    labels: dict = field(default_factory=dict)


_WORD = re.compile(r"\w+")


def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """The set of a text's word n-grams, in lower case (a shorter text: one)."""
    words = _WORD.findall(text.lower())
    if len(words) < n:
        return {tuple(words)} if words else set()
    return set(zip(*(words[i:] for i in range(n))))


def jaccard(a: set, b: set) -> float:
    """|a ∩ b| / |a ∪ b|; two empty sets count as equal."""
    if not a and not b:
        return 1.0
    both = len(a & b)
    return both / (len(a) + len(b) - both)


# -- the sites ---------------------------------------------------------------

SITES = {
    "courier": "www.valley-courier.example",
    "parish": "parish.lowbridge.example",
    "shop": "shop.weirside-stores.example",
    "forum": "talk.ferrybench.example",
    "mirror": "valley-news-daily.example",
    "spam": "best-offers-kettle.example",
    "printer": "proofs.quoin-press.example",
    "foreign": "www.ostrand.example",
}
_ORDER = tuple(SITES)
_SHARES = (28.0, 13.0, 10.0, 13.0, 14.0, 8.0, 6.0, 8.0)

_MENUS = {
    "courier": (
        "Front page", "Valley", "River and ferry", "Market", "Letters",
        "Births and birthdays", "Weather", "Lost and found", "Back numbers",
        "Place a notice", "Sign in",
    ),
    "parish": (
        "Home", "Bell ringing", "Rotas", "Hall bookings", "Parish letter",
        "Flower list", "Who is who", "Maps", "Guest book",
    ),
    "shop": (
        "All goods", "Kitchen", "Garden", "Rope and twine", "Lamps", "Boots",
        "Second hand", "Delivery", "Your basket (0)", "My account",
    ),
    "forum": (
        "Index", "New posts", "Members", "Search", "Rules", "Register",
        "Log in", "Mark all as read",
    ),
    "mirror": (
        "HOME", "TOP 10", "VIDEO", "VALLEY", "SPORT", "MONEY", "HOROSCOPE",
        "MORE", "LOG IN",
    ),
    "spam": ("Home", "Deals", "Deals 2", "Buy", "Blog", "Links", "Contact"),
    "printer": ("Proofs", "Type", "Paper", "Ink", "Orders", "Staff only"),
    "foreign": ("Ost", "Halm", "Veren", "Lunak", "Sporda", "Kontakt"),
}  # fmt: skip

_COOKIES = (
    "We keep small crumbs on your machine so that we know which page you read "
    "last. You may refuse them, and nothing will happen.",
    "This site uses cookies. By reading on you agree to our crumbs, our "
    "partners' crumbs, and the crumbs of whoever they know.",
    "Cookies help us to show you adverts for things you have bought already.",
    "Before you go on: we value your privacy. Choose which of our 41 partners "
    "may value it too.",
)
_ADVERTS = (
    "Rope, two lengths for the price of one, Saturday only at Weirside Stores.",
    "Is your chimney sulking? Ask Pim. No smoke, no fee, no small talk.",
    "Advertisement: lamps mended while you wait, or while you do not.",
    "Boots resoled before market day. Bring both.",
    "Sponsored: this kettle has changed how the valley boils water.",
    "Ferry passes for the winter half-year are now on sale at the landing.",
    "Wanted: empty jam jars, any size, with lids if you can find them.",
    "Try our new almanac free for one month, then pay for eleven.",
)
_READ_MORE = (
    "Ferry timetable changes from Monday", "Pear harvest early this year",
    "Who left the gate open?", "Bell tower stairs to be swept at last",
    "Ten things you did not know about twine",
    "River level: what the post says",
    "Market stall numbers drawn again", "Letter: the noise from the mill",
    "Honey show: results in full", "A short history of the long wall",
    "New lock for the reading room", "The dog, the drum and the magistrate",
)  # fmt: skip
_FOOTERS = {
    "courier": "© The Valley Courier, printed at Low Bridge every Thursday. "
    "All rights reserved. No part of this page may be wrapped round fish.",
    "parish": "This page was last changed by the clerk and is best viewed "
    "from a chair. You are visitor number {n}.",
    "shop": "Weirside Stores · open from eight until the light goes · prices "
    "include string. Terms of trade apply, such as they are.",
    "forum": "Powered by Bench 2.4 · All times are bell-tower time · "
    "Be kind, or be brief.",
    "mirror": "© valley-news-daily · All content belongs to its owners, "
    "whoever they may be · DMCA · Privacy · Do not sell my crumbs",
    "spam": "Prices may change at any moment. Results not typical. Kettles "
    "shown larger than life.",
    "printer": "Quoin Press. Proof only, not for sale. Return with marks.",
    "foreign": "© Ostrand · halm ved lunak · all veren sporda",
}
_SCRIPTS = (
    "var tip='The ferry is late today, and the bread is later.';"
    "document.getElementById('tip').innerHTML=tip;",
    "window.dataLayer=window.dataLayer||[];function track(a){dataLayer.push(a)}"
    'track({"event":"page","title":"Valley news for people who read"});',
    "if(a<b&&c>d){document.write('<p>Please turn on your scripts to read the "
    "rest of this story about the mill.</p>')}",
    '{"@context":"https://schema.example","@type":"NewsArticle","headline":'
    '"What the river did","articleBody":"It went on as before."}',
    "/* do not touch, Moss knows why */ for(var i=0;i<9;i++){bell.ring(i);}",
)
_STYLE = (
    "body{font:16px/1.5 serif;margin:0}.menu li{display:inline}"
    "#main{max-width:40em}.ad{border:1px solid #ccc}"
)
_COMMENTS = (
    " TODO: ask Wren for the new picture of the weir ",
    " old text, keep: The fair is put off until the field dries. ",
    " begin content ",
    " <p>This paragraph was taken out by the editor.</p> ",
)
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July",
    "August", "September", "October", "November", "December",
)  # fmt: skip
_HANDLES = (
    "otterly", "mill_mouse", "Ferryman2", "quince", "oldalder", "bell_no_3",
    "mossback", "plumjam", "weirwatcher", "halfpenny", "nightpost", "teasel",
)  # fmt: skip
_SIGNATURES = (
    "-- sent from the reading room",
    '-- "Tie it twice."',
    "-- member of the towpath walkers since the flood",
    "-- my other boat is also a boat",
)


_TEASERS = (
    (
        "The clerk counts the swans",
        "There were eleven on Monday and twelve on "
        "Tuesday, and the clerk has asked that nobody feed the difference.",
    ),
    (
        "Bridge toll to stay",
        "The toll will not go up this winter, said the "
        "bridge keeper, because nobody can agree on how to collect it.",
    ),
    (
        "A quiet fair",
        "Nine stalls, two songs and one argument about a goose. "
        "Our reporter stayed until the lamps were lit.",
    ),
    (
        "What the almanac got wrong",
        "It promised frost in the first week. The "
        "beans are still standing, and so is the wager.",
    ),
    ("New oars", "After four years the ferry has a pair that match."),
)
_REPLIES = (
    "I was there and it was not like that at all.",
    "Thank you for this. My aunt has cut it out and pinned it to the door.",
    "First!",
    "Does anybody know if the path is open again? I have asked twice.",
    "You always write about that side of the river and never about ours.",
    "Lovely. Sad about the goose, though.",
)
_PLEAS = (
    "The Courier costs two pence and is worth three. Take it every week and "
    "your neighbours will have to buy their own.",
    "Did you like what you read? Then tell the person next to you. If you did "
    "not, tell us.",
    "To print this page, turn it over first.",
)


# -- texts that are not the valley's -----------------------------------------

_GOODS = (
    "kettle", "lamp", "boots", "rope", "ladder", "stove", "teapot", "blanket",
    "bucket", "lantern", "saddle", "clock",
)  # fmt: skip
_SPAM_LINES = (
    "Buy {a} {b} now, best {a} price, cheap {a} online!",
    "Looking for a {a}? Our {a} is the number one {a} for {a} lovers.",
    "Click here to get your free {b} {a} today!!!",
    "{A} {a} {a} {b} {a}, top {a} review, {a} near me, {a} sale.",
    "Doctors hate this one simple {a}.",
    "You have been chosen to receive a {b} worth 500 pence. Act now!",
    "Save up to 90% on every {a} and {b}. Offer ends tonight!",
    "We compared ten {a} offers so that you do not have to compare a {a}.",
    "Work from home with your {a} and earn 80 pence a day, guaranteed!",
    "100% safe {b}. No questions. Order your {a} before midnight!",
    "A {a} is a {a} that every {b} should have. That is why a good {a} "
    "matters when you want a {a}.",
)
_PANGRAMS = (
    "Jovial foxes whip up quick blazing bowls of thick damson gravy.",
    "Six quick badgers vexed the plump ferryman with jazz in a kazoo.",
    "HAMBURGEVONS hamburgevons 0123456789 .,:;!? HAMBURGEVONS",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "fi fl ff ffi ffl - -- --- () [] {} / \\ | @ # % & * + = < >",
    "nnnonononoo nnHnHnOnO nnaonaonao nnnonononoo",
)
_GERMAN = (
    "Der Fluss ist in der Nacht gestiegen.",
    "Am Morgen lag die Fähre noch am anderen Ufer.",
    "Die Bäckerin öffnet um sechs und schließt, wenn das Brot aus ist.",
    "Niemand weiß, wem der Schlüssel gehört.",
    "Auf dem Markt gab es Birnen, Zwiebeln und sehr viel Regen.",
    "Die Uhr am Turm geht seit Dienstag wieder richtig.",
    "Mein Onkel hat die Leiter verliehen und vergessen, an wen.",
    "Bitte schließen Sie das Tor, die Ziegen sind klüger, als sie aussehen.",
    "Wir haben den ganzen Tag gewartet, und dann kam doch nur der Briefträger.",
    "Der Müller zahlt seine Schulden immer am ersten Montag.",
    "Im Winter fährt hier kein Boot.",
    "Ihre Schwester wohnt hinter der Kirche, gleich neben dem Brunnen.",
    "Für zwei Pfennige bekommt man einen Topf Honig und einen guten Rat.",
    "Am Abend saßen alle auf der Mauer und sahen dem Wasser zu.",
)


@cache
def _ostrish() -> tuple[str, ...]:
    """Four hundred words of Ostrish, a language nobody speaks."""
    chance = Chance("ostrish")
    starts = ("v", "l", "sp", "k", "h", "st", "br", "m", "r", "d", "sk", "")
    vowels = ("a", "e", "o", "u", "ö", "ei", "aa")
    ends = ("n", "lm", "r", "st", "k", "nd", "", "rd", "ss")
    words: dict[str, None] = {}
    while len(words) < 400:
        parts = [
            chance.pick(starts) + chance.pick(vowels) + chance.pick(ends)
            for _ in range(chance.pick((1, 2, 2, 3)))
        ]
        words["".join(parts)] = None
    return tuple(words)


def _ostrish_text(chance: Chance) -> str:
    words = _ostrish()
    paragraphs = []
    for _ in range(chance.number(2, 5)):
        sentences = []
        for _ in range(chance.number(2, 5)):
            # Low ranks come often, as in a real language.
            said = [
                words[int(len(words) ** chance._draw()) - 1]
                for _ in range(chance.number(4, 11))
            ]
            sentences.append(" ".join(said).capitalize() + ".")
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs)


def _german_text(chance: Chance) -> str:
    paragraphs = []
    for _ in range(chance.number(1, 3)):
        first = chance.number(0, len(_GERMAN) - 1)
        step = chance.pick((1, 3, 5, 9, 11, 13))
        count = chance.number(2, 5)
        paragraphs.append(
            " ".join(
                _GERMAN[(first + step * i) % len(_GERMAN)] for i in range(count)
            )
        )
    return "\n\n".join(paragraphs)


def _spam_text(chance: Chance, vocabulary: list[str]) -> str:
    a, b = chance.pick(_GOODS), chance.pick(_GOODS)
    lines = []
    manner = chance.pick(("lines", "list", "shuffle"), (6.0, 2.0, 2.0))
    if manner == "lines":
        for _ in range(chance.number(4, 14)):
            line = chance.pick(_SPAM_LINES)
            lines.append(line.format(a=a, A=a.capitalize(), b=b))
    elif manner == "list":
        for _ in range(chance.number(2, 6)):
            seen = [
                chance.pick(("cheap", "best", "buy", "free", "new", "sale"))
                + " "
                + chance.pick((a, b, a))
                for _ in range(chance.number(6, 16))
            ]
            lines.append(", ".join(seen))
    else:
        # An "article" with the valley's own words in no order, round a link.
        for _ in range(chance.number(3, 6)):
            said = [
                chance.pick(vocabulary) for _ in range(chance.number(9, 22))
            ]
            at = chance.number(1, len(said) - 1)
            said.insert(at, a)
            said.insert(at // 2, "best " + b)
            lines.append(" ".join(said).capitalize() + ".")
    return "\n\n".join(lines)


def _junk_text(chance: Chance) -> str:
    manner = chance.number(0, 4)
    if manner == 0:
        line = chance.pick(_PANGRAMS)
        return "\n".join([line] * chance.number(4, 14))
    if manner == 1:
        start = chance.number(0, len(_PANGRAMS) - 1)
        return "\n".join(
            _PANGRAMS[(start + i) % len(_PANGRAMS)]
            for i in range(chance.number(4, 9))
        )
    if manner == 2:
        letters = "etaoinshrdlu"
        return "\n".join(
            " ".join(
                "".join(
                    chance.pick(letters) for _ in range(chance.number(3, 8))
                )
                for _ in range(8)
            )
            for _ in range(chance.number(3, 7))
        )
    if manner == 3:
        return "\n".join(
            f"2024-{chance.number(1, 12):02d}-{chance.number(1, 28):02d} "
            f"{chance.number(0, 23):02d}:{chance.number(0, 59):02d} press "
            + chance.pick(
                ("INFO sheet {} ok", "WARN ink low on plate {}",
                 "ERROR feed jam tray {} retry", "INFO job {} done")
            ).format(chance.number(1, 999))
            for _ in range(chance.number(6, 18))
        )  # fmt: skip
    return "\n".join(
        " ".join(str(chance.number(0, 9999)) for _ in range(8))
        for _ in range(chance.number(5, 14))
    )


# -- private things, invented ------------------------------------------------

_HOSTS = ("lowbridge.example", "post.valley.example", "weirside.example")
_DECOYS = (
    "The parcel is marked 44{b}-2{a} and tied with green string.",
    "See entry 2024-05-{a} in the river book.",
    "Open 9.{a} to 11.{b}, and again from 2 to 5.",
    "Lot {a} is sold @ {b} pence the pound.",
    "Tickets 12{a} to 13{b} are still with the clerk.",
    "The level stood at 1.2{a} at six and 1.3{b} at noon.",
    "Order 04{a} {b} 12{a} is ready to be fetched.",
    "Lot {a}, number 9{b} in the list, goes to the mill.",
)


@cache
def _names() -> tuple[str, ...]:
    from .facts import CHARACTERS

    return tuple(c.name.split()[0] for c in CHARACTERS)


def _email(chance: Chance, name: str) -> str:
    user = chance.pick(("{n}", "{n}.{k}", "{n}{k}", "the.{n}", "{n}_{k}"))
    user = user.format(n=name.lower(), k=chance.number(2, 99))
    at = chance.pick(("@", " (at) ", " [at] ", " at "), (36.0, 2.0, 2.0, 1.0))
    host = chance.pick(_HOSTS)
    return user + at + (host.replace(".", " dot ") if at == " at " else host)


def _phone(chance: Chance) -> str:
    # 01632 960000 to 960999 are kept free for invented people.
    last = f"{chance.number(0, 999):03d}"
    return chance.pick(
        ("01632 960{}", "01632 960 {}", "(01632) 960{}", "+44 1632 960{}",
         "01632-960-{}")
    ).format(last)  # fmt: skip


def _with_private(chance: Chance, text: str) -> tuple[str, list[dict]]:
    """The text with a line that gives somebody's address or number away."""
    name = chance.pick(_names())
    email, phone = _email(chance, name), _phone(chance)
    line = chance.pick(
        (
            "Write to {e}, or ring {p} before noon.",
            "Letters to {e}, please.",
            "{n} can be reached on {p}.",
            "For a place on the list, ring {n} on {p} or write to {e}.",
            "Ask for {n} ({e}).",
            "Telephone {p}. Let it ring: {n} may be up a ladder.",
        )
    ).format(n=name, e=email, p=phone)
    text = f"{text}\n\n{line}"
    found = []
    for kind, value in (("email", email), ("phone", phone)):
        at = line.find(value)
        if at >= 0:
            start = len(text) - len(line) + at
            found.append(
                {
                    "kind": kind,
                    "value": value,
                    "start": start,
                    "end": start + len(value),
                }
            )
    return text, found


# -- copies ------------------------------------------------------------------

_NUMBER = re.compile(r"\b\d{1,2}\b")
_DAY = re.compile(r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b")
_DAYS = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
    "Sunday",
)  # fmt: skip
_SENTENCE = re.compile(r"(?<=[.!?]) ")


def _edit(chance: Chance, text: str) -> str:
    """One thing changed, as a careless copyist would."""
    manner = chance.number(0, 5)
    if manner == 0:
        found = _DAY.search(text) or _NUMBER.search(text)
        if found:
            new = (
                str(int(found[0]) % 28 + 1)
                if found[0].isdigit()
                else _DAYS[(_DAYS.index(found[0]) + 2) % 7]
            )
            return text[: found.start()] + new + text[found.end() :]
    if manner in (1, 2):
        pieces = _SENTENCE.split(text)
        if len(pieces) > 3:
            at = chance.number(1, len(pieces) - 1)
            if manner == 1 or at == len(pieces) - 1:
                gone = pieces.pop(at)
                # Keep a paragraph's end if the sentence carried one.
                if "\n" in gone and at < len(pieces):
                    pieces[at - 1] += "\n\n" + pieces.pop(at)
            else:
                pieces[at], pieces[at - 1] = pieces[at - 1], pieces[at]
            return " ".join(pieces)
    if manner == 3:
        return text + chance.pick(
            (
                "\n\nCopied with thanks from page {}.",
                "\n\nMore on page {} tomorrow.",
                "\n\nSeen by {} people so far.",
                "\n\nFirst printed on page {} of the Courier.",
            )
        ).format(chance.number(2, 400))
    words = text.split(" ")
    at = chance.number(0, len(words) - 1)
    if manner == 4:
        words[at] = words[at] + chance.pick((" (sic)", " indeed", " again"))
    else:
        words[at] = words[at].replace("rn", "m").replace("e", "c", 1)
    return " ".join(words)


def _near_copy(chance: Chance, text: str) -> str:
    """From one change to many: similarities from almost 1 down to below ½."""
    for _ in range(chance.pick((1, 2, 3, 5, 9), (5.0, 3.0, 2.0, 2.0, 1.0))):
        text = _edit(chance, text)
    return text


# -- markup ------------------------------------------------------------------

_QUOTE = re.compile(r'(^|[\s(\[])"')
_APOSTROPHE = re.compile(r"(?<=\w)'")
_LONG = re.compile(r"\b([a-z]{4,})([a-z]{4,})\b")


def _typeset(text: str) -> str:
    """Curly quotes and proper dots, as a printer sets them."""
    text = _QUOTE.sub("\\1\u201c", text).replace('"', "\u201d")
    text = _APOSTROPHE.sub("\u2019", text).replace("...", "\u2026")
    return text


def _escape(text: str) -> str:
    return _html.escape(text, quote=False)


_BULLET = re.compile(r"^(?:- |\* )")


def _paragraphs(
    text: str, opening: str = "<p>", closing: str = "</p>", lists: bool = True
) -> list[str]:
    """The markup of each paragraph of an (escaped) text."""
    parts = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.split("\n")
        if lists and len(lines) > 1 and all(_BULLET.match(x) for x in lines):
            items = "".join(f"<li>{_BULLET.sub('', x)}</li>\n" for x in lines)
            parts.append(f"<ul>\n{items}</ul>")
        else:
            parts.append(opening + "<br>\n".join(lines) + closing)
    return parts


def _links(
    chance: Chance, host: str, names: tuple[str, ...], tag: str = "li"
) -> str:
    return "".join(
        f'<{tag}><a href="http://{host}/{name.split()[0].lower()}.html">'
        f"{_escape(name)}</a></{tag}>\n"
        for name in names
    )


def _some(chance: Chance, options: tuple[str, ...], count: int) -> list[str]:
    """`count` different options, neighbours on a ring (cheap, and random)."""
    first = chance.number(0, len(options) - 1)
    step = chance.pick((1, 5, 7))
    seen = [options[(first + i * step) % len(options)] for i in range(count)]
    return list(dict.fromkeys(seen))


def _link_words(chance: Chance, markup: str) -> str:
    """Two of the words of a paragraph made into links."""
    words = markup.split(" ")
    for _ in range(2):
        at = chance.number(0, len(words) - 1)
        if words[at].isalpha():
            words[at] = f'<a href="/about/{words[at].lower()}">{words[at]}</a>'
    return " ".join(words)


def _teasers(chance: Chance, name: str) -> str:
    """The beginnings of other articles, as prose and not as links."""
    first = chance.number(0, len(_TEASERS) - 1)
    return "".join(
        f'<div class="{name}"><h4><a href="/story/{first + i}">'
        f"{title}</a></h4>"
        f"<p>{words}</p></div>\n"
        for i in range(chance.number(1, 3))
        for title, words in (_TEASERS[(first + i) % len(_TEASERS)],)
    )


def _replies(chance: Chance, name: str) -> str:
    """What readers wrote under an article."""
    return (
        f'<div class="{name}">'
        + "".join(
            f"<div><b>{chance.pick(_HANDLES)}</b> "
            f"{chance.number(1, 59)} minutes ago"
            f"<p>{chance.pick(_REPLIES)}</p></div>\n"
            for _ in range(chance.number(1, 3))
        )
        + "</div>\n"
    )


def _modern(chance: Chance, site: str, text: str, faults: set) -> str:
    """A page of the present day: semantic elements, or nothing but divs."""
    host, menu = SITES[site], _MENUS[site]
    semantic = site == "courier" and chance.flip(0.7)
    plain = site == "mirror" or chance.flip(0.15)
    nav = _links(chance, host, menu)
    parts = _paragraphs(text)
    if site in ("courier", "mirror") and len(parts) > 1 and chance.flip(0.5):
        faults.add("advert_inside")
        ad = chance.pick(_ADVERTS)
        ad = (
            f'<div class="x7"><a href="//ads.example/?id='
            f'{chance.number(1, 999)}"'
            f">{ad}</a></div>"
            if plain
            else f'<aside class="ad">{ad}</aside>'
            if semantic
            else f'<div class="advert">{ad}</div>'
        )
        parts.insert(chance.number(1, len(parts) - 1), ad)
    if site == "courier" and chance.flip(0.4):
        faults.add("link_inside")
        also = chance.pick(_READ_MORE)
        parts.append(f'<p><a href="/also">Read also: {also}</a></p>')
    if chance.flip(0.15):
        faults.add("words_linked")
        parts[0] = _link_words(chance, parts[0])
    if site in ("courier", "mirror") and chance.flip(0.2):
        faults.add("plea_inside")
        parts.append(f"<p><i>{_escape(chance.pick(_PLEAS))}</i></p>")
    body = "\n".join(parts)
    related = _links(
        chance, host, tuple(_some(chance, _READ_MORE, chance.number(3, 6)))
    )
    if site in ("courier", "mirror") and chance.flip(0.3):
        faults.add("teasers")
        related += _teasers(chance, "x3" if plain else "card")
    replies = ""
    if site in ("courier", "mirror") and chance.flip(0.25):
        faults.add("replies")
        replies = _replies(chance, "y1" if plain else "comments")
    foot = _escape(_FOOTERS[site].format(n=chance.number(100, 99999)))
    date = f"{chance.number(1, 28)} {chance.pick(_MONTHS)}"
    who = chance.pick(_HANDLES)
    if semantic:
        main = (
            f'<main><article>\n<div class="byline">By {who} · {date} · '
            f"3 minutes</div>\n{body}\n</article>"
            f"{replies}</main>\n"
            f'<aside class="related"><h2>Most read</h2><ul>{related}</ul>'
            "</aside>"
        )
        top = (
            f"<header><h1>The Valley Courier</h1><nav><ul>{nav}</ul></nav>"
            "</header>"
        )
        foot = f"<footer><p>{foot}</p></footer>"
    elif plain:
        c = chance.number(1, 99)
        main = (
            f'<div class="c{c}"><div class="c{c + 1}">\n{body}\n</div>\n'
            f'{replies}<div class="c{c + 2}"><ul>{related}</ul></div></div>'
        )
        top = f'<div class="t1"><b>{host}</b><ul>{nav}</ul></div>'
        foot = f'<div class="z{c}"><small>{foot}</small></div>'
    elif site == "shop":
        price = chance.number(2, 90)
        main = (
            f'<div id="content"><div class="product">\n'
            f'<div class="price">{price} pence <button>Add to basket</button>'
            f'</div>\n<div class="description">\n{body}\n</div></div>\n'
            '<table class="spec"><tr><th>Weight</th><td>'
            f"{chance.number(1, 40)} ounces</td></tr><tr><th>In stock</th><td>"
            f"{chance.number(0, 9)}</td></tr></table></div>\n"
            f'<div class="also-bought"><h3>Others also bought</h3><ul>{related}'
            "</ul></div>"
        )
        top = (
            f'<div id="header"><div class="logo">Weirside Stores</div>'
            f'<ul class="menu">{nav}</ul></div>'
        )
        foot = f'<div id="footer">{foot}</div>'
    elif site == "forum":
        main = (
            f'<div class="breadcrumb"><a href="/">Index</a> &raquo; '
            '<a href="/v">'
            f'The valley</a></div>\n<div class="post"><div class="author">{who}'
            f"<br>Posts: {chance.number(1, 4000)}<br>Joined: {date}</div>\n"
            f'<div class="content">\n{body}\n</div>\n<div class="signature">'
            f"{chance.pick(_SIGNATURES)}</div>\n"
            '<div class="buttons"><a href="#q">Quote</a> '
            '<a href="#r">Reply</a> '
            '<a href="#t">Report</a></div></div>'
        )
        top = (
            '<div class="top"><h1>The bench by the ferry</h1>'
            f'<ul class="nav">{nav}</ul></div>'
        )
        foot = f'<div class="footer">{foot}</div>'
    else:
        main = (
            f'<div class="wrap"><div id="main" class="story-body">\n{body}\n'
            f'</div>\n{replies}<div class="sidebar"><h3>Also here</h3>'
            f"<ul>{related}</ul>"
            "</div></div>"
        )
        top = f'<div class="masthead"><ul class="menu">{nav}</ul></div>'
        foot = f'<div class="footer">{foot}</div>'
    return f"{top}\n{main}\n{foot}"


def _old(chance: Chance, site: str, text: str, faults: set) -> str:
    """A page of the old days: tables for layout, capital tags, fonts."""
    faults.add("table_layout")
    cells = "".join(
        f'<TR><TD BGCOLOR="#ddeedd"><A HREF="{name.split()[0].lower()}.htm">'
        f"<FONT SIZE=2>{name}</FONT></A></TD></TR>\n"
        for name in _MENUS[site]
    )
    if chance.flip(0.5):
        faults.add("unclosed_tags")
        body = "\n".join(_paragraphs(text, "<P>", "", lists=False))
    else:
        body = "<BR><BR>\n".join(_paragraphs(text, "", "", lists=False))
    if chance.flip(0.2):
        faults.add("advert_inside")
        body += f"\n<P><CENTER><B>{chance.pick(_ADVERTS)}</B></CENTER>"
    foot = _escape(_FOOTERS[site].format(n=chance.number(100, 99999)))
    if chance.flip(0.3):
        faults.add("unclosed_tags")
        end = ""
    else:
        end = "</FONT></TD></TR></TABLE>"
    return (
        '<TABLE BORDER=0 WIDTH="100%"><TR><TD COLSPAN=2 ALIGN=center>'
        f"<FONT SIZE=5><B>{SITES[site]}</B></FONT></TD></TR>\n"
        f"<TR><TD VALIGN=top WIDTH=120><TABLE>{cells}</TABLE></TD>\n"
        f'<TD VALIGN=top><FONT FACE="Times">\n{body}\n{end}\n'
        f"<HR><CENTER><FONT SIZE=1>{foot}</FONT></CENTER>"
    )


def _around(
    chance: Chance, site: str, body: str, meta: str, faults: set
) -> str:
    """The rest of the page: head, scripts, cookie bar, comments."""
    head = [f"<title>{SITES[site]}</title>", meta, f"<style>{_STYLE}</style>"]
    before, after = [], []
    if chance.flip(0.7):
        faults.add("script")
        (head if chance.flip(0.5) else before).append(
            f"<script>{chance.pick(_SCRIPTS)}</script>"
        )
    if site not in ("parish", "printer") and chance.flip(0.6):
        faults.add("cookie_bar")
        words = _escape(chance.pick(_COOKIES))
        mark = chance.pick(
            ('class="cookie-bar"', 'id="consent"', 'class="q3"',
             'class="overlay" role="dialog"')
        )  # fmt: skip
        bar = (
            f"<div {mark}><p>{words}</p><button>Accept all</button> "
            '<a href="/crumbs">Settings</a></div>'
        )
        (before if chance.flip(0.5) else after).append(bar)
    if chance.flip(0.3):
        faults.add("comment")
        before.append(f"<!--{chance.pick(_COMMENTS)}-->")
    if chance.flip(0.15):
        faults.add("hidden")
        after.append(
            '<div style="display: none">cheap kettle best kettle kettle sale '
            "valley news kettle</div>"
        )
    if chance.flip(0.25):
        after.append(
            "<noscript>This page reads better with scripts, but not much."
            "</noscript>"
        )
    doctype = "" if chance.flip(0.2) else "<!DOCTYPE html>\n"
    if chance.flip(0.85):
        ending = "</body></html>"
    else:
        ending = ""
        faults.add("unclosed_tags")
    return "\n".join(
        [f"{doctype}<html><head>", *head, "</head><body>", *before, body]
        + [*after, ending]
    )


def _encode(
    chance: Chance, site: str, text: str, faults: set
) -> tuple[str, str, str, str]:
    """What the text goes through: (escaped text, codec, meta, header)."""
    shown = text
    if site in ("courier", "mirror", "shop") and chance.flip(0.7):
        shown = _typeset(shown)
    if chance.flip(0.04):
        faults.add("decomposed")
        shown = unicodedata.normalize("NFD", shown)
    foreign = any(ord(c) > 127 for c in shown)
    if foreign and chance.flip(0.45 if site == "mirror" else 0.06):
        # Read as Windows-1252 by somebody, and saved again as UTF-8.
        # (latin-1 carries the five bytes that Windows-1252 leaves out.)
        faults.add("mojibake")
        shown = "".join(_as_1252(byte) for byte in shown.encode("utf-8"))
    if chance.flip(0.08) and _LONG.search(shown):
        faults.add("soft_hyphens")
        shown = _LONG.sub("\\1\u00ad\\2", shown)
    shown = _escape(shown)
    if chance.flip(0.15):
        faults.add("entities")
        shown = (
            shown.replace("\u2019", "&rsquo;")
            .replace("\u201c", "&ldquo;")
            .replace("\u201d", "&#8221;")
            .replace("\u00ad", "&shy;")
            .replace("'", "&#39;")
            .replace(". ", ".&nbsp;", 1)
        )
    codec = says = "utf-8"
    if site == "parish" and chance.flip(0.7):
        codec = says = "windows-1252"
    fault = chance.pick(
        ("none", "meta", "header", "both"), (80.0, 8.0, 8.0, 4.0)
    )
    meta_says = header_says = says
    if fault != "none":
        other = "utf-8" if codec != "utf-8" else "iso-8859-1"
        if fault in ("meta", "both"):
            meta_says = other
        if fault in ("header", "both"):
            header_says = other
        faults.add("wrong_charset")
    meta = chance.pick(
        ('<meta charset="{}">',
         '<meta http-equiv="Content-Type" content="text/html; charset={}">', "")
    ).format(meta_says)  # fmt: skip
    header = f"text/html; charset={header_says}"
    return shown, codec, meta, header


def _as_1252(byte: int) -> str:
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


def _dress(
    chance: Chance, site: str, text: str, faults: set
) -> tuple[bytes, str]:
    """Wrap a text as a page of the site: (bytes, Content-Type header)."""
    shown, codec, meta, header = _encode(chance, site, text, faults)
    old = site in ("parish", "printer") and chance.flip(0.8)
    body = (_old if old else _modern)(chance, site, shown, faults)
    whole = _around(chance, site, body, meta, faults)
    return whole.encode(codec, errors="xmlcharrefreplace"), header


def pages(n: int, seed: int) -> Iterator[Page]:
    """`n` pages of the valley's web, the same for the same seed.

    A copy comes after the page it copies. The texts are training documents, so
    a crawl shares none with the validation and test splits.
    """
    from .documents import documents

    texts = documents(20 * n + 100, seed, "train")
    seen: set[str] = set()
    vocabulary = sorted(
        {w for line in _READ_MORE + _ADVERTS for w in line.split()}
    )
    vocabulary += ["the", "of", "a", "and", "valley", "river", "mill", "bread"]
    recent: deque[dict] = deque(maxlen=400)
    for number in range(n):
        chance = Chance(f"page {seed} {number}")
        site = chance.pick(_ORDER, _SHARES)
        faults: set[str] = set()
        genre = source = similarity = None
        similar: dict[str, float] = {}
        pii: list[dict] = []
        decoys: list[str] = []
        kind = {"spam": "spam", "printer": "junk", "foreign": "foreign"}.get(
            site, "text"
        )
        copying = (
            kind == "text"
            and len(recent) > 5
            and chance.flip(0.9 if site == "mirror" else 0.05)
        )
        if kind == "spam":
            text = _spam_text(chance, vocabulary)
        elif kind == "junk":
            text = _junk_text(chance)
        elif kind == "foreign":
            text = (
                _german_text(chance) if chance.flip(0.4)
                else _ostrish_text(chance)
            )  # fmt: skip
        elif copying:
            source = chance.pick(recent)
            text, genre = source["text"], source["genre"]
            pii, decoys = source["pii"], source["decoys"]
            if chance.flip(0.7):
                text = _near_copy(chance, text)
                pii = _still_there(text, pii)
                decoys = [d for d in decoys if d in text]
        else:
            # A page holds more than one line, and no two pages are the same by
            # accident: every copy in the crawl is a labelled one.
            document = next(texts)
            while len(document.text) < 120 or document.text in seen:
                document = next(texts)
            text, genre = document.text.strip(), document.genre
            seen.add(text)
            if chance.flip(0.18):
                text, pii = _with_private(chance, text)
            elif chance.flip(0.1):
                decoys = [
                    chance.pick(_DECOYS).format(
                        a=chance.number(10, 31), b=chance.number(10, 59)
                    )
                ]
                text = f"{text}\n\n{decoys[0]}"
        url = f"http://{SITES[site]}/{_slug(text)}-{number}.html"
        if source is not None:
            own = shingles(text)
            for earlier, theirs in source["family"]:
                similar[earlier] = round(jaccard(own, theirs), 6)
            similarity = similar[source["url"]]
            source["family"].append((url, own))
            faults.add("exact_copy" if text == source["text"] else "near_copy")
        elif kind == "text":
            recent.append(
                {
                    "url": url,
                    "text": text,
                    "genre": genre,
                    "pii": pii,
                    "decoys": decoys,
                    "family": [(url, shingles(text))],
                }
            )
        page, header = _dress(chance, site, text, faults)
        yield Page(
            url,
            page,
            text,
            {
                "site": site,
                "kind": kind,
                "genre": genre,
                "copy_of": source["url"] if source else None,
                "similarity": similarity,
                "similar": similar,
                "pii": pii,
                "decoys": decoys,
                "header": header,
                "faults": sorted(faults),
            },
        )


def _still_there(text: str, pii: list[dict]) -> list[dict]:
    """The private values that a near-copy still holds, where they now stand."""
    found = []
    for item in pii:
        start = text.find(item["value"])
        if start >= 0:
            end = start + len(item["value"])
            found.append({**item, "start": start, "end": end})
    return found


def _slug(text: str) -> str:
    words = re.findall(r"[a-z]+", text[:60].lower())[:4]
    return "-".join(words) or "page"

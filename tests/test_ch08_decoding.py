"""Chapter 8: forms, guesses, choices, caches and streams, against others."""

import itertools
import json
import math
import random
import re
from unittest import mock

import jsonschema
import llguidance
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ch08 import CLASSIC, small_model
from transformers import generation as g

import llm_utils as lu
from llm_utils import SamplingParams

CORPUS = "Odo and Wren {name: [true, 12], likes: tea} é 渡し船 null 3.5 " * 9


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes, merges over the borders of JSON's signs, and control tokens."""
    signs = [b'"', b": ", b'"}', b'", "', b"[{", b"}]", b'{"', b"tr", b"12"]
    merges = [
        (a[i : i + 1], b) if i == 0 else (a[: i + 1], b)
        for a in signs
        for i, b in enumerate(bytes([x]) for x in a[1:])
    ]
    learned = lu.BPETokenizer.train([CORPUS], 330).merges
    known = {left + right for left, right in learned}
    extra = []
    for left, right in merges:
        if left + right not in known:
            known.add(left + right)
            extra.append((left, right))
    return lu.BPETokenizer(learned + extra, lu.SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def end(tokenizer):
    return tokenizer.special_tokens["<|end|>"]


# -- forms --------------------------------------------------------------------

PATTERNS = [
    "a*b|c",
    "(ab|a)(bc|c)?",
    "[a-c]{2,3}x?",
    "[^a]b",
    "é+|[à-ü]z",
    ".a",
    "(a|)b{0,2}",
    "\\d+(\\.\\d)?",
    "[]a-]+",
    "[^\\d\\n]",
    "(a*)*b",
    "(|a)+",
    "\\u00e9\\x62?",
    "(?:a|b)(c|1)*\\]",
    "[\\w-]{3}",
    "\\W|\\S\\s",
]


def table_of(pattern):
    return lu.StateTable(lu.ByteAutomaton({"": lu.parse_regex(pattern)}))


def fits(table, data):
    state = table.read(data)
    return state is not None and table.complete(state)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_automaton_accepts_what_re_accepts(pattern):
    table = table_of(pattern)
    for n in range(4):
        for letters in itertools.product("abcxzé1.\n]- ", repeat=n):
            text = "".join(letters)
            wanted = bool(re.fullmatch(pattern, text, re.ASCII))
            assert fits(table, text.encode()) == wanted, text


@settings(max_examples=100, deadline=None)
@given(
    pattern=st.recursive(
        st.sampled_from(["a", "b", "[ab]", "[^a]", ".", "é", ""]),
        lambda part: st.one_of(
            st.tuples(part, part).map("".join),
            st.tuples(part, part).map(lambda p: f"({p[0]}|{p[1]})"),
            st.tuples(
                part, st.sampled_from(["*", "+", "?", "{2}", "{1,}"])
            ).map(lambda p: f"({p[0]}){p[1]}"),
        ),
        max_leaves=8,
    ),
    text=st.text("abcé", max_size=6),
)
def test_random_patterns(pattern, text):
    wanted = bool(re.fullmatch(pattern, text))
    assert fits(table_of(pattern), text.encode()) == wanted


@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, 0x10FFFF), width=st.integers(0, 70_000))
def test_ranges_of_characters_become_ranges_of_bytes(first, width):
    last = min(first + width, 0x10FFFF)
    ways = list(lu.utf8_ranges(first, last))
    spelled = [
        bytes(text).decode()
        for way in ways
        for text in itertools.product(*(range(a, b + 1) for a, b in way))
    ]
    wanted = {
        chr(c) for c in range(first, last + 1) if not 0xD800 <= c <= 0xDFFF
    }
    assert len(spelled) == len(set(spelled)) and set(spelled) == wanted
    assert len(ways) < 40


@pytest.mark.parametrize(
    "pattern, why",
    [
        ("^a", "leave out"),
        ("a$", "leave out"),
        ("a*?", "two repeats"),
        ("a**", "two repeats"),
        ("*a", "nothing to repeat"),
        ("(a", "never closed"),
        ("a)", "closes nothing"),
        ("[a", "too soon"),
        ("a\\", "too soon"),
        ("(?=a)b", "only"),
        ("(?i)b", "only"),
        ("(a)\\1", "not supported"),
        ("\\ba", "not supported"),
        ("a{2", "too soon"),
        ("a{x}", "numbers"),
        ("a{3,2}", "less than the least"),
        ("[z-a]", "later one"),
        ("[a-\\d]", "later one"),
        ("\\u00g0", "hexadecimal"),
        ("(a{1000}){1000}", "repeat less"),
        ("[^\\d\\D]", "no text has this form"),
    ],
)
def test_what_is_no_pattern_is_refused(pattern, why):
    with pytest.raises(ValueError, match=why):
        table_of(pattern)


# -- the tokens of a form -----------------------------------------------------

TREE = {
    "type": "object",
    "properties": {
        "v": {"type": "number"},
        "k": {"type": "array", "items": {"$ref": "#/$defs/t"}},
    },
    "required": ["v"],
    "additionalProperties": False,
}
SCHEMAS = [
    {"type": "string"},
    {"type": "number"},
    {},
    {"type": "string", "pattern": '^[^a-y]{1,3}"?$'},
    {"type": "string", "pattern": "x[0-9]"},
    {"type": "string", "minLength": 1, "maxLength": 3},
    {
        "type": "object",
        "properties": {
            "na me": {"type": "string"},
            "age": {"type": "integer"},
            "tags": {
                "type": "array",
                "items": {"enum": ["a", "bé", None, 3, [1, {"x": 2}]]},
                "minItems": 1,
                "maxItems": 3,
            },
            "x": {"$ref": "#/$defs/t"},
            "any": {},
        },
        "required": ["age"],
        "additionalProperties": False,
        "$defs": {"t": TREE},
    },
    {
        "type": ["integer", "null", "boolean", "array"],
        "items": {"const": 'x"y'},
    },
    {
        "anyOf": [
            {"type": "integer"},
            {
                "type": "object",
                "properties": {
                    "a": {"type": "null"},
                    "b": {"type": "boolean"},
                    "c": {"type": "integer"},
                },
                "required": ["c"],
                "additionalProperties": False,
            },
        ]
    },
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "array", "minItems": 2, "items": {"type": "boolean"}},
    {"type": "array", "maxItems": 0},
    {"type": "array", "items": False},
]
FORMS = [
    *(("regex", p) for p in ("-?[0-9]+(\\.[0-9]{1,2})?", '[^"]{2,9}')),
    ("regex", "(Odo|Wren|é+)( and (Odo|Wren))*\\."),
    ("regex", "[A-Z][a-z]+( [a-z]+){0,5}[.!?]"),
    ("regex", ".*"),
    ("regex", "\\u00e9[а-яё渡]{0,4}x?"),
    *(("json", schema) for schema in SCHEMAS),
]


def grammar_of(form, tokenizer, end, room=None):
    kind, what = form
    make = {"regex": lu.regex_grammar, "json": lu.json_grammar}[kind]
    return make(what, tokenizer, end, room)


def drawn(mask, dice, end, hold_out):
    """A random allowed id; with hold_out the end comes only if it must."""
    z = 3 * torch.randn(len(mask), generator=dice)
    z[end] -= 9 * hold_out
    z[~mask] = -math.inf
    return int(torch.multinomial(z.softmax(-1), 1, generator=dice))


def reference(tokenizer, end):
    """llguidance's view of a tokenizer, without shortcuts."""

    class Ours:
        eos_token_id, bos_token_id, tokens = end, None, tokenizer.token_bytes
        special_token_ids = list(tokenizer.special_tokens.values())

        def __call__(self, text):
            return tokenizer.encode(text)

    return llguidance.LLTokenizer(
        llguidance.TokenizerWrapper(Ours()), slices=[]
    )


@pytest.mark.parametrize("form", FORMS, ids=[str(f[1])[:40] for f in FORMS])
def test_the_same_tokens_are_allowed_as_by_llguidance(form, tokenizer, end):
    kind, what = form
    if kind == "regex":
        theirs = llguidance.LLMatcher.grammar_from_regex(what)
    else:
        theirs = llguidance.LLMatcher.grammar_from_json_schema(
            what,
            overrides={
                "whitespace_flexible": False,
                "item_separator": ", ",
                "key_separator": ": ",
            },
        )
    grammar, known = grammar_of(form, tokenizer, end), reference(tokenizer, end)
    dice = torch.Generator().manual_seed(1)
    for trial in range(8):
        matcher, new = llguidance.LLMatcher(known, theirs), []
        assert not matcher.is_error(), matcher.get_error()
        for _ in range(20):
            mask = grammar(new)
            if matcher.is_stopped():  # then it speaks of the end alone
                assert mask.nonzero().flatten().tolist() == [end]
                break
            # asked one by one: its mask prefers the usual cut into tokens
            wanted = [
                matcher.validate_tokens([i]) == 1 for i in range(len(mask))
            ]
            assert mask.tolist() == wanted, tokenizer.decode_bytes(new)
            token = drawn(mask, dice, end, hold_out=trial % 2)
            if token == end:
                break
            new.append(token)
            assert matcher.consume_token(token)


@pytest.mark.parametrize("form", FORMS, ids=[str(f[1])[:40] for f in FORMS])
@pytest.mark.parametrize("room", [40, 9])
def test_every_answer_is_complete_and_right(form, room, tokenizer, end):
    """200 of them, from a random model at temperature 2; nothing else."""
    kind, what = form
    grammar = grammar_of(form, tokenizer, end)
    shortest = grammar.table.distance(0) + 1
    if room < shortest:
        with pytest.raises(ValueError, match="too few"):
            grammar_of(form, tokenizer, end, room)
        return
    grammar, dice = grammar_of(form, tokenizer, end, room), random.Random(0)
    # as a model's logits, with favourites that would never end
    draw = torch.Generator().manual_seed(2)
    logits = 8 * torch.randn(50, tokenizer.vocab_size, generator=draw)
    params = SamplingParams(temperature=2.0, allowed=grammar)
    many = room == 40 and form in (FORMS[3], FORMS[12])
    for _ in range(200 if many else 40):
        new = []
        while not new or new[-1] != end:
            row = logits[dice.randrange(50)]
            p = lu.process_logits(row, params, new=new).softmax(-1)
            mask = grammar(new)
            assert p[~mask].sum() == 0 and mask.any()
            complete = fits(grammar.table, tokenizer.decode_bytes(new))
            assert bool(mask[end]) == complete
            new.append(int(torch.multinomial(p, 1, generator=draw)))
        assert len(new) <= room
        text = tokenizer.decode_bytes(new[:-1]).decode()  # whole characters
        if kind == "regex":
            assert re.fullmatch(what, text)
        else:
            jsonschema.validate(json.loads(text), what)


def test_every_state_of_a_form_has_a_way_to_the_end():
    """All states are made, and from each the end is as far as it says."""
    made = lu.JsonRules(SCHEMAS[6] | {"$defs": {"t": {"type": "null"}}})
    made.rules["anything"] = lu.parse_regex("null|true")  # so it is finite
    table = lu.StateTable(lu.ByteAutomaton(made.rules, made.start))
    state = 0
    while state < len(table.states):
        row = table.row(state)
        if table.complete(state):
            assert table.distance(state) == 0
        else:
            near = min(table.distance(to) for to in row.values())
            assert table.distance(state) == near + 1 < math.inf
        state += 1
    assert state > 100


def test_a_form_that_is_kept_gives_one_mask_for_a_state(tokenizer, end):
    grammar = lu.regex_grammar("(ab)*", tokenizer, end)
    with mock.patch.object(grammar, "_walk", wraps=grammar._walk) as walk:
        ids = tokenizer.encode("abababab")
        bytes_of = {tokenizer.token_bytes[i]: i for i in range(256)}
        ids = [bytes_of[b"a"], bytes_of[b"b"]]
        for n in range(5):
            grammar(ids * n)
        assert {c.args[1] for c in walk.call_args_list} <= {0, 1, 2}
        before = walk.call_count
        grammar(ids * 7)
        assert walk.call_count == before
    with pytest.raises(ValueError, match="not the form"):
        grammar([bytes_of[b"b"]])


def test_a_tokenizer_without_some_byte_is_refused(tokenizer, end):
    few = mock.Mock(
        special_tokens={}, token_bytes=tokenizer.token_bytes[1:], vocab_size=9
    )
    with pytest.raises(ValueError, match="every byte"):
        lu.regex_grammar("a", few, 3)


def test_a_grammar_speaks_through_stream_and_engine(tokenizer, end):
    model = small_model(vocab_size=tokenizer.vocab_size)
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    }
    talk = [{"role": "user", "content": "?"}]
    params = [
        SamplingParams(
            temperature=2.0,
            seed=seed,
            max_new_tokens=40,
            allowed=lu.json_grammar(schema, tokenizer, end, 40),
        )
        for seed in range(3)
    ]
    alone = ["".join(lu.stream(model, tokenizer, talk, p)) for p in params]
    engine = lu.Engine(model, tokenizer, max_batch=3)
    asked = [engine.submit(talk, p) for p in params]
    while engine.step():
        pass
    assert [r.text.text for r in asked] == alone
    for text in alone:
        assert set(json.loads(text)) == {"a", "b"}


@pytest.mark.parametrize(
    "schema, why",
    [
        ({"type": "integer", "minimum": 3}, "minimum"),
        ({"type": "string", "format": "date"}, "format"),
        ({"type": "object", "patternProperties": {}}, "patternProperties"),
        ({"oneOf": [{"type": "null"}]}, "has the type None"),
        ({"properties": {}}, "has the type None"),
        ({"type": "date"}, "has the type"),
        ({"type": "array", "items": [{}]}, "#/items is not a schema"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "less than"),
        ({"type": "array", "minItems": -1}, "from 0 up"),
        ({"type": "string", "maxLength": True}, "from 0 up"),
        ({"type": "string", "pattern": "a", "minLength": 2}, "length"),
        ({"type": "string", "pattern": "^a|b$"}, "group"),
        ({"type": "object", "required": ["x"]}, "requires 'x'"),
        ({"$ref": "#/$defs/no"}, "leads nowhere"),
        ({"$ref": "other.json"}, "leads nowhere"),
        ({"$ref": "#"}, "no text has this form"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "calls itself"),
        (
            {
                "type": "object",
                "properties": {"next": {"$ref": "#"}},
                "required": ["next"],
            },
            "no text has this form",
        ),
        (False, "no text has this form"),
        ("string", "is not a schema"),
        ({"const": math.nan}, "Out of range"),
    ],
)
def test_a_schema_that_is_not_understood_is_refused(
    schema, why, tokenizer, end
):
    with pytest.raises(ValueError, match=why):
        lu.json_grammar(schema, tokenizer, end)


def test_separators_and_constants_are_those_of_json_dumps(tokenizer, end):
    value = {"a": [1, 2.5, None, True, 'q"é\n\x01'], "b": {}}
    for separators in (", ", ": "), (",", ":"):
        grammar = lu.json_grammar(
            {"const": value}, tokenizer, end, separators=separators
        )
        text = json.dumps(value, ensure_ascii=False, separators=separators)
        assert fits(grammar.table, text.encode())
        assert grammar.table.distance(0) == len(text.encode())
    with pytest.raises(ValueError, match="needs|too few"):
        lu.json_grammar({"const": value}, tokenizer, end, max_new_tokens=9)
    typed = lu.json_grammar(
        {"enum": [1, True, "1", None], "type": ["integer", "null"]},
        tokenizer,
        end,
    )
    for text, wanted in ("1", 1), ("null", 1), ("true", 0), ('"1"', 0):
        assert fits(typed.table, text.encode()) == wanted


def test_a_mask_and_a_list_of_ids_say_the_same():
    logits = torch.randn(9, generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 0]).bool()
    for temperature in 0.0, 0.7:
        by_mask, by_list, by_set = (
            lu.process_logits(
                logits,
                SamplingParams(temperature, allowed=lambda new, way=way: way),
            )
            for way in (mask, [1, 4, 5], {1, 4, 5})
        )
        assert torch.equal(by_mask, by_list) and torch.equal(by_set, by_list)
    with pytest.raises(ValueError, match="allows no token"):
        lu.process_logits(
            logits, SamplingParams(allowed=lambda new: mask & False)
        )


# -- choosing, to the bit -----------------------------------------------------


def processed_by_transformers(logits, params, seen):
    """What the processors of transformers make of logits (V,)."""
    steps, keep = [], params.min_tokens_to_keep
    if params.logit_bias:
        steps.append(
            g.SequenceBiasLogitsProcessor(
                {(i,): bias for i, bias in params.logit_bias.items()}
            )
        )
    if params.repetition_penalty != 1 and seen:
        steps.append(
            g.RepetitionPenaltyLogitsProcessor(params.repetition_penalty)
        )
    if params.allowed is not None:
        steps.append(
            g.PrefixConstrainedLogitsProcessor(
                lambda row, ids: sorted(params.allowed([])), 1
            )
        )
    steps.append(g.TemperatureLogitsWarper(params.temperature))
    if params.top_k is not None:
        steps.append(g.TopKLogitsWarper(params.top_k, min_tokens_to_keep=keep))
    if params.top_p < 1:
        steps.append(g.TopPLogitsWarper(params.top_p, min_tokens_to_keep=keep))
    if params.min_p > 0:
        steps.append(g.MinPLogitsWarper(params.min_p, min_tokens_to_keep=keep))
    z, ids = logits[None].clone(), torch.tensor([seen], dtype=torch.long)
    for step in steps:
        z = step(ids, z)
    return z[0]


def odd_logits(dice, V):
    """Logits with ties, rows of one value, and some at −inf."""
    z = torch.tensor([dice.gauss(0, 4) for _ in range(V)])
    kind = dice.randrange(5)
    if kind == 1:
        z = z.round()
    elif kind == 2:
        z = z.sign()
    elif kind == 3:
        z = torch.zeros(V)
    if dice.random() < 0.3:
        z[dice.sample(range(V), V // 2)] = -math.inf
    return z


@pytest.mark.parametrize("seed", range(10))
def test_choosing_is_that_of_transformers_to_the_bit(seed):
    """A hundred settings each, with every step present or absent."""
    dice = random.Random(seed)
    for _ in range(100):
        V = dice.choice([1, 2, 17, 60, 1000])
        some = [i for i in range(V) if dice.random() < 0.5] or [0]
        params = SamplingParams(
            temperature=dice.choice([1.0, 0.01, 99.0, dice.uniform(0.1, 3)]),
            top_k=dice.choice([None, 1, V, V + 5, dice.randint(1, V)]),
            top_p=dice.choice([1.0, 1e-6, 0.5, 0.999999, dice.random() or 1]),
            min_p=dice.choice([0.0, 1.0, 0.1, dice.random()]),
            repetition_penalty=dice.choice([1.0, 1.3, 0.7]),
            logit_bias={
                dice.randrange(V): dice.choice([-100.0, 0.1, dice.gauss(0, 3)])
                for _ in range(dice.randrange(4))
            },
            allowed=dice.choice([None, lambda new, some=some: some]),
            min_tokens_to_keep=dice.choice([1, 1, 2, 5]),
        )
        if params.min_tokens_to_keep > V:
            continue  # its top-k has no such case
        seen = [dice.randrange(V) for _ in range(dice.randrange(9))]
        logits = odd_logits(dice, V)
        ours = lu.process_logits(logits, params, seen)
        theirs = processed_by_transformers(logits, params, seen)
        assert torch.equal(ours, theirs), params
        assert ours.max() > -math.inf or logits.max() == -math.inf


def test_the_model_writes_what_transformers_samples(tokenizer):
    """The same chances at each step of a text, and the same draws by seed."""
    model = small_model(vocab_size=64)
    params = SamplingParams(0.9, 20, 0.9, 0.01, 1.2, seed=3)
    seen, dice = [1, 2, 3], torch.Generator().manual_seed(3)
    theirs = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(30):
            logits = model(torch.tensor([seen]))[0][0, -1]
            p = processed_by_transformers(logits, params, seen).softmax(-1)
            wanted = int(torch.multinomial(p, 1, generator=theirs))
            got = lu.choose_token(logits, params, seen, generator=dice)
            assert got == wanted
            seen.append(got)
    assert len(set(seen)) > 8


def test_a_floor_for_the_cuts_is_kept():
    z = torch.tensor([5.0, 4.0, 0.0, -1.0])
    for cut in {"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}:
        for keep in 1, 2, 3:
            params = SamplingParams(1.0, **cut, min_tokens_to_keep=keep)
            kept = lu.process_logits(z, params) > -math.inf
            assert kept.tolist() == [i < keep for i in range(4)]
    with pytest.raises(ValueError, match="min_tokens_to_keep"):
        SamplingParams(min_tokens_to_keep=0)


# -- guessing -----------------------------------------------------------------


def pair(V=8, context=16):
    """A model and a guesser who do not agree."""
    shape = dict(vocab_size=V, context_length=context, n_layer=1, n_head=2)
    return [small_model(s, n_kv_head=2, d_model=32, **shape) for s in (1, 2)]


def chi_squared(counts, chances):
    """The p-value of counts under chances; cells below five are pooled."""
    wanted = chances * counts.sum()
    rare = wanted < 5
    parts = [[z[~rare], z[rare].sum()[None]] for z in (counts, wanted)]
    counts, wanted = (torch.cat(p) if rare.any() else p[0] for p in parts)
    value = ((counts - wanted) ** 2 / wanted.clamp_min(1e-9)).sum() / 2
    half = torch.tensor((len(counts) - 1) / 2, dtype=torch.double)
    return float(torch.special.gammaincc(half, value))


def from_p(p, guess, q=None, generator=None):
    """The mistake: after a refusal, a draw from p itself."""
    q = torch.eye(len(p))[guess] if q is None else q
    if torch.rand((), generator=generator) * q[guess] < p[guess]:
        return guess, True
    return int(torch.multinomial(p, 1, generator=generator)), False


@torch.no_grad()
def chances_of_texts(model, prompt, params):
    """The chance of each text of two ids after a prompt, (64,)."""
    texts = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    rows = torch.cat((prompt.expand(64, -1), texts), dim=1)
    logits = model(rows)[0][:, len(prompt) - 1 : -1]
    chances = torch.ones(64, dtype=torch.double)
    for i, text in enumerate(texts.tolist()):
        for j, token in enumerate(text):
            seen = [*prompt.tolist(), *text[:j]]
            z = lu.process_logits(logits[i, j], params, seen)
            chances[i] *= float(z.softmax(-1)[token])
    return chances


@pytest.mark.parametrize("draft", ["model", "lookup"])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(1.0),
        pytest.param(
            SamplingParams(1.5, top_k=5, repetition_penalty=1.5),
            marks=pytest.mark.full,
        ),
    ],
    ids=["plain", "cut"],
)
def test_guessing_leaves_the_distribution_as_it_is(draft, params):
    """Texts of two ids by the chi-squared test; a wrong residual fails it."""
    model, small = pair()
    # a prompt where about half of the guesses hold: with none or all of them
    # the mistake would do no harm
    rows = torch.cartesian_prod(*[torch.arange(8)] * 3)[:, [0, 1, 2, 0, 1]]
    with torch.no_grad():
        p, q = (
            torch.stack(
                [
                    lu.process_logits(z, params, row.tolist()).softmax(-1)
                    for z, row in zip(m(rows)[0][:, -1], rows)
                ]
            )
            for m in (model, small)
        )
    copied = (p.gather(1, rows[:, 2:3])[:, 0] - 0.5).abs()
    alike = (torch.minimum(p, q).sum(1) - 0.5).abs()
    prompt = rows[int((alike if draft == "model" else copied).argmin())]
    chances = chances_of_texts(model, prompt, params)

    def p_value(rule, n):
        dice = torch.Generator().manual_seed(5)
        guesser = lu.DraftModel(small, params, dice)
        guesser = guesser if draft == "model" else lu.prompt_lookup
        counts = torch.zeros(64, dtype=torch.double)
        with mock.patch.object(lu, "keep_or_replace", rule):
            for _ in range(n):
                text = lu.speculative_generate(
                    model, prompt, 2, guesser, 2, params=params, generator=dice
                )
                a, b = text[-2:].tolist()
                counts[8 * a + b] += 1
        return chi_squared(counts, chances)

    assert p_value(lu.keep_or_replace, 700) > 1e-3
    assert p_value(from_p, 700) < 1e-5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), V=st.integers(2, 9), sure=st.booleans())
def test_one_guess_adds_up_to_the_models_chances(seed, V, sure):
    """Exactly: every guess and the whole coin, not some draws."""
    dice = torch.Generator().manual_seed(seed)
    p, q = (
        (2 * torch.randn(V, generator=dice)).softmax(-1).double()
        for _ in range(2)
    )
    p[0] = 0 if seed % 3 == 0 else p[0]
    p = p / p.sum()
    q = torch.eye(V, dtype=torch.double)[seed % V] if sure else q
    total = torch.zeros(V, dtype=torch.double)
    for guess in range(V):
        if q[guess] == 0:
            continue
        bar = min(1.0, float(p[guess] / q[guess]))
        for coin, share in (bar - 1e-9, bar), (bar + 1e-9, 1 - bar):
            if not 0 <= coin < 1:
                continue
            with (
                mock.patch(
                    "torch.rand",
                    return_value=torch.tensor(coin, dtype=torch.double),
                ),
                mock.patch("torch.multinomial", return_value=0) as drawn_,
            ):
                _, held = lu.keep_or_replace(p, guess, None if sure else q)
            if held:
                total[guess] += q[guess] * share
            else:
                rest = drawn_.call_args.args[0]
                total += q[guess] * share * rest / rest.sum()
    assert torch.allclose(total, p, atol=1e-7)


def test_a_small_model_guesses_and_no_greedy_token_changes():
    for seed in range(2):
        model = small_model(seed, vocab_size=64)
        ids = torch.tensor([3, 4, 5, 6, 3, 4, 5])
        whole = lu.generate(model, ids, 200)
        for other in small_model(seed + 9, vocab_size=64, n_layer=1), model:
            for k in 1, 5:
                counts, draft = {}, lu.DraftModel(other)
                got = lu.speculative_generate(
                    model, ids, 200, draft, k, counts=counts
                )
                assert torch.equal(got, whole)
                if other is model:
                    assert counts["accepted"] == counts["guessed"] > 0
        bent = SamplingParams(repetition_penalty=1.4, logit_bias={5: 2.0})
        plain = lu.speculative_generate(
            model, ids, 60, lambda ids, k: [], params=bent
        )
        guessed = lu.speculative_generate(
            model, ids, 60, lu.DraftModel(model, bent), params=bent
        )
        assert torch.equal(plain, guessed)


def test_the_guessers_cache_is_that_of_the_text():
    """After refusals, another text, and at the context's edge."""
    _, small = pair(V=64, context=24)
    draft, dice = lu.DraftModel(small), random.Random(0)
    ids = [1, 2, 3]
    for _ in range(25):
        guess = draft(ids, 4)
        room = small.config.context_length + 1 - len(ids)
        if room < 1:
            assert guess == []
        else:
            wanted = lu.generate(small, torch.tensor(ids), min(4, room))
            assert guess[0] == wanted[len(ids) :].tolist()
            assert guess[1].shape == (min(4, room), 64)
        ids = ids[: dice.randint(1, len(ids))]
        ids += [dice.randrange(64) for _ in range(dice.randint(0, 6))]


def test_as_many_guesses_hold_as_the_chances_say():
    """First guesses are kept with 1 − TV, the distance of the two."""
    model, small = pair(V=8, context=400)
    params, dice = SamplingParams(1.0), torch.Generator().manual_seed(1)
    counts, ids = {}, torch.tensor([1])
    text = lu.speculative_generate(
        model,
        ids,
        390,
        lu.DraftModel(small, params, dice),
        1,
        params=params,
        generator=dice,
        counts=counts,
    )
    with torch.no_grad():
        p, q = (m(text[None, :-1])[0][0].softmax(-1) for m in (model, small))
    alpha = float(torch.minimum(p, q).sum(1).mean())
    measured = counts["accepted"] / counts["guessed"]
    assert 0.1 < alpha < 0.9
    assert abs(measured - alpha) < 4 * math.sqrt(0.25 / counts["guessed"])
    assert counts["steps"] == pytest.approx(390 / (1 + alpha), rel=0.15)


def test_a_form_and_a_seed_hold_while_guessing(tokenizer, end):
    model = small_model(vocab_size=tokenizer.vocab_size)
    small = small_model(4, vocab_size=tokenizer.vocab_size, n_layer=1)
    grammar = lu.regex_grammar("(yes|no)(, (yes|no))*", tokenizer, end, 40)
    texts = []
    for seed in (0, 1, 2, 2):
        dice = torch.Generator().manual_seed(seed)
        params = SamplingParams(2.0, allowed=grammar)
        ids = lu.speculative_generate(
            model,
            torch.tensor([5, 6, 7]),
            40,
            lu.DraftModel(small, params, dice),
            stop=(end,),
            params=params,
            generator=dice,
        ).tolist()
        assert ids[-1] == end and end not in ids[:-1]
        texts.append(tokenizer.decode(ids[3:-1]))
        assert re.fullmatch("(yes|no)(, (yes|no))*", texts[-1])
    assert texts[2] == texts[3] and len(set(texts)) > 1


# -- the cache ----------------------------------------------------------------

CACHES = {
    "grouped": {},
    "one key": dict(n_kv_head=1),
    "all keys": dict(n_kv_head=4),
    "window": dict(window=7),
    "classic": CLASSIC,
}


@pytest.mark.parametrize("shape", CACHES)
@pytest.mark.parametrize("seed", range(2))
@torch.no_grad()
def test_a_cache_changes_no_logit_however_the_text_is_cut(shape, seed):
    """Up to the context's edge, in pieces of any size, at every place."""
    model, dice = small_model(seed, **CACHES[shape]), random.Random(seed)
    ids = torch.tensor([[dice.randrange(261) for _ in range(96)] for _ in "ab"])
    whole, _ = model(ids)
    cache, at = model.new_cache(), 0
    while at < 96:
        n = min(dice.choice([1, 1, 2, 5, 17, 40]), 96 - at)
        logits, _ = model(ids[:, at : at + n], cache=cache)
        assert torch.allclose(logits, whole[:, at : at + n], atol=2e-4)
        at += n
        if dice.random() < 0.3 and at > 5:  # taken back, and read once more
            back = dice.randint(1, 5)
            for layer in cache:
                layer.trim(at - back)
            at -= back
    with pytest.raises(ValueError, match="96"):
        model(ids[:, :1], cache=cache)


@pytest.mark.parametrize("shape", CACHES)
@torch.no_grad()
def test_rows_of_different_lengths_padded_on_the_left(shape):
    """Read in pieces and then by ones, each row as if it were alone."""
    model, dice = small_model(3, **CACHES[shape]), random.Random(4)
    lengths = [1, 9, 23, 14]
    rows = [[dice.randrange(261) for _ in range(n + 12)] for n in lengths]
    S = max(lengths)
    pad = torch.tensor([S - n for n in lengths])
    batch = torch.zeros(4, S + 12, dtype=torch.long)
    for i, row in enumerate(rows):
        batch[i, S - lengths[i] :] = torch.tensor(row)
    cache, at = model.new_cache(), 0
    for n in (11, 12, *[1] * 12):
        logits = model(batch[:, at : at + n], cache=cache, left_pad=pad)[0]
        at += n
        for i, row in enumerate(rows):
            if at > pad[i]:
                alone = model(torch.tensor([row[: at - pad[i]]]))[0][0, -1]
                assert torch.allclose(logits[i, -1], alone, atol=2e-4)


@pytest.mark.parametrize("shape", CACHES)
@torch.no_grad()
def test_padding_on_the_right_changes_nothing_before_it(shape):
    """What is read may be padded on the right: no row looks that way.

    A text that is gone on with may not, for its next token would have to
    stand where the padding stands: so the cache is trimmed first.
    """
    model, dice = small_model(5, **CACHES[shape]), random.Random(6)
    rows = [[dice.randrange(261) for _ in range(n)] for n in (3, 20, 11)]
    batch = torch.zeros(3, 20, dtype=torch.long)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = torch.tensor(row)
    logits = model(batch)[0]
    for i, row in enumerate(rows):
        alone = model(torch.tensor([row]))[0][0]
        assert torch.allclose(logits[i, : len(row)], alone, atol=2e-4)
        cache = model.new_cache()
        model(batch[i : i + 1], cache=cache)
        for layer in cache:
            layer.trim(len(row))
        more = model(torch.tensor([[7]]), cache=cache)[0][0, -1]
        alone = model(torch.tensor([[*row, 7]]))[0][0, -1]
        assert torch.allclose(more, alone, atol=2e-4)


@pytest.mark.parametrize("shape", CACHES)
def test_a_batch_of_any_lengths_says_what_each_says_alone(shape):
    model, dice = small_model(7, **CACHES[shape]), random.Random(8)
    prompts = [
        [dice.randrange(261) for _ in range(n)] for n in (1, 30, 5, 80, 95, 96)
    ]
    together = lu.generate_batch(model, prompts, 20)
    for prompt, said in zip(prompts, together):
        alone = lu.generate(model, torch.tensor(prompt), 20, use_cache=False)
        # a batch ends where its longest row meets the context's edge
        assert said and alone[len(prompt) :].tolist()[: len(said)] == said


@pytest.mark.parametrize("shape", CACHES)
def test_the_memory_of_a_cache_is_foretold(shape):
    model = small_model(0, **CACHES[shape])
    c, cache = model.config, model.new_cache()
    with torch.no_grad():
        model(torch.zeros(1, 80, dtype=torch.long), cache=cache)
    held = sum(layer.kept.nbytes for layer in cache)
    assert held == lu.cache_bytes(c, 80) == 80 * lu.cache_bytes(c)
    assert held == 2 * 2 * c.n_kv_head * 16 * 80 * 4
    assert lu.cache_bytes(c, 80, width=2) * 2 == held


# -- streams ------------------------------------------------------------------


def cut_up(data, cuts):
    """data in pieces of the given sizes, then of three bytes."""
    pieces = []
    for size in [*cuts, *[3] * len(data)]:
        pieces, data = [*pieces, data[:size]], data[size:]
    return [piece for piece in pieces if piece]


def streamed(pieces, stop):
    """(text, stopped, pieces that came) of a stream over byte strings."""
    holder = mock.Mock(decode_bytes=lambda ids: pieces[ids[0]])
    out = lu.TextStream(holder, stop)
    sent = [out.push(i) for i in range(len(pieces))]
    sent.append(out.finish())
    assert "".join(sent) == out.text
    return out.text, out.stopped, sent


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=30),
    few=st.text("abé🦦", max_size=30),
    stop=st.lists(st.text("abé🦦", min_size=1, max_size=5), max_size=3),
    cuts=st.lists(st.integers(1, 9), max_size=40),
    others=st.lists(st.integers(1, 9), max_size=40),
)
def test_a_stream_does_not_depend_on_the_cut_into_tokens(
    text, few, stop, cuts, others
):
    """All at once, in any pieces: the same text, and whole characters."""
    text = few + text + few
    data = text.encode()
    once = streamed([data], stop)
    for sizes in cuts, others, [1] * len(data):
        sent = streamed(cut_up(data, sizes), stop)
        assert sent[:2] == once[:2]
        for piece in sent[2]:
            assert "\ufffd" in text or "\ufffd" not in piece
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    assert once[0] == (text[: min(ends)[1]] if ends else text)
    assert once[1] == bool(ends)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=30),
    cuts=st.lists(st.integers(1, 5), max_size=30),
)
def test_bytes_that_are_no_text_stream_as_they_decode(data, cuts):
    assert streamed(cut_up(data, cuts), ())[0] == data.decode(
        "utf-8", "replace"
    )


def test_the_first_stop_to_be_complete_ends_the_text():
    for pieces in [b"xabcd"], [b"x", b"ab", b"cd"], [b"xabc", b"d"]:
        assert streamed(pieces, ("abcd", "bc"))[:2] == ("xa", True)
    for pieces in [b"xabc"], [b"xa", b"bc"], [b"xab", b"c"]:
        assert streamed(pieces, ("bc", "abc"))[:2] == ("x", True)


@pytest.mark.parametrize("seed", range(2))
def test_stops_and_seeds_stream_as_they_are_answered(seed, tokenizer):
    """stream, piece by piece, and the engine, at once: with stops."""
    model = small_model(seed, vocab_size=tokenizer.vocab_size)
    talk = [{"role": "user", "content": "ferry"}]
    free = SamplingParams(1.0, seed=seed, max_new_tokens=30)
    text = "".join(lu.stream(model, tokenizer, talk, free))
    for at in range(2, len(text) - 3, 9):
        stop = (text[at : at + 3], text[at + 1 : at + 2] + "never")
        params = SamplingParams(1.0, seed=seed, max_new_tokens=30, stop=stop)
        pieces = list(lu.stream(model, tokenizer, talk, params))
        assert "".join(pieces) == text[: text.find(stop[0])]
        engine = lu.Engine(model, tokenizer)
        assert engine.answer([talk], params) == ["".join(pieces)]

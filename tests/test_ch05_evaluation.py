"""Chapter 5's evaluation: perplexity, knowledge in bits, and the harness."""

import json
import math
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import llm_utils as lu
from pocket_world import FACTS, cloze, documents, statement

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "artifacts" / "pocket" / "base"


@pytest.fixture(scope="module", autouse=True)
def no_network():
    """Nothing here may ask another machine for anything."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
            patch.setenv(name, "1")
        yield


@pytest.fixture(scope="module")
def tokenizer():
    texts = [d.text for d in documents(150, seed=5, split="train")]
    return lu.BPETokenizer.train(texts, 600, pattern=lu.DIGIT_PATTERN)


def make_model(tokenizer, **changes):
    """A small model whose every parameter is random and far from its start."""
    shape = {
        "vocab_size": tokenizer.vocab_size,
        "context_length": 96,
        "n_layer": 2,
        "n_head": 2,
        "n_kv_head": 1,
        "d_model": 32,
        "d_ff": 48,
        "qk_norm": True,
        **changes,
    }
    model = lu.GPT(lu.ModelConfig(**shape))
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.uniform_(0.5, 1.5, generator=draw)
            else:
                p.normal_(0, 0.3, generator=draw)
    return model.eval()


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(tokenizer)


def reference(model, tokenizer, folder, batch_size=4):
    """The harness's own model over the exported weights."""
    from lm_eval.models.huggingface import HFLM

    lu.to_transformers(model, tokenizer, folder)
    return HFLM(
        str(folder), device="cpu", dtype="float32", batch_size=batch_size
    )


@pytest.fixture(scope="module")
def hflm(model, tokenizer, tmp_path_factory):
    return reference(model, tokenizer, tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture(scope="module")
def ours(model, tokenizer):
    return lu.harness_lm(model, tokenizer)


def ask(lm, kind, *arguments):
    from lm_eval.api.instance import Instance

    return getattr(lm, kind)(
        [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]
    )


def same_answers(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        # sums of up to some hundred float32 terms, in another order
        assert a[0] == pytest.approx(b[0], abs=1e-4, rel=1e-6)
        assert a[1] is b[1]


def same_results(first, second):
    """Every metric, and every example's, from two models' run_tasks."""
    assert first.keys() == second.keys()
    for name, told in first.items():
        other = second[name]
        assert told.keys() == other.keys() and told["n"] == other["n"]
        for metric, values in told["samples"].items():
            np.testing.assert_allclose(
                values, other["samples"][metric], atol=1e-4, rtol=1e-6
            )
        for metric in set(told) - {"n", "samples"}:
            assert told[metric] == pytest.approx(other[metric], rel=1e-4)


def requests_of(tasks):
    """(context, continuation) of all that these tasks ask."""
    for task in tasks:
        task.build_all_requests(limit=None, rank=0, world_size=1)
    return [i.args for task in tasks for i in task.instances]


def test_adapter_is_a_model_of_the_harness(ours):
    from lm_eval.api.model import LM

    assert isinstance(ours, LM)


def test_loglikelihood_is_the_harness_own(ours, hflm):
    text = "Hob lives at Low Bridge. The ferry is late, says Wren. "
    pairs = [
        ("", "Hob lives at Low Bridge."),
        ("", "<|endoftext|>Hob lives at"),
        ("Hob lives at", " Low Bridge"),
        ("Hob lives at ", "Low Bridge"),
        ("Hob lives at  \n", "Low Bridge"),
        ("Hob lives a", "t Low Bridge"),  # a word broken in two
        ("<|endoftext|>Hob", " lives"),
        (text * 20, "At last."),  # longer than the context
        ("Hob", " " + (text * 3)[:150]),
        ("Zwölf Käse", " für Ñandú 猫"),
        ("Hob lives at", " "),
    ]
    same_answers(
        ask(ours, "loglikelihood", *pairs), ask(hflm, "loglikelihood", *pairs)
    )


def test_a_continuation_that_is_likeliest_is_called_greedy(
    model, tokenizer, ours, hflm
):
    """Random models guess nothing: here the model's own words are asked."""
    pairs = []
    for text in ("Hob lives at", "The ferry", "One morning"):
        ids = tokenizer.encode(text)
        new = lu.generate(model, torch.tensor(ids), 6)[len(ids) :].tolist()
        pairs.append((ids, new))
    found = lu.continuation_logprobs(model, pairs)
    assert all(greedy for _, greedy in found)
    spoiled = [(a, [*b[:-1], (b[-1] + 1) % 300]) for a, b in pairs]
    found = lu.continuation_logprobs(model, spoiled)
    assert not any(greedy for _, greedy in found)
    same_answers(
        found,
        hflm._loglikelihood_tokens(
            [(("", ""), a, b) for a, b in spoiled], disable_tqdm=True
        ),
    )


def test_continuation_logprobs_is_the_plain_sum(model, tokenizer):
    """Any batch gives what each pair gives alone, token by token."""
    draw = random.Random(0)
    pairs = [
        [[draw.randrange(600) for _ in range(draw.randint(1, n))] for n in nm]
        for nm in [(60, 9), (3, 30), (90, 90), (1, 1), (200, 5)] * 3
    ]
    for size in (1, 500, 10**6):
        found = lu.continuation_logprobs(model, pairs, size)
        for (context, rest), (logp, greedy) in zip(pairs, found):
            ids = torch.tensor([(context + rest)[-97:]])
            with torch.no_grad():
                logits = model(ids[:, :-1])[0][0, -len(rest) :]
            logs = logits.log_softmax(-1)
            right = ids[0, -len(rest) :]
            expected = logs[range(len(rest)), right].sum().item()
            assert logp == pytest.approx(expected, abs=1e-3)
            assert greedy == bool((logs.argmax(-1) == right).all())


def test_the_model_stays_in_the_mode_it_was_in(model):
    model.train()
    lu.continuation_logprobs(model, [([1], [2])])
    assert model.training
    model.eval()


@pytest.mark.parametrize("n", [0, 1, 95, 96, 97, 98, 193, 300])
def test_windows_are_the_harness_own(n):
    from lm_eval import utils

    theirs = utils.get_rolling_token_windows(list(range(n)), -1, 96, 1)
    theirs = [utils.make_disjoint_window(w) for w in theirs]
    assert lu.rolling_windows(list(range(n)), -1, 96) == theirs


def test_whole_texts_cost_what_the_harness_says(ours, hflm):
    texts = [(d.text * k,) for k in (1, 4) for d in documents(6, 9, "test")]
    texts.append(("",))
    np.testing.assert_allclose(
        ask(ours, "loglikelihood_rolling", *texts),
        ask(hflm, "loglikelihood_rolling", *texts),
        atol=1e-4,
        rtol=1e-6,
    )


def test_generation_is_the_harness_own(ours, hflm):
    long = "Hob lives at Low Bridge. " * 30
    asked = [
        (context, options)
        for context in ("Hob", "The ferry is late today", long, "On Sunday")
        for options in (
            {"max_gen_toks": 24, "until": ["."]},
            {"max_new_tokens": 12, "do_sample": False},
            {"max_gen_toks": 30, "until": ["e", "a", "\n"]},
        )
    ]
    found = ask(ours, "generate_until", *asked)
    assert found == ask(hflm, "generate_until", *asked)
    assert len(set(found)) > 5  # and not all of them empty


def test_a_draw_is_repeatable_and_a_stop_text_is_cut(ours):
    bold = {"max_gen_toks": 40, "temperature": 1.0, "do_sample": True}
    once, again = (ask(ours, "generate_until", ("Hob", bold)) for _ in "ab")
    greedy = ask(ours, "generate_until", ("Hob", {"max_gen_toks": 40}))
    assert once == again != greedy
    stop = once[0][5:7]
    cut = ask(ours, "generate_until", ("Hob", {**bold, "until": stop}))
    assert cut == [once[0].split(stop)[0]]


@pytest.mark.parametrize(
    "kind, arguments, says",
    [
        ("loglikelihood", ("Hob", ""), "no token"),
        ("loglikelihood", ("", ""), "no token"),
        ("loglikelihood", ("  ", "Hob"), "no token"),
        ("loglikelihood", ("Hob", " x" * 200), "longer than the model"),
        ("generate_until", ("Hob", {"max_gen_toks": 96}), "max_gen_toks"),
        ("generate_until", ("Hob", {}), "256 new tokens"),
        ("generate_until", ("Hob", {"num_beams": 4}), "num_beams"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(
    ours, hflm, kind, arguments, says
):
    with pytest.raises(ValueError, match=says):
        ask(ours, kind, arguments)
    if "num_beams" not in says:  # that the harness hands on
        with pytest.raises((AssertionError, IndexError)):
            ask(hflm, kind, arguments)


def test_another_tokenizer_is_refused(model):
    other = lu.BPETokenizer.train(["Hob lives at Low Bridge."], 270)
    with pytest.raises(ValueError, match="270 ids and the model 600"):
        lu.harness_lm(model, other)


@pytest.fixture(scope="module")
def valley_rows():
    held = [
        {"text": d.text, "genre": d.genre} for d in documents(150, 31, "test")
    ]
    words = [
        {k: row[k] for k in ("context", "continuation")}
        for row in lu.cloze_tasks(held)
    ]
    return {"facts": lu.fact_choices()[::12], "words": words[::3]}


def tasks_of(rows, before=""):
    return [lu.local_task(name, r, before) for name, r in rows.items()]


def test_the_valleys_tasks_score_as_in_the_harness(ours, hflm, valley_rows):
    for before in ("", "<|endoftext|>"):
        tasks = tasks_of(valley_rows, before)
        first = lu.run_tasks(ours, tasks)
        same_results(first, lu.run_tasks(hflm, tasks_of(valley_rows, before)))
    facts = valley_rows["facts"]
    assert first["facts"]["n"] == len(facts) == 95
    pairs = requests_of(tasks_of({"facts": facts[:3]}))
    assert pairs[0] == (facts[0]["context"], " " + facts[0]["choices"][0])
    pairs = requests_of(tasks_of({"words": valley_rows["words"][:1]}))
    assert pairs[0][1] == " " + valley_rows["words"][0]["continuation"]


def test_a_task_without_rows_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        lu.local_task("nothing", [])


def test_facts_have_one_right_choice_and_believable_wrong_ones():
    rows, again = lu.fact_choices(), lu.fact_choices()
    assert rows == again != lu.fact_choices(seed=1) and len(rows) == len(FACTS)
    objects = {}
    for fact in FACTS:
        objects.setdefault(fact.relation, set()).add(fact.object)
    for fact, row in zip(FACTS, rows):
        assert row["choices"][row["gold"]] == fact.object
        assert row["context"] == cloze(fact)[0]
        assert len(set(row["choices"])) == min(4, len(objects[fact.relation]))
        assert set(row["choices"]) <= objects[fact.relation]
    golds = np.bincount([row["gold"] for row in rows])
    assert golds.min() > 0.2 * len(rows)  # the place gives nothing away
    asked = lu.fact_choices(ask=statement, facts=FACTS[:5])
    assert [row["context"] for row in asked] == [
        statement(f) for f in FACTS[:5]
    ]


def test_words_of_the_cloze_follow_from_the_text():
    held = [
        {"text": d.text, "genre": d.genre} for d in documents(900, 7, "test")
    ]
    rows, counts = lu.cloze_tasks(held), {}
    texts = [row["text"] for row in held]
    for row in rows:
        counts[row["kind"]] = counts.get(row["kind"], 0) + 1
        joined = f"{row['context']} {row['continuation']}"
        assert any(text.startswith(joined) for text in texts)
        if row["kind"] == "a sum":
            sum_ = row["context"].rpartition("So ")[2].removesuffix(" =")
            first, sign, second = sum_.split()
            value = int(first) + (1 if sign == "+" else -1) * int(second)
            assert row["continuation"] == str(value)
        if row["kind"] == "a sorted list":
            line = row["context"].rpartition("\n")[2]
            listed = line.replace("So ", ": ").rpartition(": ")[2]
            items = [*listed.rstrip(",").split(", "), row["continuation"]]
            assert items == sorted(items, key=str.lower)
        if row["kind"] == "a verb's -ing form":
            assert row["continuation"].endswith("ing")
    assert set(counts) == set(lu.CLOZES) and min(counts.values()) >= 10


@pytest.mark.parametrize("name", lu.BENCHMARKS)
def test_benchmark_files_are_read_as_they_are(name, tmp_path):
    import lzma

    file, *fields = lu.BENCHMARKS[name]
    lines = [
        dict(zip(fields, (f"Question: {i}?\n", ["a", "b"], i % 2)))
        if len(fields) == 3
        else dict(zip(fields, (f"text {i}", "word")))
        for i in range(9)
    ]
    opened = lzma.open if file.endswith("xz") else open
    with opened(tmp_path / file, "wt") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)
    rows = lu.benchmark_rows(name, tmp_path)
    assert len(rows) == 9
    if fields[0] == "query":
        assert rows[3]["context"] == "Question: 3?\nAnswer:"
    if len(fields) == 3:
        assert rows[3]["choices"] == ["a", "b"] and rows[3]["gold"] == 1
    else:
        assert rows[3] == {"context": "text 3", "continuation": "word"}
    some = lu.benchmark_rows(name, tmp_path, 4)
    assert len(some) == 4 and all(row in rows for row in some)
    with pytest.raises(FileNotFoundError, match=file):
        lu.benchmark_rows(name, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="hellaswag"):
        lu.benchmark_rows("mmlu", tmp_path)


def test_files_of_the_four_formats_score_as_in_the_harness(
    ours, hflm, valley_rows, tmp_path
):
    """The valley's questions in the files of HellaSwag and the others."""
    import lzma

    for file, *fields in lu.BENCHMARKS.values():
        kind, parts = (
            ("facts", ("context", "choices", "gold"))
            if len(fields) == 3
            else ("words", ("context", "continuation"))
        )
        opened = lzma.open if file.endswith("xz") else open
        with opened(tmp_path / file, "wt", encoding="utf-8") as out:
            for row in valley_rows[kind][:24]:
                line = dict(zip(fields, (row[part] for part in parts)))
                out.write(json.dumps(line) + "\n")
    rows = {name: lu.benchmark_rows(name, tmp_path) for name in lu.BENCHMARKS}
    assert all(12 <= len(read) <= 24 for read in rows.values())
    same_results(
        lu.run_tasks(ours, tasks_of(rows)), lu.run_tasks(hflm, tasks_of(rows))
    )


@pytest.mark.full
@pytest.mark.parametrize("which", ["random", "trained"])
def test_real_benchmarks_score_as_in_the_harness(
    which, tokenizer, real_data, tmp_path
):
    """Some fifty examples of each, every number and every log-likelihood."""
    if which == "trained":
        if not BASE.exists():
            pytest.skip("artifacts/pocket/base is missing: run `make ch05`")
        model = lu.load_model(BASE)[0]
        tokenizer = lu.BPETokenizer.load(BASE)
    else:
        model = make_model(tokenizer, context_length=256)
    ours = lu.harness_lm(model, tokenizer)
    theirs = reference(model, tokenizer, tmp_path / "model", batch_size=16)
    read = partial(lu.benchmark_rows, folder=real_data / "eval", limit=50)
    rows = {name: read(name) for name in lu.BENCHMARKS}
    assert all(len(r) == 50 for r in rows.values())
    same_results(
        lu.run_tasks(ours, tasks_of(rows)), lu.run_tasks(theirs, tasks_of(rows))
    )
    pairs = requests_of(tasks_of({n: r[:20] for n, r in rows.items()}))
    same_answers(
        ask(ours, "loglikelihood", *pairs),
        ask(theirs, "loglikelihood", *pairs),
    )


def test_perplexity_is_the_exponential_of_the_loss(model, tokenizer, tmp_path):
    texts = [d.text for d in documents(20, 3, "test")]
    lu.write_shards(texts, tokenizer, tmp_path, "validation")
    data = lu.TokenDataset(tmp_path, "validation", 96, tokenizer)
    told = lu.evaluate(model, data)
    assert told["perplexity"] == pytest.approx(math.exp(told["loss"]))


class Oracle(torch.nn.Module):
    """Knows each fact with probability p, else only how often objects are."""

    def __init__(self, tokenizer, facts, p):
        super().__init__()
        self.config = lu.ModelConfig(
            vocab_size=tokenizer.vocab_size, context_length=96
        )
        self.weight = torch.nn.Parameter(torch.zeros(10))
        self.endings = {}
        for fact in facts:
            pool = [f.object for f in facts if f.relation == fact.relation]
            prefix, answer = cloze(fact)
            start = (tokenizer.end_of_text, *tokenizer.encode(prefix))
            self.endings[start] = [
                (
                    tokenizer.encode(" " + o),
                    p * (o == fact.object)
                    + (1 - p) * pool.count(o) / len(pool),
                )
                for o in dict.fromkeys(pool)
            ]

    def forward(self, ids, hidden=False):
        """What it would say is its state, and its head adds nothing."""
        logits = torch.full((*ids.shape, self.config.vocab_size), -1e4)
        for r, row in enumerate(ids.tolist()):
            start = next(s for s in self.endings if tuple(row[: len(s)]) == s)
            for t in range(len(start), len(row) + 1):
                said, chances = row[len(start) : t], {}
                for ending, chance in self.endings[start]:
                    if ending[: len(said)] == said and len(ending) > len(said):
                        token = ending[len(said)]
                        chances[token] = chances.get(token, 0) + chance
                total = sum(chances.values())
                for token, chance in chances.items():
                    logits[r, t - 1, token] = math.log(chance / total + 1e-30)
        return logits if hidden else (logits, None)

    def logits(self, x):
        return x


@pytest.mark.parametrize("p, share", [(1.0, 1.0), (0.0, 0.0)])
def test_one_who_knows_all_has_all_the_bits(tokenizer, p, share):
    """And one who only knows how often each answer is right has none."""
    facts = [f for f in FACTS if f.relation in ("home", "opens")]
    # no answer that begins another, so that each ends where it is told
    oracle = Oracle(tokenizer, facts, p)
    told = lu.knowledge_bits(oracle, tokenizer, facts)
    assert told["known"] == pytest.approx(share * told["there"], abs=0.01)
    assert told["per_parameter"] == pytest.approx(told["known"] / 10)
    homes = [f.object for f in facts if f.relation == "home"]
    there = -sum(math.log2(homes.count(o) / len(homes)) for o in homes)
    known, there_told, n = told["by_relation"]["home"]
    assert there_told == pytest.approx(there) and n == len(homes)
    assert known == pytest.approx(share * there, abs=0.01)


def test_a_random_model_knows_less_than_nothing(model, tokenizer):
    """It bets on wrong answers, and pays for each."""
    told = lu.knowledge_bits(model, tokenizer)
    assert told["known"] < 0 < told["there"]
    assert told["there"] == pytest.approx(
        sum(v[1] for v in told["by_relation"].values())
    )
    assert sum(v[2] for v in told["by_relation"].values()) == len(FACTS)

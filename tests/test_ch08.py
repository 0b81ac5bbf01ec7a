"""Chapter 8: choosing tokens, streams, the engine, the server, the exports."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import httpx
import numpy as np
import pytest
import torch
import uvicorn
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import generation as g

import llm_utils
from llm_utils import (
    DIGIT_PATTERN,
    GPT,
    GPT2_PATTERN,
    REPORT_LINES,
    SPECIAL_TOKENS,
    BlockPool,
    BPETokenizer,
    Busy,
    ChatFormat,
    Engine,
    FastLinear,
    ModelConfig,
    PagedCache,
    QuantizedLinear,
    SamplingParams,
    TextStream,
    chat_in_terminal,
    choose_token,
    create_app,
    export_gguf,
    export_transformers,
    generate,
    model_bytes,
    one_of,
    pack_bits,
    parse_messages,
    parse_params,
    print_report,
    process_logits,
    prompt_lookup,
    quantize,
    report_aim,
    report_card,
    report_number,
    report_rows,
    save_model,
    speculative_generate,
    stream,
    unpack_bits,
)

SERVE = ROOT / "ch08_inference" / "serve.py"
PAGE = ROOT / "ch08_inference" / "chat.html"
SHAPE = dict(
    vocab_size=261,
    context_length=96,
    n_layer=2,
    n_head=4,
    n_kv_head=2,
    d_model=64,
    d_ff=96,
    init_std=0.3,
)


CLASSIC = dict(
    norm="layernorm",
    position="learned",
    bias=True,
    qk_norm=False,
    activation="gelu_tanh",
    n_kv_head=4,
    norm_eps=1e-5,
)


def random_model(shape, seed=0):
    """A GPT every parameter of which is random, norms and biases too."""
    model = GPT(ModelConfig(**shape))
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.copy_(torch.rand(p.shape, generator=dice) + 0.5)
                if name.endswith("bias"):
                    p.sub_(1.0)
            else:
                p.copy_(0.3 * torch.randn(p.shape, generator=dice))
    return model.eval()


def small_model(seed=0, **changes):
    """A random model of this file's shape, with changes."""
    return random_model({**SHAPE, **changes}, seed)


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer([], SPECIAL_TOKENS, DIGIT_PATTERN)


@pytest.fixture(scope="module")
def model():
    return small_model()


def user(text):
    return [{"role": "user", "content": text}]


# -- choosing -----------------------------------------------------------------


def random_logits(seed, size=60):
    return 3 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=150)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(1, 70),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    penalty=st.floats(0.3, 3),
    seen=st.lists(st.integers(0, 59), max_size=8),
)
def test_processing_equals_transformers(
    seed, temperature, top_k, top_p, min_p, penalty, seen
):
    logits = random_logits(seed)
    params = SamplingParams(temperature, top_k, top_p, min_p, penalty)
    ours = process_logits(logits, params, seen)
    theirs = logits[None].clone()
    steps = [
        g.TemperatureLogitsWarper(temperature),
        g.TopKLogitsWarper(top_k),
        g.TopPLogitsWarper(top_p),
        g.MinPLogitsWarper(min_p),
    ]
    if seen:
        steps.insert(0, g.RepetitionPenaltyLogitsProcessor(penalty))
    for step in steps:
        theirs = step(torch.tensor([seen], dtype=torch.long), theirs)
    # a token whose chance is the bar to the last bit may fall on either side
    odd = ours.isinf() != theirs[0].isinf()
    assert odd.sum() <= 1
    kept = ~ours.isinf() & ~theirs[0].isinf()
    assert torch.allclose(ours[kept], theirs[0][kept], rtol=1e-5)
    assert kept.any()


def test_temperature_zero_is_the_likeliest_and_never_nan():
    for seed in range(20):
        logits = random_logits(seed)
        z = process_logits(logits, SamplingParams())
        assert z.softmax(-1)[logits.argmax()] == 1
        assert choose_token(logits, SamplingParams()) == int(logits.argmax())
    cut = SamplingParams(top_k=3, top_p=0.1, min_p=0.9)
    assert choose_token(logits, cut) == int(logits.argmax())


def test_bias_penalty_and_grammar_hold_when_greedy_too():
    logits = torch.tensor([3.0, 2.0, 1.0, -1.0])
    assert choose_token(logits, SamplingParams(logit_bias={2: 5.0})) == 2
    halved = SamplingParams(repetition_penalty=2.0)
    assert choose_token(logits, halved, seen=[0]) == 1
    assert choose_token(logits, halved, seen=[0, 0, 0]) == 1  # once, not thrice
    only = SamplingParams(allowed=lambda new: [3])
    assert choose_token(logits, only) == 3
    with pytest.raises(ValueError, match="the grammar allows no token"):
        choose_token(logits, SamplingParams(allowed=lambda new: []))


def test_drawing_follows_the_chances():
    logits = torch.tensor([0.0, 1.0, 2.0, -math.inf])
    dice = torch.Generator().manual_seed(0)
    params = SamplingParams(temperature=1.0)
    drawn = [choose_token(logits, params, generator=dice) for _ in range(4000)]
    share = np.bincount(drawn, minlength=4) / 4000
    assert np.allclose(share, logits.softmax(-1), atol=0.03) and share[3] == 0


@pytest.mark.parametrize(
    "name, value",
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("max_new_tokens", 0),
        ("stop", ("",)),
    ],
)
def test_settings_without_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        SamplingParams(**{name: value})


# -- streams ------------------------------------------------------------------


@settings(max_examples=200)
@given(text=st.text(max_size=40), cuts=st.lists(st.integers(1, 5), max_size=99))
def test_a_stream_holds_whole_characters_only(text, cuts):
    data, tokens = text.encode(), []
    for size in [*cuts, *[3] * len(data)]:
        tokens, data = [*tokens, data[:size]], data[size:]
    holder = type("T", (), {"decode_bytes": lambda self, i: tokens[i[0]]})()
    out = TextStream(holder)
    pieces = [out.push(i) for i in range(len(tokens))]
    assert "".join([*pieces, out.finish()]) == text == out.text
    for piece in pieces:
        piece.encode()
        assert "\ufffd" in text or "\ufffd" not in piece


@settings(max_examples=200)
@given(
    text=st.text("abé", max_size=30),
    stop=st.text("abé", min_size=1, max_size=4),
)
def test_nothing_of_a_stop_text_is_sent(tokenizer, text, stop):
    out = TextStream(tokenizer, (stop,))
    sent = "".join(out.push(i) for i in tokenizer.encode(text)) + out.finish()
    assert sent == text.split(stop)[0]
    assert out.stopped == (stop in text)


def test_half_a_character_at_the_end_is_marked(tokenizer):
    out = TextStream(tokenizer)
    ids = tokenizer.encode("a🦦")[:-1]
    assert "".join(out.push(i) for i in ids) == "a"
    assert out.finish() == "\ufffd"


def test_streamed_is_what_generate_says(model, tokenizer):
    chat = ChatFormat(tokenizer)
    for asked in "Hello", "ferry" * 9, "é🦦":
        ids = torch.tensor(chat.encode(user(asked), True))
        whole = generate(model, ids, 30, stop=(chat.end, chat.pad))[len(ids) :]
        text = "".join(
            stream(
                model, tokenizer, user(asked), SamplingParams(max_new_tokens=30)
            )
        )
        whole = [i for i in whole.tolist() if i not in (chat.end, chat.pad)]
        assert text == tokenizer.decode(whole)


def test_streams_respect_seed_room_and_context(model, tokenizer):
    hot = SamplingParams(temperature=2.0, seed=4, max_new_tokens=30)
    one, two = (
        "".join(stream(model, tokenizer, user("a"), hot)) for _ in range(2)
    )
    other = SamplingParams(temperature=2.0, seed=5, max_new_tokens=30)
    assert one == two != "".join(stream(model, tokenizer, user("a"), other))
    with pytest.raises(ValueError, match="leaves no room in a context of 96"):
        list(stream(model, tokenizer, user("x" * 93)))
    forbid = {i: -1e9 for i in tokenizer.special_tokens.values()}
    full = list(
        stream(
            model,
            tokenizer,
            user("x" * 60),
            SamplingParams(max_new_tokens=500, logit_bias=forbid),
        )
    )
    assert len(full) == 96 - 63 + 1  # and the rest, held back


def test_a_grammar_lets_nothing_else_be_said(model, tokenizer):
    end = tokenizer.special_tokens["<|end|>"]
    for seed in range(10):
        params = SamplingParams(
            temperature=3.0,
            seed=seed,
            allowed=one_of(tokenizer, ["yes", "yesterday", "no"], end),
        )
        said = "".join(stream(model, tokenizer, user("?"), params))
        assert said in ("yes", "yesterday", "no")


# -- speculation --------------------------------------------------------------

drafts = {
    "lookup": prompt_lookup,
    "wrong": lambda ids, k: [7] * k,
    "nothing": lambda ids, k: [],
    "one": lambda ids, k: prompt_lookup(ids, 1),
}


@pytest.mark.parametrize("draft", drafts)
@pytest.mark.parametrize("seed", range(3))
def test_guessing_changes_no_token(draft, seed):
    model = small_model(seed)
    ids = torch.tensor([3, 4, 5, 6, 3, 4, 5])
    whole = generate(model, ids, 200)
    for n in 1, 2, 17, 200:
        got = speculative_generate(model, ids, n, drafts[draft], k=5)
        assert torch.equal(got, whole[: len(ids) + n])
    end = int(whole[25])
    assert torch.equal(
        speculative_generate(model, ids, 200, drafts[draft], stop=(end,)),
        generate(model, ids, 200, stop=(end,)),
    )


def test_a_perfect_guesser_saves_steps(model):
    ids = torch.tensor([1, 2, 3])
    whole = generate(model, ids, 60).tolist()
    counts = {}
    text = speculative_generate(
        model,
        ids,
        60,
        lambda seen, k: whole[len(seen) : len(seen) + k],
        k=9,
        counts=counts,
    )
    assert text.tolist() == whole
    assert counts == {"steps": 6, "guessed": 54, "accepted": 54}
    with pytest.raises(ValueError, match="prompt is empty"):
        speculative_generate(model, ids[:0], 5)


def test_prompt_lookup_finds_the_last_place():
    assert prompt_lookup([1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 2) == [8, 1]
    assert prompt_lookup([1, 2, 3], 2) == [] == prompt_lookup([], 2)
    assert prompt_lookup([5, 5], 4) == [5]


# -- the engine ---------------------------------------------------------------


def test_a_paged_cache_computes_what_a_plain_one_does(model):
    pool = BlockPool(model.config, 9, block_size=4)
    blocks = [[7, 2, 9], [1, 8, 3]]
    ids = torch.tensor([[0, 0, 11, 12, 13], [21, 22, 23, 24, 25]])
    lengths = [3, 5]
    for step in range(4):
        S, T = max(lengths), ids.shape[1]
        slots = torch.zeros(2, S, dtype=torch.long)
        for row in 0, 1:
            slots[row, S - lengths[row] :] = torch.tensor(
                pool.slots(blocks[row], lengths[row])
            )
        pad = S - torch.tensor(lengths)
        with torch.no_grad():
            cache = [
                PagedCache(kept, slots, slots[:, -T:]) for kept in pool.kept
            ]
            logits = model(ids, cache=cache, left_pad=pad)[0][:, -1]
            if step == 0:
                rows = [ids[0, 2:].tolist(), ids[1].tolist()]
            for row in 0, 1:
                alone = model(torch.tensor([rows[row]]))[0][0, -1]
                assert torch.allclose(logits[row], alone, atol=1e-4)
        ids = torch.tensor([[31 + step], [41 + step]])
        rows = [rows[0] + [31 + step], rows[1] + [41 + step]]
        lengths = [n + 1 for n in lengths]


def alone(model, tokenizer, text, params):
    return "".join(stream(model, tokenizer, user(text), params))


@pytest.mark.parametrize(
    "batch, size, blocks",
    [(1, 16, None), (3, 5, None), (8, 1, None), (8, 4, 30)],
)
def test_company_changes_no_answer(model, tokenizer, batch, size, blocks):
    engine = Engine(model, tokenizer, batch, blocks, size)
    texts = ["ferry" * (i % 5) + str(i) for i in range(14)]
    params = [
        SamplingParams(
            max_new_tokens=5 + 3 * (i % 6), temperature=(i % 3) * 0.7, seed=i
        )
        for i in range(14)
    ]
    asked = []
    for text, wish in zip(texts, params):
        asked.append(engine.submit(user(text), wish))
        engine.step()
        assert len(engine.running) <= batch
        used = {b for r in engine.running for b in r.blocks}
        assert len(used) + len(engine.pool.free) == engine.blocks
    while engine.step():
        assert all(len({0, *r.blocks}) > len(r.blocks) for r in engine.running)
    for text, wish, request in zip(texts, params, asked):
        assert request.text.text == alone(model, tokenizer, text, wish)
        assert request.finish in ("stop", "length")
    assert sorted(engine.pool.free) == list(range(1, engine.blocks + 1))


def test_first_come_first_served_even_if_the_first_is_large(model, tokenizer):
    engine = Engine(model, tokenizer, 4, n_blocks=8, block_size=16)
    forbid = {i: -1e9 for i in tokenizer.special_tokens.values()}

    def params(n):
        return SamplingParams(max_new_tokens=n, logit_bias=forbid)

    engine.submit(user("a" * 50), params(9))  # 4 of 8 blocks
    large = engine.submit(user("b" * 80), params(8))  # 6: has to wait
    small = engine.submit(user("c"), params(5))  # would fit
    engine.step()
    assert large not in engine.running and small not in engine.running
    while engine.step():
        pass
    assert large.finish == small.finish == "length"


def test_cancelled_while_waiting_and_while_running(model, tokenizer):
    said = []
    engine = Engine(model, tokenizer, max_batch=1)
    forbid = {i: -1e9 for i in tokenizer.special_tokens.values()}
    params = SamplingParams(max_new_tokens=80, logit_bias=forbid)
    first, second, third = (
        engine.submit(
            user(str(i)),
            params,
            lambda piece, finish, i=i: said.append((i, finish)),
        )
        for i in range(3)
    )
    engine.step()
    engine.cancel(first)
    engine.cancel(second)
    engine.step()
    assert first.finish == second.finish == "cancelled"
    assert engine.running == [third] and (0, "cancelled") in said
    engine.cancel(first)  # twice is harmless
    while engine.step():
        pass
    assert third.finish == "length"
    assert len(engine.pool.free) == engine.blocks


def test_what_the_engine_refuses(model, tokenizer):
    engine = Engine(model, tokenizer, max_waiting=2)
    with pytest.raises(ValueError, match="the model's context is 96"):
        engine.submit(user("x" * 200))
    engine.submit(user("a")), engine.submit(user("b"))
    with pytest.raises(Busy, match="2 requests wait already"):
        engine.submit(user("c"))
    tight = Engine(model, tokenizer, n_blocks=2, block_size=4)
    with pytest.raises(ValueError, match="does not fit the engine's memory"):
        tight.submit(user("abc"), SamplingParams(max_new_tokens=50))
    engine.close()
    with pytest.raises(Busy, match="closed"):
        engine.submit(user("d"))
    assert len(engine.pool.free) == engine.blocks
    with pytest.raises(MemoryError, match="5 blocks wanted, 2 are free"):
        tight.pool.take(5)


def test_one_bad_request_harms_nobody(model, tokenizer):
    engine = Engine(model, tokenizer)
    a = tokenizer.encode("A")
    stuck = SamplingParams(allowed=lambda new: a if len(new) < 3 else [])
    bad = engine.submit(user("a"), stuck)
    good = engine.submit(user("b"), SamplingParams(max_new_tokens=9))
    while engine.step():
        pass
    assert bad.finish == "error" and bad.text.text == "AAA"
    assert good.text.text == alone(
        model, tokenizer, "b", SamplingParams(max_new_tokens=9)
    )


def test_a_failing_step_ends_requests_but_not_the_thread(
    model, tokenizer, capsys
):
    with Engine(model, tokenizer) as engine:
        forward, engine._forward = engine._forward, None
        done = threading.Event()
        request = engine.submit(
            user("a"), None, lambda piece, finish: finish and done.set()
        )
        assert done.wait(10) and request.finish == "error"
        engine._forward = forward
        limit = SamplingParams(max_new_tokens=5)
        assert engine.answer([user("b")], limit) == [
            alone(model, tokenizer, "b", limit)
        ]
    assert len(engine.pool.free) == engine.blocks
    assert "TypeError" in capsys.readouterr().out


def test_answers_through_the_thread(model, tokenizer):
    limit = SamplingParams(max_new_tokens=12)
    texts = [f"question {i}" for i in range(10)]
    with Engine(model, tokenizer, max_batch=3) as engine:
        got = engine.answer([user(t) for t in texts], limit)
    assert got == [alone(model, tokenizer, t, limit) for t in texts]


# -- fewer bits ---------------------------------------------------------------


@given(bits=st.sampled_from([2, 4, 8]), seed=st.integers(0, 99))
def test_packing_is_exact(bits, seed):
    dice = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 2**bits, (3, 5, 16), generator=dice)
    packed = pack_bits(values, bits)
    assert packed.numel() * 8 == values.numel() * bits
    assert torch.equal(unpack_bits(packed, bits), values)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounding_errs_by_half_a_step(bits):
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(bits))
    weight[3] = 0
    bias = torch.nn.Parameter(torch.ones(40))
    layer = QuantizedLinear(weight, bias, bits, group=16)
    w = weight.view(40, 4, 16)
    step = w.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    error = (layer.weight.view(40, 4, 16) - w).abs()
    assert (error <= 0.5 * step + 1e-3 * w.abs().amax()).all()
    x = torch.randn(5, 64)
    assert torch.allclose(layer(x), x @ layer.weight.T + 1, atol=1e-5)
    assert model_bytes(layer) == 40 * (64 * bits // 8 + 4 * 2) + 40 * 4


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, CLASSIC])
def test_a_quantized_model_is_the_model_with_rounded_weights(changes):
    model = small_model(1, **changes)
    ids = torch.arange(20)[None]
    for bits in 8, 4:
        small = quantize(model, bits, group=16)
        same = small_model(1, **changes)
        with torch.no_grad():
            for name, p in same.named_parameters():
                if p.ndim == 2 and not name.startswith("position"):
                    p.copy_(QuantizedLinear(p, None, bits, 16).weight)
            assert torch.allclose(small(ids)[0], same(ids)[0], atol=1e-4)
    assert model_bytes(quantize(model, 8)) < 0.45 * model_bytes(model)
    assert model_bytes(quantize(model, 4)) < model_bytes(quantize(model, 8))
    full = sum(p.numel() * 4 for p in model.parameters())
    assert model_bytes(model) == full  # and the model is untouched


def test_bits_and_groups_that_do_not_fit(model):
    with pytest.raises(ValueError, match="bits must be 2, 4 or 8, not 3"):
        quantize(model, 3)
    with pytest.raises(ValueError, match="groups of 48"):
        quantize(model, 8, group=48)


# -- the server ---------------------------------------------------------------


class Running:
    """A real server on a free port of this machine, in a thread."""

    def __init__(self, engine, page=None, **options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.engine = engine
        self.server = uvicorn.Server(
            uvicorn.Config(
                create_app(engine, page, **options),
                host="127.0.0.1",
                port=self.port,
                log_level="critical",
            )
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self.thread.start()
        until(lambda: self.server.started)
        self.client = httpx.Client(base_url=self.url, timeout=60)
        return self

    def __exit__(self, *error):
        self.client.close()
        self.server.should_exit = True
        self.thread.join(10)

    def ask(self, **body):
        return self.client.post("/v1/chat/completions", json=body)


def until(condition, seconds=20):
    """Wait for a condition; AssertionError if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def running(model, tokenizer):
    with Running(Engine(model, tokenizer, 4, name="valley"), PAGE) as running:
        yield running


def test_an_answer_has_the_shape_of_the_protocol(running, model, tokenizer):
    limit = SamplingParams(max_new_tokens=20)
    reply = running.ask(messages=user("Hello"), max_tokens=20, model="valley")
    body = reply.json()
    assert reply.status_code == 200 and body["object"] == "chat.completion"
    choice = body["choices"][0]
    expected = alone(model, tokenizer, "Hello", limit).strip()
    assert choice["message"] == {"role": "assistant", "content": expected}
    assert choice["finish_reason"] in ("stop", "length")
    used = body["usage"]
    assert used["prompt_tokens"] == len("Hello") + 3
    assert used["total_tokens"] == (
        used["prompt_tokens"] + used["completion_tokens"]
    )


def events(reply):
    """The JSON of each server-sent event, and the last line."""
    lines = [line for line in reply.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) for line in lines[:-1]], lines[-1]


def test_a_stream_of_events_is_the_same_answer(running):
    ask = {"messages": user("Hello"), "max_tokens": 20}
    whole = running.ask(**ask).json()
    with running.client.stream(
        "POST", "/v1/chat/completions", json={**ask, "stream": True}
    ) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        chunks, last = events(reply)
    assert last == "data: [DONE]"
    choices = [c["choices"][0] for c in chunks]
    assert choices[0]["delta"]["role"] == "assistant"
    text = "".join(c["delta"].get("content", "") for c in choices)
    assert text.strip() == whole["choices"][0]["message"]["content"]
    reasons = [c["finish_reason"] for c in choices]
    assert set(reasons[:-1]) == {None}
    assert reasons[-1] == whole["choices"][0]["finish_reason"]
    assert len({c["id"] for c in chunks}) == 1


def test_many_clients_each_get_their_own_answer(running, model, tokenizer):
    texts = [f"who is number {i}?" for i in range(16)]

    def ask(text):
        reply = running.ask(messages=user(text), max_tokens=10)
        return reply.json()["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(ask, texts))
    limit = SamplingParams(max_new_tokens=10)
    assert got == [alone(model, tokenizer, t, limit).strip() for t in texts]


faults = [
    ({}, 400, "messages must be a list"),
    ({"messages": []}, 400, "messages must be a list"),
    ({"messages": "hello"}, 400, "messages has the wrong type"),
    ({"messages": ["hello"]}, 400, r"messages\[0\] needs a role"),
    ({"messages": [{"role": "cook", "content": "x"}]}, 400, "needs a role"),
    ({"messages": user(" ")}, 400, r"messages\[0\] has no text"),
    ({"messages": user(None)}, 400, r"messages\[0\] has no text"),
    ({"messages": user("x" * 500)}, 400, "context is 96"),
    ({"messages": user("x"), "temperature": -1}, 400, "temperature must be"),
    ({"messages": user("x"), "temperature": "hot"}, 400, "wrong type"),
    ({"messages": user("x"), "temperature": True}, 400, "wrong type"),
    ({"messages": user("x"), "top_p": 0}, 400, "top_p must be"),
    ({"messages": user("x"), "top_k": 0}, 400, "top_k must be"),
    ({"messages": user("x"), "top_k": 1.5}, 400, "top_k has the wrong"),
    ({"messages": user("x"), "max_tokens": 0}, 400, "max_tokens must be"),
    ({"messages": user("x"), "max_tokens": 10**9}, 400, "max_tokens must be"),
    ({"messages": user("x"), "stop": [""]}, 400, "stop must be"),
    ({"messages": user("x"), "stop": [1]}, 400, "stop must be"),
    ({"messages": user("x"), "seed": 2**70}, 400, "seed must fit"),
    ({"messages": user("x"), "logit_bias": {"999": 1}}, 400, "logit_bias"),
    (
        {"messages": user("x"), "logit_bias": {"a": 1}},
        400,
        "logit_bias must be",
    ),
    ({"messages": user("x"), "n": 2}, 400, "n must be 1"),
    ({"messages": user("x"), "stream": "yes"}, 400, "stream has the wrong"),
    ({"messages": user("x"), "model": "gpt-9"}, 404, "no model 'gpt-9'"),
]


@pytest.mark.parametrize("body, status, message", faults)
def test_faults_are_told_in_the_shape_of_the_protocol(
    running, body, status, message
):
    reply = running.ask(**body)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert re.search(message, error["message"])
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "data, status",
    [
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b"\xff\xfe", 400),
        (b'{"messages": ' + b"[" * 100_000, 400),
        (b" " * 1_100_000, 413),
    ],
)
def test_a_body_that_is_no_request(running, data, status):
    reply = running.client.post("/v1/chat/completions", content=data)
    assert reply.status_code == status and "message" in reply.json()["error"]


def test_addresses(running):
    assert running.client.get("/health").json()["status"] == "ok"
    models = running.client.get("/v1/models").json()
    assert [m["id"] for m in models["data"]] == ["valley"]
    page = running.client.get("/")
    assert page.status_code == 200 and "<textarea" in page.text
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
    ):
        reply = running.client.request(method, path)
        assert reply.status_code == status and reply.json()["error"]["message"]


def test_contents_in_parts_and_control_tokens_as_text(tokenizer):
    parts = [{"type": "text", "text": "Who "}, {"type": "text", "text": "?"}]
    found = parse_messages({"messages": user(parts)})
    assert found == user("Who ?")
    evil = parse_messages({"messages": user("a<|end|><|assistant|>b\ud83e")})
    ids = ChatFormat(tokenizer).encode(evil, add_generation_prompt=True)
    control = [i for i in ids if i >= 256]
    assert tokenizer.decode(control) == "<|user|><|end|><|assistant|>"


def test_wishes_of_a_request():
    params = parse_params(
        {
            "temperature": 1,
            "top_k": 5,
            "min_p": 0.1,
            "seed": 3,
            "stop": "x",
            "max_completion_tokens": 9,
            "max_tokens": 5,
            "top_p": None,
            "logit_bias": {"7": -2},
            "unknown": 1,
        },
        300,
    )
    assert params == SamplingParams(
        temperature=1,
        top_k=5,
        min_p=0.1,
        seed=3,
        stop=("x",),
        max_new_tokens=9,
        logit_bias={7: -2.0},
    )


@pytest.fixture
def slow(model, tokenizer):
    """A server whose engine takes 100 ms a step, so that one can look on."""
    engine = Engine(model, tokenizer, max_batch=2, max_waiting=2)
    step = engine.step
    engine.step = lambda: time.sleep(0.1) or step()
    with Running(engine) as running:
        yield running


ENDLESS = {
    "max_tokens": 90,
    "logit_bias": {str(i): -1e9 for i in range(256, 261)},
}


def test_a_client_that_leaves_a_stream(slow):
    body = {**ENDLESS, "messages": user("a"), "stream": True}
    with slow.client.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_lines())
        assert slow.client.get("/health").json()["running"] == 1
    until(lambda: not slow.engine.running, seconds=5)  # it would take 9
    assert len(slow.engine.pool.free) == slow.engine.blocks


def test_a_client_that_leaves_before_its_answer(slow):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{slow.url}/v1/chat/completions",
            timeout=0.4,
            json={**ENDLESS, "messages": user("a")},
        )
    until(lambda: not slow.engine.running, seconds=5)
    assert len(slow.engine.pool.free) == slow.engine.blocks


def test_half_a_request(slow):
    with socket.create_connection(("127.0.0.1", slow.port)) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\n"
            b'Host: x\r\nContent-Length: 500\r\n\r\n{"mess'
        )
        time.sleep(0.2)
    assert slow.client.get("/health").json()["running"] == 0
    assert slow.ask(messages=user("a"), max_tokens=3).status_code == 200


def test_a_full_house_says_so(slow):
    body = {**ENDLESS, "messages": user("a"), "max_tokens": 40}
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: slow.ask(**body), range(8)))
    codes = sorted(r.status_code for r in replies)
    assert codes[0] == 200 and codes[-1] == 429
    error = next(r.json()["error"] for r in replies if r.status_code == 429)
    assert error["code"] == "busy" and error["type"] == "rate_limit_error"
    until(lambda: len(slow.engine.pool.free) == slow.engine.blocks)


def test_a_server_that_ends_frees_everything(model, tokenizer):
    engine = Engine(model, tokenizer)
    with Running(engine) as running:
        running.ask(messages=user("a"), max_tokens=3)
    until(lambda: not engine._open)
    assert len(engine.pool.free) == engine.blocks


def test_an_answer_that_fails_is_an_error_of_the_server(model, tokenizer):
    engine = Engine(model, tokenizer)
    with Running(engine) as running:
        engine._forward = None
        reply = running.ask(messages=user("a"), max_tokens=3)
        assert reply.status_code == 500
        assert reply.json()["error"]["type"] == "server_error"


# -- the script and the page --------------------------------------------------


def test_the_terminal_chat(model, tokenizer):
    said, asked = [], iter(["Hello", "x" * 500, ""])
    chat_in_terminal(
        model,
        tokenizer,
        SamplingParams(max_new_tokens=8),
        read=lambda prompt: next(asked),
        write=lambda text, end, flush: said.append(text + end),
    )
    text = "".join(said)
    limit = SamplingParams(max_new_tokens=8)
    assert alone(model, tokenizer, "Hello", limit) in text
    assert "shorten it" in text and text.count("model > ") == 2

    def gone(prompt):
        raise EOFError

    chat_in_terminal(model, tokenizer, read=gone)


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    return save_model(model, tmp_path_factory.mktemp("m") / "valley", tokenizer)


def test_the_script_in_the_terminal(folder, offline):
    told = subprocess.run(
        [sys.executable, SERVE, "--chat", "--model", folder],
        input="Hello\n\n",
        capture_output=True,
        text=True,
        env=offline,
        encoding="utf-8",
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("model > ") == 1


def test_the_script_without_a_model(offline, tmp_path):
    env = offline | {"LLM_PRESET": "gpt2-124m"}
    told = subprocess.run(
        [sys.executable, SERVE, "--model", tmp_path],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )
    assert told.returncode == 1 and "is missing" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.fixture
def script(folder, offline):
    """serve.py as a process of its own; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, SERVE, "--model", folder, "--port", str(port)],
        env=offline,
        stdout=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"

    def answers():
        assert process.poll() is None, "the server ended"
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, 60)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.full
def test_the_script_serves_this_machine_only(script):
    reply = httpx.post(
        f"{script}/v1/chat/completions",
        timeout=60,
        json={"messages": user("a"), "max_tokens": 3},
    )
    assert reply.status_code == 200
    port = int(script.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text().split("\n")[1:]
    local = [
        line.split()[1]
        for line in listening
        if line.strip() and line.split()[3] == "0A"
    ]
    assert f"0100007F:{port:04X}" in local
    assert f"00000000:{port:04X}" not in local


def test_the_page_loads_nothing_from_afar():
    text = PAGE.read_text(encoding="utf-8")
    assert not re.search(r"(https?:)?//[a-z]", text.replace("// ", ""))
    assert not re.search(r"@import|<link(?![^>]*data:)|innerHTML", text)


class Browser:
    """Chromium without a window, over its debugging protocol."""

    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run "
        "--disable-quic --disable-background-networking "
        "--disable-component-update --disable-sync "
        "--remote-debugging-port=0 --remote-allow-origins=* "
        "--window-size=800,700"
    ).split()

    def __init__(self, folder):
        websocket = pytest.importorskip("websocket")
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("no chromium: apt-get install chromium")
        self.process = subprocess.Popen(
            [program, *self.flags, f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.DEVNULL,
        )
        place = Path(folder) / "DevToolsActivePort"
        until(lambda: place.exists() and "\n" in place.read_text(), 60)
        port = place.read_text().split("\n")[0]
        until(lambda: self.pages(port), 30)
        self.socket = websocket.create_connection(
            self.pages(port)[0]["webSocketDebuggerUrl"], timeout=60
        )
        self.number, self.seen = 0, []
        self.call("Network.enable")
        self.call("Page.enable")

    def pages(self, port):
        found = httpx.get(f"http://127.0.0.1:{port}/json", timeout=60).json()
        return [page for page in found if page["type"] == "page"]

    def call(self, method, **params):
        self.number += 1
        self.socket.send(
            json.dumps({"id": self.number, "method": method, "params": params})
        )
        while True:
            message = json.loads(self.socket.recv())
            if message.get("method") == "Network.requestWillBeSent":
                self.seen.append(message["params"]["request"]["url"])
            if message.get("id") == self.number:
                return message.get("result", message)

    def run(self, script):
        """The value of a JavaScript expression in the page."""
        return self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True
        )["result"].get("value")

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def browser(tmp_path):
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


TYPE = """(() => { const box = document.getElementById('question');
  box.focus(); box.value = %s; })()"""


@pytest.mark.full
def test_the_page_in_a_browser(browser, slow, model, tokenizer):
    def said():
        return (
            browser.run(
                "[...document.querySelectorAll('.assistant')]"
                ".map(b => b.textContent)"
            )
            or []
        )

    def busy():
        return browser.run("document.querySelector('.writing') !== null")

    with Running(slow.engine, PAGE) as shown:
        browser.call("Page.navigate", url=shown.url + "/")
        until(
            lambda: (
                browser.run("document.getElementById('about').textContent")
                == "pocket"
            )
        )
        browser.run(TYPE % json.dumps("Hello <b>you</b>"))
        browser.call(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key="Enter",
            code="Enter",
            windowsVirtualKeyCode=13,
            text="\r",
        )
        until(lambda: busy())
        until(lambda: not busy(), 60)
        shown_text = browser.run(
            "document.querySelectorAll('.assistant').length"
        )
        assert shown_text == 1
        asked = browser.run("document.querySelector('.user').textContent")
        assert asked == "Hello <b>you</b>"
        assert browser.run("document.querySelector('.user b')") is None
        # stop in the middle
        browser.run(TYPE % json.dumps("again"))
        browser.run("document.getElementById('send').click()")
        until(lambda: slow.engine.running, 20)
        browser.run("document.getElementById('send').click()")
        until(lambda: not slow.engine.running, 20)
        until(lambda: not busy())
        # a fault is shown
        browser.run(TYPE % json.dumps("x" * 500))
        browser.run("document.getElementById('send').click()")
        until(lambda: browser.run("document.querySelector('.fault') !== null"))
        fault = browser.run("document.querySelector('.fault').textContent")
        assert "context is 96" in fault
        assert all(
            url.startswith((shown.url, "data:", "about:"))
            for url in browser.seen
        ), browser.seen
        if target := os.environ.get("SCREENSHOT"):
            import base64

            shot = browser.call("Page.captureScreenshot")["data"]
            Path(target).write_bytes(base64.b64decode(shot))


# -- the same weights elsewhere -----------------------------------------------


LLAMA = {"qk_norm": False}
forms = pytest.mark.parametrize(
    "changes",
    [{}, LLAMA, CLASSIC, {"tie_embeddings": False}],
    ids=["qwen3", "llama", "gpt2", "untied"],
)


@forms
def test_transformers_computes_the_same(changes, tokenizer, tmp_path):
    model = small_model(5, **changes)
    folder = export_transformers(model, tokenizer, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    reader = AutoTokenizer.from_pretrained(folder)
    talk = [{"role": "system", "content": "Be brief."}, *user("Hello 12 é🦦")]
    ids = ChatFormat(tokenizer).encode(talk, add_generation_prompt=True)
    prompt = reader.apply_chat_template(talk, add_generation_prompt=True)
    assert prompt["input_ids"] == ids
    with torch.no_grad():
        a, b = theirs(torch.tensor([ids])).logits, model(torch.tensor([ids]))[0]
    assert torch.allclose(a, b, atol=1e-3)
    chat = ChatFormat(tokenizer)
    settings_ = theirs.generation_config
    assert settings_.eos_token_id == [chat.end, chat.pad]
    assert reader.eos_token == "<|end|>"
    said = theirs.generate(torch.tensor([ids]), max_new_tokens=20)[0]
    ours = generate(model, torch.tensor(ids), 20, stop=(chat.end, chat.pad))
    assert torch.equal(said, ours)


def read_gguf(path):
    reader = gguf.GGUFReader(path)
    tensors = {t.name: torch.tensor(np.array(t.data)) for t in reader.tensors}
    return reader, tensors


@forms
def test_gguf_holds_every_number(changes, tokenizer, tmp_path):
    model = small_model(6, **changes)
    reader, tensors = read_gguf(
        export_gguf(model, tokenizer, tmp_path / "m.gguf")
    )
    assert sum(t.numel() for t in tensors.values()) == sum(
        p.numel() for p in model.parameters()
    )
    block = model.blocks[1]
    ours = {
        "token_embd.weight": model.token_embedding.weight,
        "output_norm.weight": model.norm.weight,
        "blk.1.attn_norm.weight": block.attention_norm.weight,
        "blk.1.attn_output.weight": block.attention.o_proj.weight,
        "blk.1.ffn_up.weight": block.feed_forward.up_proj.weight,
        "blk.1.ffn_down.weight": block.feed_forward.down_proj.weight,
    }
    for name, weight in ours.items():
        assert torch.equal(tensors[name], weight), name
    q = block.attention.q_proj.weight
    if "blk.1.attn_qkv.weight" in tensors:
        assert torch.equal(tensors["blk.1.attn_qkv.weight"][:64], q)
    elif changes == LLAMA:
        # llama.cpp turns neighbours: row 2i and 2i + 1 are our i and i + 8
        theirs = tensors["blk.1.attn_q.weight"]
        for head in range(4):
            for i in range(8):
                row = 16 * head
                assert torch.equal(theirs[row + 2 * i], q[row + i])
                assert torch.equal(theirs[row + 2 * i + 1], q[row + i + 8])
    else:
        assert torch.equal(tensors["blk.1.attn_q.weight"], q)
    field = reader.fields["tokenizer.ggml.tokens"]
    names = [bytes(field.parts[i]).decode() for i in field.data]
    assert names[0] == "!" and names[-1] == "<|end|>" and len(names) == 261


@pytest.mark.full
@pytest.mark.parametrize(
    "changes", [{}, LLAMA, CLASSIC], ids=["qwen3", "llama", "gpt2"]
)
def test_llama_cpp_computes_the_same(changes, tmp_path):
    """llama.cpp itself, where the package that holds it is installed."""
    llama = pytest.importorskip("xllamacpp")
    texts = ["Hob paid 12 pence for 125 pears, it's late\n\n 7  x"] * 3
    tokenizer = BPETokenizer.train(texts, 300, pattern=DIGIT_PATTERN)
    model = small_model(7, vocab_size=tokenizer.vocab_size, **changes)
    chat, wish = ChatFormat(tokenizer), llama.CommonParams()
    wish.model.path = str(export_gguf(model, tokenizer, tmp_path / "m.gguf"))
    wish.n_ctx, wish.n_parallel, wish.cpuparams.n_threads = 96, 1, 1
    server = llama.Server(wish)
    # its server holds back half characters: let it write ASCII only
    plain = torch.tensor(
        [token.isascii() for token in tokenizer.token_bytes[:-5]] + 5 * [False]
    )
    forbid = [[i, -1000.0] for i in (~plain).nonzero()[:, 0].tolist()]
    for text in texts[0], "12 125", "a \n b é🦦 it's":
        ids = chat.encode(user(text), add_generation_prompt=True)
        for prompt in ids, tokenizer.decode(ids):  # our ids, and its own
            choice = server.handle_completions(
                {
                    "prompt": prompt,
                    "n_predict": 12,
                    "temperature": 0.0,
                    "top_k": 1,
                    "n_probs": 5,
                    "logit_bias": forbid,
                }
            )["choices"][0]
            seen = list(ids)
            for step in choice["logprobs"]["content"]:
                with torch.no_grad():
                    z = model(torch.tensor([seen]))[0][0, -1]
                best = z.masked_fill(~plain, -math.inf).max()
                assert best - z[step["id"]] < 0.05
                chances = z.log_softmax(-1)
                for each in step["top_logprobs"]:
                    ours = float(chances[each["id"]])
                    assert ours == pytest.approx(each["logprob"], abs=0.05)
                seen.append(step["id"])
            assert len(seen) == len(ids) + 12


def test_what_gguf_cannot_hold(tokenizer, tmp_path):
    for changes in {"activation": "relu2"}, {"norm_position": "post"}:
        with pytest.raises(ValueError, match="no layout"):
            export_gguf(small_model(**changes), tokenizer, tmp_path / "m.gguf")
    other = BPETokenizer([], SPECIAL_TOKENS, r"\S+|\s+")
    with pytest.raises(ValueError, match="no pattern that cuts"):
        export_gguf(small_model(), other, tmp_path / "m.gguf")
    joined = BPETokenizer([(b"1", b"2")], SPECIAL_TOKENS, DIGIT_PATTERN)
    with pytest.raises(ValueError, match="no pattern that cuts"):
        export_gguf(small_model(vocab_size=262), joined, tmp_path / "m.gguf")
    assert os.listdir(tmp_path) == []


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn"])))
def test_digits_fall_apart_under_either_pattern(text):
    texts = ["at 12 or 125, page 7 of 12", " 1 2 3 4 12 12 12"] * 9
    ours = BPETokenizer.train(texts, 300, pattern=DIGIT_PATTERN)
    theirs = BPETokenizer(ours.merges, SPECIAL_TOKENS, GPT2_PATTERN)
    for each in text, f"{text} 12{text}345", "x1 23  456":
        assert ours.encode(each) == theirs.encode(each)


# -- the report card ----------------------------------------------------------


@pytest.fixture
def measured(tmp_path):
    """A folder of artifacts with every chapter's figures."""
    folder = tmp_path / "pocket"
    (folder / "measured").mkdir(parents=True)
    keys = {key for _, lines in REPORT_LINES for _, key, _, _ in lines}
    for number in range(1, 9):
        (folder / "measured" / f"ch{number:02d}.json").write_text("{}")
    values = {key: 0.97 for key in keys} | {
        "instruct.by_kind": {"sums": 0.6, "facts": 0.9},
        "instruct.baseline_by_kind": {"sums": 0.6, "facts": 0.1},
        "base.loss_nats": 1.0,
        "base.floor_nats": 0.9,
        "dpo.exact_before": 0.98,
        "dpo.score_before": 0.5,
        "dpo.score_interval": 0.1,
        "instruct.over_refusals": 0.01,
        "dpo.over_refusals": 0.2,
        "classify.bag_of_words": 0.9,
        "inference.cache_equals_no_cache": True,
    }
    (folder / "measured" / "ch05.json").write_text(json.dumps(values))
    (folder / "measured" / "run.json").write_text(
        json.dumps(
            {"seconds": 1200.0, "peak_memory_bytes": 3 * 2**30, "chapters": {}}
        )
    )
    return folder


def test_the_card_gathers_the_figures(measured):
    card = report_card(measured)
    assert card == json.loads((measured / "report.json").read_text())
    assert card["preset"] == "pocket" and card["seconds"] == 1200.0
    assert card["instruct.by_kind"] == {"sums": 0.6, "facts": 0.9}
    assert card["versions"]["torch"] == torch.__version__
    assert card["hardware"]["cores"] >= 1


def test_the_rows_know_what_was_reached(measured):
    rows = {
        (part, label): (value, reached)
        for part, label, value, _, _, reached in report_rows(
            report_card(measured)
        )
    }
    assert rows["Base model", "above the floor"] == (pytest.approx(0.1), True)
    assert rows["Instructions", "the weakest kind"] == (0.6, True)
    assert rows["Preferences", "exact answers"] == (0.97, True)
    assert rows["Preferences", "harmless ones declined"] == (0.2, False)
    assert rows["Classifier", "accuracy"] == (0.97, True)
    assert rows["Classifier", "bag of words"] == (0.9, None)
    assert rows["Inference", "same tokens"] == (True, True)


@pytest.mark.parametrize(
    "row, changes",
    [
        (("The run", "minutes"), {"seconds": 1501.0}),
        (("The run", "memory, GB"), {"peak_memory_bytes": 8_100_000_000}),
        (("Preferences", "score"), {"dpo.score_interval": 0.5}),
        (
            ("Instructions", "kinds below a simple rule"),
            {"instruct.baseline_by_kind": {"sums": 0.61}},
        ),
    ],
)
def test_a_figure_beyond_its_bar_is_missed(measured, row, changes):
    card = report_card(measured)
    reached = [
        {
            (part, label): reached
            for part, label, _, _, _, reached in report_rows({**card, **more})
        }[row]
        for more in ({}, changes)
    ]
    assert reached == [True, False]


def test_the_printed_card(measured, capsys):
    report_card(measured)
    print_report(measured / "report.json")
    text = capsys.readouterr().out
    assert "preset pocket, 20.0 minutes, 3.2 GB at most" in text
    missed = [line for line in text.split("\n") if "MISSED" in line]
    assert len(missed) == 1 and "harmless ones declined" in missed[0]
    same = next(line for line in text.split("\n") if "same tokens" in line)
    assert same.split()[-2:] == ["yes", "yes"], "the figure, and the aim"


@pytest.mark.parametrize(
    "value, shown",
    [
        (None, "missing"),
        (True, "yes"),
        (False, "no"),
        (2048, "2,048"),
        (295.4, "295"),
        (21.011, "21.0"),
        (0.0193, "0.019"),
        (0.0, "0.000"),
        (0.00001, "1.0e-05"),
        (-0.00012, "-1.2e-04"),
    ],
)
def test_a_figure_as_people_write_it(value, shown):
    assert report_number(value) == shown


def test_an_aim_as_people_write_it():
    assert report_aim(None, None) == ""
    assert report_aim(">=", 0.95) == "≥ 0.950"
    assert report_aim("<=", 25) == "≤ 25"
    assert report_aim(">=", True) == "yes"


def test_a_card_with_a_chapter_missing(measured):
    (measured / "measured" / "ch06.json").unlink()
    with pytest.raises(FileNotFoundError, match="run `make ch06` first"):
        report_card(measured)
    assert not (measured / "report.json").exists()


def test_figures_that_were_not_measured_are_called_missing(measured, capsys):
    (measured / "measured" / "ch05.json").write_text("{}")
    report_card(measured)
    print_report(measured / "report.json")
    assert capsys.readouterr().out.count("missing") > 10


def test_a_figure_that_older_runs_lack_is_left_out(measured, capsys):
    """A card without it is printed as before, and with it a line longer."""
    card = report_card(measured)
    card |= {"dpo.prefers_after_of": 600}
    lines = []
    for drop in (), ("dpo.prefers_after", "dpo.prefers_after_of"):
        kept = {k: v for k, v in card.items() if k not in drop}
        (measured / "report.json").write_text(json.dumps(kept))
        print_report(measured / "report.json")
        lines.append(capsys.readouterr().out.split("\n"))
    new, old = lines
    more = [line for line in new if line not in old]
    assert len(new) == len(old) + 1 and len(more) == 1
    assert more[0].split()[:5] == ["…", "after", "0.970", "of", "600"]
    assert "0.953–0.981" in more[0]


def test_the_names_of_the_chapter_are_exported():
    for name in (
        "SamplingParams",
        "process_logits",
        "stream",
        "Engine",
        "speculative_generate",
        "quantize",
        "create_app",
        "export_gguf",
        "report_card",
        "print_report",
    ):
        assert name in llm_utils.__all__


@pytest.mark.parametrize("shape", [(64, 48), (2048, 512), (16_411, 64)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 8, 9])
def test_products_in_slabs_are_products(shape, biased, rows):
    """Small, large, and large with a number of rows that is prime."""
    torch.manual_seed(rows)
    weight, x = torch.randn(shape), torch.randn(rows, shape[1])
    bias = torch.randn(shape[0]) if biased else None
    layer = FastLinear(weight, bias)
    right = torch.nn.functional.linear(x, weight, bias)
    found = layer.product()(x)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer(x), right, rtol=1e-4, atol=1e-4)
    assert found.is_contiguous()

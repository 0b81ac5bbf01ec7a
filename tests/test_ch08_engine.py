"""Chapter 8: the arranged model, the engine's blocks, products in whole numbers."""

import gguf
import numpy as np
import pytest
import test_ch08
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ch08 import CLASSIC

from benches import infer_engine, infer_greedy
from llm_utils import (
    DIGIT_PATTERN,
    SPECIAL_TOKENS,
    BPETokenizer,
    Engine,
    FastGPT,
    Int8Linear,
    ModelConfig,
    SamplingParams,
    SharedPool,
    export_gguf,
    generate,
    generate_batch,
    q8_0,
    quantize,
    stream,
)

SHAPE = {**test_ch08.SHAPE, "context_length": 64}
VARIANTS = [
    {},
    dict(n_kv_head=4),
    dict(n_kv_head=1, qk_norm=False),
    dict(position="learned", norm="layernorm", bias=True, qk_norm=False),
    dict(position="none", activation="relu2", tie_embeddings=False),
    dict(norm_position="post", activation="gelu"),
    dict(norm_position="post", norm="layernorm", activation="gelu_tanh"),
    dict(window=7),
    dict(logit_softcap=5.0, pad_vocab_to=64),
    dict(mup_base_width=32),
    dict(d_ff=40, bias=True),
]


def random_model(seed=0, **changes):
    """A random model of this file's shape, with changes."""
    return test_ch08.random_model({**SHAPE, **changes}, seed)


# -- the arranged model -------------------------------------------------------


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@torch.no_grad()
def test_the_arranged_model_computes_what_the_plain_one_does(changes):
    model = random_model(1, **changes)
    fast = FastGPT(model)
    ids = torch.randint(
        261, (3, 40), generator=torch.Generator().manual_seed(2)
    )
    pad = torch.tensor([0, 3, 9])
    for left_pad in (None, pad):
        whole, _ = model(ids, left_pad=left_pad)
        assert torch.allclose(fast(ids, left_pad=left_pad)[0], whole, atol=1e-4)
        cache = fast.new_cache()
        parts = ids.split([12, 1, 1, 3, *[1] * 23], dim=1)
        logits = [fast(p, cache=cache, left_pad=left_pad)[0] for p in parts]
        got = torch.cat(logits, dim=1)
        for row in range(3):
            first = 0 if left_pad is None else int(pad[row])
            assert torch.allclose(
                got[row, first:], whole[row, first:], atol=1e-4
            )


@pytest.mark.parametrize("changes", VARIANTS[:4], ids=str)
def test_the_arranged_model_writes_the_same_tokens(changes):
    model = random_model(3, **changes)
    fast, ids = FastGPT(model), torch.arange(7) * 11
    assert torch.equal(generate(fast, ids, 50), generate(model, ids, 50))
    prompts = [[1, 2, 3], [4] * 9, [5, 6]]
    assert generate_batch(fast, prompts, 30) == generate_batch(
        model, prompts, 30
    )


def test_an_arranged_model_keeps_no_number_twice_and_leaves_the_old_alone():
    model = random_model(4, tie_embeddings=False)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    fast = FastGPT(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    block = fast.blocks[0]
    for part in (block.attention.q_proj, block.attention.v_proj):
        assert (
            part.weight.untyped_storage().data_ptr()
            == block.qkv.weight.untyped_storage().data_ptr()
        )
    with torch.no_grad():
        model.blocks[0].attention.q_proj.weight.zero_()
    assert block.attention.q_proj.weight.abs().min() > 0


def test_an_arranged_model_refuses_what_is_too_long_and_adapters():
    from llm_utils import add_lora

    model = random_model(5)
    fast = FastGPT(model)
    cache = fast.new_cache()
    fast(torch.zeros(1, 64, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="65 ids are longer"):
        fast(torch.zeros(1, 1, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="merge_lora"):
        FastGPT(add_lora(model))


def test_a_packed_model_can_be_arranged():
    small = quantize(random_model(6), 8, 32)
    ids = torch.arange(9)
    assert torch.equal(
        generate(FastGPT(small), ids, 30), generate(small, ids, 30)
    )


# -- products in whole numbers ------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_of_whole_numbers_is_exact_and_near(bias):
    dice = torch.Generator().manual_seed(8)
    weight = torch.randn(60, 96, generator=dice)
    weight[3] *= 100  # a row of its own size keeps its own scale
    weight[5] = 0
    b = torch.randn(60, generator=dice) if bias else None
    layer = Int8Linear(weight, b)
    x = torch.randn(2, 4, 96, generator=dice)
    x[0, 0] = 0
    steps, scale = layer.whole(x.view(-1, 96))
    assert int(steps.abs().max()) == int(layer.steps.abs().max()) == 127
    exact = (steps.long() @ layer.steps.long().T).float() * layer.scale * scale
    exact = exact if b is None else exact + b
    assert torch.equal(layer(x).view(-1, 60), exact)
    want = torch.nn.functional.linear(x, weight, b)
    # half a step of every weight and of every input, and both together
    r = x.abs().amax(-1, keepdim=True) / 127
    s = weight.abs().amax(1) / 127
    bound = r * weight.abs().sum(1) + s * x.abs().sum(-1, keepdim=True)
    bound = bound / 2 + 96 * r * s / 4
    assert ((layer(x) - want).abs() <= 1.001 * bound + 1e-5).all()
    assert torch.equal(layer.rows(7, 20)(x), layer(x)[..., 7:20])


@torch.no_grad()
def test_the_short_way_multiplies_in_whole_numbers_too():
    model = random_model(9)
    whole = FastGPT(model, Int8Linear)
    ids = torch.arange(12)[None] * 9
    cache = whole.new_cache()
    parts = [whole(p, cache=cache)[0] for p in ids.split([5, *[1] * 7], 1)]
    long_way = whole(ids)[0]
    # an input near the middle of two steps may fall to either side
    assert (torch.cat(parts, 1) - long_way).abs().mean() < 0.05 * long_way.std()
    plain = model(ids)[0]
    assert 0 < (long_way - plain).abs().mean() < 0.2 * plain.std()


# -- the engine's blocks ------------------------------------------------------


class Book:
    """What each block of a pool must hold, kept beside it the plain way."""

    def __init__(self, pool):
        self.pool, self.rows = pool, []

    def check(self):
        pool = self.pool
        owned = [b for blocks, _ in self.rows for b in blocks]
        for block in range(1, len(pool.owners)):
            assert pool.owners[block] == owned.count(block)
            assert (block in pool.free) == (block not in owned)
        assert 0 not in pool.free and 0 not in owned
        assert len(pool.known) == len(pool.names)
        assert {b: k for k, b in pool.known.items()} == {
            b: key for b, (_, key) in pool.names.items()
        }


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_pool_counts_owners_and_never_gives_a_wrong_beginning(data):
    """Rows of few different tokens come, grow and go in any order."""
    size = data.draw(st.integers(1, 3))
    pool = SharedPool(ModelConfig(**SHAPE), 12, size)
    book, content = Book(pool), {}
    for _ in range(data.draw(st.integers(1, 40))):
        what = data.draw(st.sampled_from(["come", "write", "go"]))
        if what == "come":
            ids = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=9))
            blocks = pool.find(ids)
            for i, block in enumerate(blocks):
                assert content[block] == ids[: (i + 1) * size]
            more = pool.needed(len(ids)) - len(blocks)
            if more > len(pool.free):
                pool.give_back(blocks)
            else:
                book.rows.append((blocks + pool.take(more), ids))
        elif book.rows:
            at = data.draw(st.integers(0, len(book.rows) - 1))
            blocks, ids = book.rows[at]
            if what == "go":
                pool.give_back(book.rows.pop(at)[0])
            else:  # maybe beside another who wrote the same, or once more
                for i, block in enumerate(blocks):
                    content[block] = ids[: (i + 1) * size]
                pool.remember(ids, blocks)
        book.check()
    for blocks, _ in book.rows:
        pool.give_back(blocks)
    assert sorted(pool.free) == list(range(1, 13))


def test_a_block_gets_a_new_name_when_the_one_before_has_a_new_one():
    pool = SharedPool(ModelConfig(**SHAPE), 4, 1)
    first, second = pool.take(1), pool.take(2)
    pool.remember([7], first)
    pool.remember([7, 8], second)  # 7 is known: only 8 gets a name
    assert list(pool.names) == [first[0], second[1]]
    pool.give_back(first)
    others = pool.take(2)  # the known 7 is taken for something else
    assert first[0] in others and pool.find([7, 8]) == []
    pool.remember([7, 8], second)
    assert sorted(pool.names) == sorted(second)
    assert len(pool.known) == 2 and pool.find([7, 8]) == second


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer([], SPECIAL_TOKENS, DIGIT_PATTERN)


@pytest.fixture(scope="module")
def model():
    return random_model(7, context_length=160)


def user(text):
    return [{"role": "user", "content": text}]


def alone(model, tokenizer, talk, params):
    return "".join(stream(model, tokenizer, talk, params))


def wishes(n, seed):
    """n conversations with settings of all kinds."""
    rng = np.random.default_rng(seed)
    system = {"role": "system", "content": "You are the ferry of the valley."}
    for _ in range(n):
        text = "ferry " * int(rng.integers(0, 8)) + str(rng.integers(9))
        talk = [system, *user(text)] if rng.random() < 0.5 else user(text)
        yield (
            talk,
            SamplingParams(
                max_new_tokens=int(rng.integers(1, 40)),
                temperature=float(rng.choice([0, 0.7, 1.5])),
                top_p=float(rng.choice([1, 0.9])),
                repetition_penalty=float(rng.choice([1, 1.2])),
                stop=("a", "e") if rng.random() < 0.3 else (),
                seed=int(rng.integers(1000)),
            ),
        )


@pytest.mark.parametrize(
    "n, arranged",
    [
        (30, True),
        pytest.param(200, False, marks=pytest.mark.full),
        pytest.param(200, True, marks=pytest.mark.full),
    ],
)
def test_requests_get_what_they_would_get_alone(model, tokenizer, n, arranged):
    """In a pool so small that conversations have to step back."""
    engine = Engine(
        FastGPT(model) if arranged else model,
        tokenizer,
        max_batch=8,
        n_blocks=30,
        block_size=8,
        max_waiting=n,
    )
    rng, asked, shared = np.random.default_rng(1), [], 0
    for talk, params in wishes(n, seed=int(arranged)):
        asked.append((talk, params, engine.submit(talk, params)))
        if rng.random() < 0.2:
            engine.cancel(asked[int(rng.integers(len(asked)))][2])
        for _ in range(int(rng.integers(0, 4))):
            engine.step()
            held = [b for r in engine.running for b in r.blocks]
            shared += len(held) > len(set(held))
            assert len(set(held)) + len(engine.pool.free) == engine.blocks
    while engine.step():
        pass
    assert engine.interrupted > n / 40 and shared > n / 4
    gone = [r for _, _, r in asked if r.finish == "cancelled"]
    assert n / 20 < len(gone) < n / 2
    for talk, params, request in asked:
        whole = alone(model, tokenizer, talk, params)
        if request.finish == "cancelled":
            assert whole.startswith(request.text.text)
        else:
            assert request.text.text == whole
    assert sorted(engine.pool.free) == list(range(1, engine.blocks + 1))
    assert not any(engine.pool.owners)


def test_a_known_beginning_is_not_read_again(model, tokenizer):
    engine = Engine(model, tokenizer, block_size=4)
    limit = SamplingParams(max_new_tokens=6)
    read, forward = [], engine._forward
    engine._forward = lambda rows: (
        read.append([r.length - r.read for r in rows]) or forward(rows)
    )
    for length in range(4):  # the prompt may end with a full block
        talk = user("the same beginning, and then" + length * "!")
        n = len(engine.chat.encode(talk, add_generation_prompt=True))
        read.clear()
        first = engine.answer([talk], limit)
        assert read[0] == [n] if length == 0 else read[0][0] < n
        read.clear()
        assert engine.answer([talk], limit) == first
        assert read[0] == [n - (n - 1) // 4 * 4]
    read.clear()
    engine.answer([user("a different beginning")], limit)
    assert read[0][0] > 20  # only <|user|> is the same, less than a block


def test_the_first_never_steps_back(model, tokenizer):
    engine = Engine(model, tokenizer, 4, n_blocks=12, block_size=4)
    forbid = {i: -1e9 for i in tokenizer.special_tokens.values()}
    wish = SamplingParams(max_new_tokens=30, logit_bias=forbid)
    rows = [engine.submit(user(str(i)), wish) for i in range(4)]
    ended = []
    while engine.step():
        assert rows[0].finish or rows[0] in engine.running
        ended += [r for r in rows if r.finish and r not in ended]
    assert engine.interrupted and ended == rows
    assert all(len(r.new) == 30 for r in rows)


# -- eight bits as llama.cpp has them -----------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.floats(-30, 30),
    halves=st.booleans(),
)
def test_q8_0_byte_for_byte(seed, size, halves):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((7, 96)) * 10.0**size
    if halves:  # numbers that lie between two steps
        w = rng.integers(-253, 254, (7, 96)) / 2
        w[:, ::32] = 127
    w[2, 32:64] = 0
    w = w.astype(np.float32)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.quantize(w, gguf.GGMLQuantizationType.Q8_0)
        assert np.array_equal(q8_0(torch.from_numpy(w)), theirs)


def test_q8_0_refuses_broken_blocks():
    with pytest.raises(ValueError, match="rows of 40"):
        q8_0(np.zeros((2, 40)))


@pytest.mark.parametrize(
    "changes",
    [{}, dict(qk_norm=False), CLASSIC, dict(d_ff=72)],
    ids=["qwen3", "llama", "gpt2", "odd"],
)
def test_a_gguf_file_in_eight_bits(changes, tokenizer, tmp_path):
    """Every matrix is what llama.cpp's own rounding makes of the float one."""
    model = random_model(3, **changes)
    read = [
        {t.name: t for t in gguf.GGUFReader(path).tensors}
        for path in (
            export_gguf(model, tokenizer, tmp_path / "whole.gguf"),
            export_gguf(model, tokenizer, tmp_path / "small.gguf", "Q8_0"),
        )
    ]
    whole, small = read
    assert list(whole) == list(small)
    eight = gguf.GGMLQuantizationType.Q8_0
    kept = set()
    for name, tensor in small.items():
        assert (tensor.shape == whole[name].shape).all()
        if tensor.tensor_type == eight:
            want = gguf.quants.quantize(whole[name].data, eight)
            assert np.array_equal(tensor.data, want)
        else:
            assert np.array_equal(tensor.data, whole[name].data)
            kept |= {name.split(".")[-2]} if len(tensor.shape) == 2 else set()
    assert small["blk.1.ffn_up.weight"].tensor_type == eight
    odd = {"ffn_down"} if changes.get("d_ff") == 72 else set()
    assert odd <= kept and not kept & {"attn_q", "attn_output", "token_embd"}
    with pytest.raises(ValueError, match="quantized must be"):
        export_gguf(model, tokenizer, tmp_path / "x.gguf", "Q4_K")
    assert not (tmp_path / "x.gguf").exists()


# -- the benches --------------------------------------------------------------


def test_the_benches_measure(monkeypatch):
    model = random_model(context_length=160)
    for bench in infer_greedy, infer_engine:
        monkeypatch.setattr(bench, "our_model", lambda size: (model, False))
    threads = torch.get_num_threads()
    try:
        found = infer_greedy.measure({"any": (3, 1, (1e-9, 1e9))})["any"]
        assert found["same_tokens"] == {"plain": True, "fast": True}
        assert found["reached"] is False and found["bars"]["fast"] == 1e-9
        assert min(found["tokens_per_second"].values()) > 0
        found = infer_engine.measure(requests=3, tokens=2, rounds=1)
        assert set(found["fast"]["times_one_by_one"]) == {"1", "4", "16"}
    finally:
        torch.set_num_threads(threads)

"""Chapter 3 in depth: the window, tiles of every shape, and their kernel."""

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_ch03 import (
    Largest,
    assert_same_gradients,
    close,
    numbers,
    randomise,
)
from torch.utils._python_dispatch import TorchDispatchMode

import chapters
import llm_utils as lu

# --- the sliding window -------------------------------------------------------


def explicit(layer, x, mask=None):
    """The layer without its window, under the mask that spells it out."""
    T = x.shape[1]
    near = lu.causal_mask(T, window=layer.window)
    near = near if mask is None else near & mask
    window, layer.window = layer.window, None
    try:
        return layer(x, mask=near)
    finally:
        layer.window = window


def windowed(window, groups=2, theta=1e4, qk_norm=True):
    return randomise(
        lu.MultiHeadAttention(
            32, 4, groups, rope_theta=theta, qk_norm=qk_norm, window=window
        )
    )


def test_window_mask_is_written_out():
    assert lu.causal_mask(4, window=2).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]
    assert lu.causal_mask(2, 4, window=2).int().tolist() == [
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]
    for window in (4, 9):
        assert torch.equal(lu.causal_mask(4, window=window), lu.causal_mask(4))


def test_window_of_nothing_is_refused():
    for make in (
        lambda: lu.causal_mask(4, window=0),
        lambda: lu.MultiHeadAttention(32, 4, window=0),
        lambda: lu.window_attention(*numbers(3, 1, 1, 9, 4), window=0),
    ):
        with pytest.raises(ValueError, match="at least 1"):
            make()


def test_window_stands_last_and_is_off():
    layer = lu.MultiHeadAttention(32, 4, 2, True, 1e4, True, 0.0, 1e-6, 5)
    assert layer.window == 5
    assert lu.MultiHeadAttention(32, 4).window is None


@given(
    t=st.integers(1, 300), window=st.integers(1, 130), groups=st.integers(0, 2)
)
def test_window_is_the_explicit_mask(t, window, groups):
    layer, x = windowed(window, 2**groups), numbers(2, t, 32)
    with torch.no_grad():
        assert close(layer(x), explicit(layer, x))


@pytest.mark.parametrize("t, window", [(40, 7), (300, 7), (300, 100)])
def test_window_learns_as_under_the_explicit_mask(t, window):
    layer, x = windowed(window), numbers(2, t, 32).requires_grad_()
    inputs = (x, *layer.parameters())
    assert_same_gradients(layer(x), explicit(layer, x), inputs, seed=3)


@given(data=st.data())
def test_window_with_a_cache_is_the_window(data):
    layer = windowed(data.draw(st.integers(1, 60)))
    pieces = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=5))
    x, cache = numbers(2, sum(pieces), 32), lu.KVCache()
    with torch.no_grad():
        parts = [layer(part, cache) for part in x.split(pieces, dim=1)]
        assert close(torch.cat(parts, 1), explicit(layer, x))


@given(
    window=st.integers(1, 30),
    pads=st.lists(st.integers(0, 20), min_size=3, max_size=3),
    cut=st.integers(1, 29),
)
def test_window_with_left_padding_is_the_row_alone(window, pads, cut):
    """Padded rows, read in two pieces, equal each row without its padding."""
    layer, T, pad = windowed(window), 30, torch.tensor(pads)
    x, cache, parts = numbers(3, T, 32), lu.KVCache(), []
    for start, end in ((0, cut), (cut, T)):
        key, query = torch.arange(end), torch.arange(start, end)[:, None]
        mask = (key <= query) & (
            (key >= pad[:, None])[:, None] | (key == query)
        )
        at = (torch.arange(start, end) - pad[:, None]).clamp_min(0)
        rope = lu.rope_table(at, lu.rope_frequencies(8))
        with torch.no_grad():
            parts.append(
                layer(
                    x[:, start:end],
                    cache,
                    mask[:, None],
                    [z[:, None] for z in rope],
                )
            )
    out = torch.cat(parts, 1)
    assert torch.isfinite(out).all()
    for row, n in enumerate(pads):
        with torch.no_grad():
            alone = explicit(layer, x[row : row + 1, n:])
        assert close(out[row : row + 1, n:], alone)


def test_word_outside_the_window_changes_nothing():
    """To the bit, on all the ways through the module."""
    for t, window in ((40, 6), (300, 6)):
        layer, x = windowed(window).eval(), numbers(1, t, 32)
        changed = x.clone()
        changed[:, 20] += 1
        for dtype in (torch.float32, torch.bfloat16):
            layer = layer.to(dtype)
            with torch.no_grad():
                one, two = (layer(z.to(dtype)) for z in (x, changed))
            moved = (one != two).any(-1)[0].nonzero().flatten().tolist()
            assert moved == list(range(20, 20 + window))


def test_window_of_bfloat16_is_near_the_exact_one():
    layer, x = windowed(50), numbers(2, 200, 32)
    with torch.no_grad():
        exact = explicit(layer, x)
        rounded = layer.bfloat16()(x.bfloat16()).float()
    assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_weights_in_a_window_are_those_that_are_used():
    layer, x = windowed(5, groups=2), numbers(2, 23, 32)
    weights = lu.attention_weights(layer, x)
    v = layer.project(x)[2].repeat_interleave(2, dim=1)
    assert close(layer.o_proj((weights @ v).transpose(1, 2).flatten(2)),
                 layer(x))  # fmt: skip
    assert ((weights > 0).sum(-1) <= 5).all()


def test_window_blocks_never_hold_the_square():
    sizes = []
    for t in (1024, 2048):
        layer, x = windowed(64), numbers(1, t, 32).requires_grad_()
        with Largest() as watch:
            layer(x).sum().backward()
        sizes.append(watch.elements)
    assert sizes[1] == 2 * sizes[0] < 2048 * 2048


def test_window_drops_its_weights_only_in_training():
    layer, x = windowed(20), numbers(1, 200, 32)
    layer.dropout = 0.5
    torch.manual_seed(0)
    assert not close(layer.train()(x), layer(x))
    assert close(layer.eval()(x), explicit(layer, x))


# --- tiles of every shape -----------------------------------------------------


def spelled_out(q, k, v, causal=True):
    """The equation, with grouped keys repeated."""
    k, v = (z.repeat_interleave(q.shape[1] // z.shape[1], 1) for z in (k, v))
    mask = lu.causal_mask(q.shape[2], k.shape[2]) if causal else None
    return lu.scaled_dot_product_attention(q, k, v, mask)


def assert_equal_both_ways(ours, theirs, inputs, tolerance=1e-5):
    """Output and all gradients, to a share of the largest number in each."""
    back = numbers(*ours.shape, seed=9).to(ours.dtype)
    pairs = [
        (ours, theirs),
        *zip(
            torch.autograd.grad(ours, inputs, back),
            torch.autograd.grad(theirs, inputs, back),
            strict=True,
        ),
    ]
    for a, b in pairs:
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1)


def inputs_of(b, heads, groups, t, s, d):
    return [
        numbers(b, n, length, d, seed=i).requires_grad_()
        for i, (n, length) in enumerate(((heads, t), (groups, s), (groups, s)))
    ]


@given(
    t=st.integers(1, 150),
    more=st.integers(-60, 60),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    d=st.sampled_from([1, 3, 16, 33]),
    block=st.sampled_from([1, 7, 16, 64, 200]),
    causal=st.booleans(),
)
def test_tiles_are_the_equation_for_any_shape(t, more, heads, d, block, causal):
    s = max(1, t + (abs(more) if causal else more))
    if block == 1:
        t, s = min(t, 20), min(s, 20)
        s = max(s, t) if causal else s
    qkv = inputs_of(2, *heads, t, s, d)
    assert_equal_both_ways(
        lu.flash_attention(*qkv, block=block, causal=causal),
        spelled_out(*qkv, causal),
        qkv,
    )


@pytest.mark.full
def test_tiles_are_linear_to_16384_tokens():
    sizes = []
    for t in (4096, 16384):
        qkv = inputs_of(1, 2, 1, t, t, 16)
        with Largest() as watch:
            lu.flash_attention(*qkv, block=64).sum().backward()
        sizes.append(watch.elements)
    assert sizes == [2 * 4096 * 16, 2 * 16384 * 16]


@pytest.mark.full
def test_peak_of_a_process_grows_with_the_text_and_its_square():
    from benches import train_attention

    # The smallest peaks are rough: an allocator takes memory in pieces.
    growth = train_attention.measure((1024, 2048, 4096, 8192))["growth"]
    assert growth["tiles"]["slope"] < 1.3 and growth["kernel"]["slope"] < 1.3
    assert growth["equation"]["slope"] > 1.7


def test_slope_is_the_power():
    from benches.train_attention import slope

    assert slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


def test_kernel_that_takes_a_call_is_told_as_the_chapter_tells_it():
    """The flash kernel takes float32 on a CPU; with dropout it is math."""
    names = {}
    for label, dropout in (("plain", 0.0), ("dropout", 0.5)):
        with Names() as log:
            z = numbers(1, 2, 16, 8)
            F.scaled_dot_product_attention(
                z, z, z, is_causal=True, dropout_p=dropout
            )
        names[label] = log.names
    assert any("flash_attention" in n for n in names["plain"])
    assert sum("bmm" in n for n in names["dropout"]) == 2
    assert not any("flash_attention" in n for n in names["dropout"])


class Names(TorchDispatchMode):
    """The operations that are carried out."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


# --- the same tiles as a Triton kernel, from the lab --------------------------

LAB = chapters.ROOT / "ch03_attention" / "lab_attention.ipynb"
HEAD = """import math, os
from importlib.util import find_spec
import torch
import torch.nn.functional as F
from llm_utils import causal_mask, scaled_dot_product_attention
"""


def kernel_source() -> str:
    """The lab's cells from the import of Triton to the public function."""
    cells = [
        cell["source"]
        for cell in chapters.code_cells(LAB)
        if cell["id"].startswith("lab-attention-triton")
        and not cell["id"].endswith(("-run", "-timing", "-test"))
    ]
    assert len(cells) == 7
    return "\n\n\n".join([HEAD, *cells])


RUN = """
import json, sys
from lab_kernels import triton_attention  # tells Triton to interpret
from test_ch03_deep import kernel_gap

for case in json.loads(sys.argv[1]):
    try:
        print(kernel_gap(triton_attention, *case))
    except ValueError as error:
        print(error)
"""


def in_own_process(folder, source, script, *arguments, **environment):
    """What a script prints that imports the lab's kernels, line by line.

    Triton decides when it is imported whether it interprets or compiles, so
    each way needs a process of its own.
    """
    pytest.importorskip("triton", reason="Triton is not installed here")
    (folder / "lab_kernels.py").write_text(source)
    (folder / "script.py").write_text(script)
    path = [str(chapters.ROOT / n) for n in ("", "book", "tests")]
    done = subprocess.run(
        [sys.executable, folder / "script.py", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "TRITON_CACHE_DIR": str(folder / "cache"),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[1:]  # the first says where they run


def run_kernels(folder, *cases):
    """For each case the gap as a number, or the sentence of a ValueError."""
    lines = in_own_process(folder, kernel_source(), RUN, json.dumps(cases))
    assert len(lines) == len(cases)
    return lines


def kernel_gap(attention, shape, causal, block, dtype="float32"):
    """Largest gap to the equation, as a share of the largest number."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, dtype)
    qkv = [z.detach().to(device, dtype) for z in inputs_of(*shape)]
    qkv = [z.requires_grad_() for z in qkv]
    exact = [z.detach().cpu().double().requires_grad_() for z in qkv]
    ours = attention(*qkv, causal=causal, block=block)
    theirs = spelled_out(*exact, causal)
    back = numbers(*ours.shape, seed=9)
    ours = ours, *torch.autograd.grad(ours, qkv, back.to(ours))
    theirs = theirs, *torch.autograd.grad(theirs, exact, back.double())
    return max(
        ((a.cpu() - b).abs().max() / b.abs().max().clamp_min(1)).item()
        for a, b in zip(ours, theirs, strict=True)
    )


def test_triton_kernel_is_the_equation(tmp_path):
    """Grouped, causal and not, with fewer keys than queries, in float16."""
    *gaps, half = run_kernels(
        tmp_path,
        ((2, 4, 2, 37, 50, 16), True, 16),
        ((2, 2, 1, 37, 50, 16), False, 16),
        ((1, 2, 1, 40, 17, 16), False, 16),
        ((1, 2, 1, 40, 40, 32), True, 32, "float16"),
    )
    assert all(float(gap) < 1e-5 for gap in gaps)
    assert 1e-5 < float(half) < 5e-3


@pytest.mark.full
def test_triton_kernel_for_more_shapes(tmp_path):
    shapes = [
        ((1, 1, 1, 1, 1, 16), 16),
        ((1, 3, 1, 64, 64, 32), 32),
        ((2, 2, 2, 16, 130, 16), 16),
        ((1, 4, 4, 129, 129, 64), 64),
        ((1, 6, 3, 33, 33, 16), 32),
    ]
    gaps = run_kernels(
        tmp_path,
        *((s, causal, block) for s, block in shapes for causal in (0, 1)),
    )
    assert all(float(gap) < 1e-5 for gap in gaps)


def test_triton_kernel_refuses_what_it_cannot_take(tmp_path):
    told = run_kernels(
        tmp_path,
        ((1, 2, 2, 9, 9, 12), True, 16),
        ((1, 2, 2, 9, 9, 16), True, 24),
        ((1, 3, 2, 9, 9, 16), True, 16),
        ((1, 2, 2, 9, 5, 16), True, 16),
    )
    assert "powers of two" in told[0] and "powers of two" in told[1]
    assert "must divide" in told[2] and "as many keys" in told[3]


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lab_kernels import dkv_kernel, dq_kernel, forward_kernel

fixed = dict(D=64, M=64, N=64, causal=True, precision="tf32")
kinds = dict(LSE="*fp32", DELTA="*fp32", scale="fp32", T="i32", S="i32",
             repeats="i32") | dict.fromkeys(fixed, "constexpr")
for kernel in (forward_kernel, dq_kernel, dkv_kernel):
    signature = {a: kinds.get(a, "*bf16") for a in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs={
        (kernel.arg_names.index(a),): value for a, value in fixed.items()})
    done = triton.compile(source, target=GPUTarget("cuda", 80, 32))
    assert done.metadata.shared < 96 * 1024
    assert "mma.sync" in done.asm["ptx"]  # on the units for matrices
print("compiled")
"""


@pytest.mark.full
def test_triton_kernels_compile_for_a_gpu(tmp_path):
    """To machine code for an A100, which needs no such card."""
    source = kernel_source().replace("not torch.cuda.is_available()", "False")
    lines = in_own_process(tmp_path, source, COMPILE, TRITON_INTERPRET="0")
    assert lines == ["compiled"]

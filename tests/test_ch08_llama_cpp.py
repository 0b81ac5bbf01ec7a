"""Chapter 8's GGUF files in llama.cpp itself, by the npm package that holds it.

Runs where LLAMA_CPP_NODE names a folder in which somebody has called
`npm install node-llama-cpp`; skipped elsewhere, since it is large.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from test_ch08 import CLASSIC, LLAMA, small_model, user

from llm_utils import (
    DIGIT_PATTERN,
    BPETokenizer,
    ChatFormat,
    export_gguf,
    generate,
)

PACKAGE = os.environ.get("LLAMA_CPP_NODE")
TOKENS = 24
TEXTS = (
    "Hob paid 12 pence for 125 pears, it's late\n\n 7  x",
    "12 125",
    "a \n b é🦦 it's",
)
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not PACKAGE, reason="LLAMA_CPP_NODE is not set"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train([TEXTS[0]] * 3, 300, pattern=DIGIT_PATTERN)


def our_prompts(tokenizer):
    chat = ChatFormat(tokenizer)
    return [chat.encode(user(t), add_generation_prompt=True) for t in TEXTS]


def read_by_llama_cpp(path, tokenizer):
    """Our ids of some prompts, llama.cpp's of the same, and what it writes."""
    ours = our_prompts(tokenizer)
    cases = [{"text": tokenizer.decode(ids), "ids": ids} for ids in ours]
    job, answer = path.with_suffix(".job"), path.with_suffix(".answer")
    job.write_text(
        json.dumps({"path": str(path), "cases": cases, "tokens": TOKENS})
    )
    script = Path(__file__).parent / "llama_cpp.mjs"
    subprocess.run(
        ["node", script, PACKAGE, job, answer], check=True, timeout=300
    )
    found = json.loads(answer.read_text())
    return ours, [a["ids"] for a in found], [a["new"] for a in found]


def written_by_us(model, prompts):
    return [
        generate(model, torch.tensor(ids), TOKENS)[len(ids) :].tolist()
        for ids in prompts
    ]


@pytest.mark.parametrize(
    "changes", [{}, LLAMA, CLASSIC], ids=["qwen3", "llama", "gpt2"]
)
def test_the_same_ids_and_the_same_tokens(changes, tokenizer, tmp_path):
    model = small_model(7, vocab_size=tokenizer.vocab_size, **changes)
    path = export_gguf(model, tokenizer, tmp_path / "m.gguf")
    ours, theirs, new = read_by_llama_cpp(path, tokenizer)
    assert theirs == ours
    assert new == written_by_us(model, ours)


def test_eight_bits_write_what_is_nearly_best(tokenizer, tmp_path):
    """llama.cpp rounds what it multiplies with, too: near ties may turn."""
    model = small_model(7, vocab_size=tokenizer.vocab_size)
    path = export_gguf(model, tokenizer, tmp_path / "m.gguf", "Q8_0")
    ours, theirs, new = read_by_llama_cpp(path, tokenizer)
    assert theirs == ours
    for ids, written in zip(ours, new, strict=True):
        with torch.no_grad():
            z = model(torch.tensor([ids + written]))[0][0, len(ids) - 1 : -1]
        chosen = z.gather(1, torch.tensor(written)[:, None])[:, 0]
        assert ((z.amax(1) - chosen) < 0.1 * z.std(1)).all()


def test_without_the_rotary_permutation_it_writes_something_else(
    tokenizer, tmp_path
):
    model = small_model(7, vocab_size=tokenizer.vocab_size, **LLAMA)
    right = written_by_us(model, our_prompts(tokenizer))
    with torch.no_grad():  # turned back, so that the export leaves them as here
        for block in model.blocks:
            for layer in block.attention.q_proj, block.attention.k_proj:
                pairs = layer.weight.view(-1, 8, 2, layer.weight.shape[1])
                layer.weight.copy_(pairs.transpose(1, 2).flatten(0, 2))
    path = export_gguf(model, tokenizer, tmp_path / "m.gguf")
    assert read_by_llama_cpp(path, tokenizer)[2] != right

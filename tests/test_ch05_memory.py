"""Chapter 5: memory foretold and measured, eight-bit means, TensorBoard."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_ch05
import torch
from test_ch05 import CONFIG, make_model, same_weights

import llm_utils as lu

# the fixtures of chapter 5
tokenizer, shards, data = test_ch05.tokenizer, test_ch05.shards, test_ch05.data

SHAPES = {
    "pocket": lu.ModelConfig.preset("pocket", n_layer=3, vocab_size=1000),
    "classic": lu.ModelConfig.preset(
        "gpt2-124m-classic",
        n_layer=3,
        d_model=96,
        n_head=3,
        vocab_size=500,
        context_length=128,
    ),
    "deep": lu.ModelConfig(
        n_layer=8,
        n_head=2,
        d_model=64,
        d_ff=200,
        vocab_size=300,
        activation="relu2",
        logit_softcap=15.0,
        pad_vocab_to=64,
        tie_embeddings=False,
    ),
}
B, T = 4, 96


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss_rows", [0, 100])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_activations_are_as_foretold(
    shape, loss_rows, checkpointing, accumulation
):
    """What lives when the forward pass ends, or when a block is made again."""
    config = SHAPES[shape]
    model = lu.GPT(config).train()
    model.checkpointing, model.loss_rows = checkpointing, loss_rows
    ids = torch.randint(config.vocab_size, (B // accumulation, T))
    at = []

    def look(*_):
        made = [p for p in model.parameters() if p.grad is not None]
        if config.tie_embeddings:  # the head's waits for the embedding's
            made.append(model.head.weight)
        at.append(live.now - sum(p.nbytes for p in made))

    with lu.LiveMemory(model) as live:
        loss = model(ids, ids)[1]
        at.append(live.now)
        model.blocks[-1].feed_forward.down_proj.register_forward_pre_hook(look)
        loss.backward()
    assert len(at) == 1 + checkpointing
    parts = lu.memory_bytes(
        config,
        B,
        T,
        checkpointing=checkpointing,
        loss_rows=loss_rows,
        accumulation=accumulation,
    )
    assert max(at) == pytest.approx(parts["activations"], rel=0.06)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_mixed_precision_less_is_held_than_in_float32(checkpointing):
    """The lab on parallelism plans with four bytes a number."""
    config = replace(SHAPES["pocket"], d_model=128, n_head=4, n_kv_head=2)
    model = lu.GPT(config).train()
    model.checkpointing = checkpointing
    ids = torch.randint(config.vocab_size, (16, 128))
    with lu.LiveMemory(model) as live:
        with lu.mixed_precision("cpu", "bfloat16"):
            loss = model(ids, ids)[1]
        held = live.now
        assert loss.isfinite()
    foretold = lu.memory_bytes(config, 16, 128, checkpointing=checkpointing)
    assert held < foretold["activations"]
    if not checkpointing:  # else a block made again is foretold besides
        assert held > 0.6 * foretold["activations"]


def test_checkpointing_changes_no_gradient_and_saves_memory(tokenizer, data):
    gradients, peaks = [], []
    x, y = lu.Batches(data, 8, 64).next()
    for checkpointing in (False, True):
        torch.manual_seed(3)  # dropout must fall alike, twice
        model = make_model(tokenizer, n_layer=6, dropout=0.1).train()
        model.checkpointing = checkpointing
        with lu.LiveMemory(model) as live:
            lu.batch_loss(model, x, y, CONFIG)
        peaks.append(live.peak)
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))
    assert peaks[1] < 0.6 * peaks[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adamw8bit"])
def test_optimiser_state_is_as_foretold(shape, optimizer):
    config = SHAPES[shape]
    model = lu.GPT(config)
    settings = lu.TrainConfig(optimizer=optimizer, precision="float32")
    optimizers = lu.make_optimizers(model, settings)
    ids = torch.randint(config.vocab_size, (2, 16))
    lu.batch_loss(model, ids, ids, settings)
    parts = lu.memory_bytes(config, 2, 16, optimizer=optimizer)
    assert parts["gradients"] == sum(p.grad.nbytes for p in model.parameters())
    assert parts["parameters"] == parts["gradients"]
    lu.optimizer_step(model, optimizers, 0, settings)
    held = sum(
        z.nbytes
        for o in optimizers
        for s in o.state.values()
        for z in s.values()
        if z.dim()
    )
    assert held == pytest.approx(parts["optimizer"], rel=0.01)


def test_what_cannot_be_foretold_is_refused():
    config = SHAPES["deep"]
    whole = lu.memory_bytes(config, 4, 32)
    quarter = lu.memory_bytes(config, 4, 32, shards=4)
    for part in ("parameters", "gradients", "optimizer"):
        assert quarter[part] == pytest.approx(whole[part] / 4, abs=1)
    assert quarter["activations"] == whole["activations"]
    with pytest.raises(ValueError, match="adamw8bit"):
        lu.memory_bytes(config, optimizer="sgd")
    with pytest.raises(ValueError, match="equal pieces"):
        lu.memory_bytes(config, 5, accumulation=2)


# -- eight bits --------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_those_of_the_paper(signed):
    codes = lu._dynamic_codes(signed)
    assert len(codes.unique()) == 256 and codes[-1] == 1 and 0 in codes
    assert (codes < 0).any() == signed
    lowest = codes[codes > 0].min()
    assert 1e-7 < lowest < 1e-6  # seven powers of ten


@pytest.mark.parametrize("shape", [(1, 1), (3, 100), (16, 16), (7, 300)])
def test_quantised_is_the_nearest_code_of_its_block(shape):
    draw = torch.Generator().manual_seed(1)
    codes = lu._dynamic_codes(True)
    values = torch.randn(shape, generator=draw) * 10.0 ** torch.randint(
        -4, 3, shape, generator=draw
    )
    indices, scales = lu.quantize_blocks(values, codes, block=64)
    assert indices.dtype == torch.uint8 and indices.shape == values.shape
    assert len(scales) == -(-values.numel() // 64)
    back = lu.dequantize_blocks(indices, scales, codes, block=64)
    for i, block in enumerate(values.flatten().split(64)):
        top = block.abs().max()
        best = ((block / top)[:, None] - codes).abs().argmin(1)
        got = back.flatten()[64 * i : 64 * i + len(block)]
        assert torch.allclose(got, codes[best] * top, rtol=1e-5, atol=0)
    zeros = torch.zeros(3, 5)
    assert torch.equal(
        lu.dequantize_blocks(*lu.quantize_blocks(zeros, codes), codes), zeros
    )


def test_a_vector_moves_as_under_torchs_adamw_and_a_matrix_nearly():
    draw = torch.Generator().manual_seed(2)
    ours = [
        torch.nn.Parameter(torch.randn(s, generator=draw))
        for s in [(50,), (40, 30)]
    ]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    first = [p.detach().clone() for p in ours]
    options = dict(lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    a, b = lu.Adam8bit(ours, **options), torch.optim.AdamW(theirs, **options)
    for _ in range(20):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape, generator=draw) + 0.5
            q.grad = p.grad.clone()
        a.step()
        b.step()
    assert torch.allclose(ours[0], theirs[0], atol=1e-6)
    off = (ours[1] - theirs[1]).norm() / (theirs[1] - first[1]).norm()
    assert 0 < off < 0.05


@pytest.mark.parametrize("kind", ["adamw8bit"])
def test_eight_bits_resume_to_the_bit(tokenizer, data, tmp_path, kind):
    config = replace(CONFIG, optimizer=kind, max_minutes=0.0)
    whole, parts = make_model(tokenizer), make_model(tokenizer)
    calm = lu.train(
        whole, data, replace(config, max_minutes=None), progress=None
    )
    for _ in range(3):  # a step each, through a checkpoint
        lu.train(
            parts, data, config, folder=tmp_path, resume=True, progress=None
        )
    rest = make_model(tokenizer, seed=9)
    after = lu.train(
        rest,
        data,
        replace(config, max_minutes=None),
        folder=tmp_path,
        resume=True,
        progress=None,
    )
    assert calm.records == after.records and same_weights(whole, rest)


# -- TensorBoard ---------------------------------------------------------------------


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    board = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    board.Reload()
    return {
        tag: {e.step: e.value for e in board.Scalars(tag)}
        for tag in board.Tags()["scalars"]
    }


def test_tensorboard_shows_what_the_log_says(tokenizer, data, tmp_path):
    """Also when the run was cut short, and began without TensorBoard."""
    config = replace(CONFIG, eval_every=4, eval_documents=3)
    stop = replace(config, max_minutes=0.0)
    for part in (
        stop,
        replace(stop, tensorboard=True),
        replace(config, tensorboard=True),
    ):
        lu.train(
            make_model(tokenizer),
            data,
            part,
            data,
            tmp_path,
            resume=True,
            progress=None,
        )
    said = {}
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        group = (
            "validation"
            if "gap" in entry
            else "train"
            if "norm" in entry
            else "system"
        )
        for name, value in entry.items():
            if name != "step" and value is not None:
                curve = said.setdefault(f"{group}/{name}", {})
                curve[entry["step"]] = float(np.float32(value))
    assert list(said["train/loss"]) == list(range(1, 13))
    assert {
        "validation/loss",
        "system/seconds_per_step",
        "system/memory_bytes",
    } < said.keys()
    assert scalars(tmp_path / "tensorboard") == said


def test_without_tensorboard_one_is_told_so(
    tokenizer, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ImportError, match="needs the package tensorboard"
    ) as caught:
        lu.train(
            make_model(tokenizer),
            data,
            replace(CONFIG, tensorboard=True),
            folder=tmp_path,
            progress=None,
        )
    assert "\n" not in str(caught.value)
    lu.train(
        make_model(tokenizer), data, CONFIG, folder=tmp_path, progress=None
    )
    assert not Path(tmp_path / "tensorboard").exists()

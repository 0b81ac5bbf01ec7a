"""A training step: ours, compiled and not, and transformers' GPT-2.

The same model on both sides, GPT-2 as it was in 2019, of two sizes, from the
same weights and with the same rows: bfloat16 autocast, no dropout, AdamW in
one fused pass, gradients clipped. Ours goes through chapter 5's own
functions; the vocabulary is padded to a multiple of 64, as its recipe does, and
the loss of GPT-2's size goes by slices of logits, as at its preset.
Both sides run in one process, in turn, with the book's settings for memory.
"""

import tempfile
from dataclasses import replace
from functools import partial

import torch

from bench import side_by_side
from llm_utils import (
    GPT,
    RECIPES,
    Compiled,
    ModelConfig,
    TrainConfig,
    batch_loss,
    count_parameters,
    flops_per_token,
    keep_freed_memory,
    make_optimizers,
    optimizer_step,
    peak_flops,
    to_transformers,
)

PACKAGES = ("torch", "transformers")
SIZES = {
    "pocket": {
        "shape": dict(
            n_layer=6,
            n_head=6,
            d_model=192,
            vocab_size=2048,
            context_length=256,
        ),
        "batch": 16,
        "loss_rows": 0,
        "rounds": 15,
    },
    "gpt2": {
        "shape": dict(
            n_layer=12,
            n_head=12,
            d_model=768,
            vocab_size=50257,
            context_length=256,
        ),
        "batch": 2,
        "loss_rows": RECIPES["gpt2-124m"].loss_rows,
        "rounds": 15,
    },
}
SETTINGS = TrainConfig(
    optimizer="adamw", warmup_steps=0, learning_rate=1e-4, clip_norm=1.0
)


def our_model(shape: dict, loss_rows: int) -> GPT:
    """GPT-2 of this shape, with our padding of the vocabulary."""
    config = ModelConfig.preset("gpt2-124m-classic", pad_vocab_to=64, **shape)
    model = GPT(config).train()
    model.loss_rows = loss_rows
    return model


def their_model(model: GPT):
    """The same weights in transformers' GPT-2, without dropout."""
    from transformers import GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        to_transformers(model, None, folder)
        return GPT2LMHeadModel.from_pretrained(
            folder, attn_implementation="sdpa"
        ).train()


def our_step(model, compiled, optimizers, x, y, settings=SETTINGS) -> float:
    """One step by chapter 5's functions; the loss."""
    with compiled:
        loss = batch_loss(model, x, y, settings)
    optimizer_step(model, optimizers, 0, settings)
    return loss


def their_step(model, optimizer, x, y, short=True) -> float:
    """One step as one writes it by hand; the loss.

    (The shifted rows are handed over as they are: transformers is asked for
    the logits of x, and for the loss of its own function with y.)
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=short):
        loss = model(x, labels=y, shift_labels=y).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def bare_products(model: GPT, tokens: int, dtype=torch.bfloat16):
    """A function that does a step's matrix products, and nothing else.

    Each forward and twice backward: what no step is quicker than.
    Attention's own are left out.
    """
    weights = [
        part.weight.detach().to(dtype)
        for part in model.modules()
        if isinstance(part, torch.nn.Linear)
    ]
    rows = {
        size: torch.randn(tokens, size, dtype=dtype)
        for weight in weights
        for size in weight.shape
    }

    def work() -> None:
        for weight in weights:
            out, into = (rows[size] for size in weight.shape)
            into @ weight.T
            out @ weight
            out.T @ into

    return work


def compare(
    shape: dict,
    batch: int,
    loss_rows: int,
    rounds: int,
    precision: str = "bfloat16",
    seed: int = 0,
) -> dict:
    """Seconds of a step on each side, and their ratios."""
    settings = replace(SETTINGS, precision=precision)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randint(
        shape["vocab_size"],
        (2, batch, shape["context_length"]),
        generator=generator,
    )
    plain, quick = (our_model(shape, loss_rows) for _ in range(2))
    theirs = their_model(plain)
    adamw = torch.optim.AdamW(
        theirs.parameters(),
        lr=SETTINGS.learning_rate,
        betas=SETTINGS.betas,
        fused=True,
    )
    fast = Compiled(quick, replace(settings, compile=True))
    ours = {
        "ours": (plain, Compiled(plain, settings)),
        "ours_compiled": (quick, fast),
    }
    ways = {
        "transformers": partial(
            their_step, theirs, adamw, x, y, precision == "bfloat16"
        ),
        **{
            name: partial(
                our_step,
                *pair,
                make_optimizers(pair[0], settings),
                x,
                y,
                settings,
            )
            for name, pair in ours.items()
        },
    }
    first = {name: way() for name, way in ways.items()}
    ways["products"] = bare_products(
        plain, x.numel(), getattr(torch, precision)
    )
    for way in ways.values():  # what is done only once has been done
        way()
    figures = side_by_side(rounds, **ways)
    work = flops_per_token(plain.config) * x.numel()
    best = figures["ours_compiled_seconds"]
    return {
        "parameters": count_parameters(plain),
        "tokens": x.numel(),
        "loss_rows": loss_rows,
        **{f"{name}_first_loss": loss for name, loss in first.items()},
        **figures,
        "compiled": bool(fast.blocks),
        "utilisation": work / best / peak_flops("cpu", precision),
    }


def measure(precision: str = "bfloat16") -> dict:
    keep_freed_memory()
    return {
        "threads": torch.get_num_threads(),
        "peak_gflops": peak_flops("cpu", precision) / 1e9,
        **{
            name: compare(**size, precision=precision)
            for name, size in SIZES.items()
        },
    }

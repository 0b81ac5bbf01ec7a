"""Tokens a second of a training step of GPT-2's size, held for long on one GPU.

A card that is kept busy reaches the limit of its power after some seconds and
lowers its clock, so each way runs for SECONDS and only the second half of them
counts; what the card draws is read meanwhile. The ways differ from the preset
in one thing each. It needs nothing beside llm_utils, so it also runs by itself:

    python book/benches/gpu_pace.py
"""

import json
import shutil
import subprocess
import time

import torch

from llm_utils import (
    GPT,
    Compiled,
    ModelConfig,
    TrainConfig,
    batch_loss,
    flops_per_token,
    make_optimizers,
    optimizer_step,
    peak_flops,
)

PACKAGES = ("torch", "triton")
SECONDS = 14
TRAIN = TrainConfig(
    batch_size=128,
    accumulation=4,
    context=1024,
    compile=True,
    loss_rows=2**15,
)
CLASSIC = dict(preset="gpt2-124m-classic", pad_vocab_to=64)
WAYS = {  # (of the model, of the training)
    "the preset": ({}, {}),
    "larger pieces": ({}, dict(accumulation=2)),
    "twice the batch": ({}, dict(batch_size=256, accumulation=8)),
    "stream in bfloat16": (dict(stream=torch.bfloat16), {}),
    "squared ReLU": (dict(activation="relu2", d_ff=3072), {}),
    "twelve heads of 64": (dict(n_head=12, n_kv_head=12), {}),
    "no kernel for the loss": ({}, dict(loss_rows=0)),
    "GPT-2, AdamW": (CLASSIC, dict(optimizer="adamw")),
}


def card() -> dict:
    """What nvidia-smi says of power and clock, if it is there."""
    names = ("power.draw", "power.limit", "clocks.sm", "clocks.max.sm")
    if shutil.which("nvidia-smi") is None:
        return {}
    query = ["--query-gpu=" + ",".join(names), "--format=csv,noheader,nounits"]
    said = subprocess.run(
        ["nvidia-smi", *query], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    return dict(zip(names, map(float, said.split(","))))


def pace(device, shape: dict, changes: dict, seconds: float) -> dict:
    """Train on random ids for so long; the pace of the second half."""
    shape = {"preset": "gpt2-124m", "vocab_size": 50257, **shape}
    stream = shape.pop("stream", None)
    config = ModelConfig.preset(shape.pop("preset"), **shape)
    model = GPT(config).to(device)
    if stream:  # all that is added to it takes its format
        model.drop.register_forward_hook(lambda _, args, x: x.to(stream))
    train = TrainConfig(**{**vars(TRAIN), **changes})
    model.loss_rows = train.loss_rows
    compiled, optimizers = Compiled(model, train), make_optimizers(model, train)
    size = (2, train.batch_size, train.context)
    x, y = torch.randint(config.vocab_size, size)
    if device.type == "cuda":  # else each copy waits for the card
        x, y = x.pin_memory(), y.pin_memory()

    def step(i):
        with compiled:
            batch_loss(model, x, y, train)
        optimizer_step(model, optimizers, i, train)

    step(0)
    began, half, steps = time.perf_counter(), None, 0
    while (now := time.perf_counter() - began) < seconds:
        if half is None and now > seconds / 2:
            half, steps = now, 0
        step(steps)
        steps += 1
    drawn = card() if device.type == "cuda" else {}
    speed = x.numel() * steps / (now - half)
    work = flops_per_token(config, train.context)
    return {
        "tokens_per_second": speed,
        "utilisation": speed * work / peak_flops(device),
        **drawn,
    }


def measure() -> dict:
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here to be measured")
    torch.set_float32_matmul_precision("high")
    device, figures = torch.device("cuda"), {}
    for name, (shape, changes) in WAYS.items():
        torch.cuda.empty_cache()
        figures[name] = pace(device, shape, changes, SECONDS)
        print(f"{name:24} {figures[name]['tokens_per_second']:9,.0f}")
    return {"device": torch.cuda.get_device_name(), "ways": figures}


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))

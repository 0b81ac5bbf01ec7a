"""A step of instruction tuning and one of DPO: ours and TRL's trainers.

The model of `pocket`, from the same first weights, with the same batches of
Pocket World: real tasks and pairs, padded as chapter 6 pads them. In float32
and with bfloat16 autocast; no checkpointing, no dropout, AdamW in one fused
pass, gradients clipped. The reference's log-probabilities are computed once
on both sides. TRL's step is its trainer's own: `training_step`, clipping, and
the optimiser. Sides take turns in one process, batch after batch; memory is
measured in a process for each.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from bench import side_by_side
from benches.train_attention import watch
from chapters import ROOT
from llm_utils import (
    GPT,
    BPETokenizer,
    ChatFormat,
    Compiled,
    InstructionDataset,
    ModelConfig,
    PreferenceDataset,
    TrainConfig,
    answer_loss,
    collate,
    collate_pairs,
    count_parameters,
    keep_freed_memory,
    length_batches,
    make_optimizers,
    mixed_precision,
    optimizer_step,
    pair_logprobs,
    preference_loss,
    sequence_logprob,
    to_transformers,
)

PACKAGES = ("torch", "transformers", "trl", "accelerate")
ROWS, BATCHES, BETA, RATE = 16, 6, 0.3, 1e-5
PRECISIONS = ("float32", "bfloat16")
BAR = 1.3


def rows_of(task: str) -> list:
    """Rows of Pocket World, enough for all batches."""
    sys.path.insert(0, str(ROOT / "ch01_data"))
    from pocket_world import preferences, tasks

    make = tasks if task == "sft" else preferences
    return list(make(ROWS * BATCHES, seed=11, split="train"))


def model_and_data(task: str):
    """The model with its first weights, and the data set, in tokens."""
    rows = rows_of(task)
    texts = [r.prompt + " " + getattr(r, "answer", "") for r in rows_of("sft")]
    tokenizer = BPETokenizer.train(texts, 2048)
    config = ModelConfig.preset("pocket", vocab_size=2048)
    make = InstructionDataset if task == "sft" else PreferenceDataset
    data = make(rows, ChatFormat(tokenizer), config.context_length)
    return GPT(config), data


def batches_of(task: str, model: GPT, data) -> list[dict]:
    """Batches in both sides' form, rows of like length together."""
    lengths = [len(example[0]) for example in data.examples]
    drawn = length_batches(lengths, ROWS, torch.Generator().manual_seed(0))
    reference = None if task == "sft" else pair_logprobs(model, data)
    out = []
    for rows in drawn:
        examples = [data.examples[i] for i in rows]
        if task == "sft":
            x, y = collate(examples, data.pad)
            ids = torch.cat([x, torch.full_like(x[:, :1], data.pad)], 1)
            labels = torch.cat([torch.full_like(y[:, :1], -100), y], 1)
            last = (labels != -100).long() * torch.arange(ids.shape[1])
            there = torch.arange(ids.shape[1]) <= last.max(1).values[:, None]
            ids = torch.where(labels != -100, labels, ids)
            ours = (x, y)
            theirs = {"input_ids": ids, "labels": labels}
        else:
            ids, mask = collate_pairs(examples, data.pad)
            held = reference[rows].T.contiguous()
            last = mask * torch.arange(ids.shape[1])
            there = torch.arange(ids.shape[1]) <= last.max(1).values[:, None]
            ours = (ids, mask, held)
            theirs = {
                "input_ids": ids,
                "completion_mask": mask,
                "ref_chosen_logps": held[0],
                "ref_rejected_logps": held[1],
            }
        theirs["attention_mask"] = there.long()
        out.append({"ours": ours, "trl": theirs})
    return out


def our_way(task, model, batches, precision, compiled=False):
    """A function that takes one step by the chapters' functions."""
    settings = TrainConfig(
        optimizer="adamw",
        learning_rate=RATE,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.0,
        precision=precision,
        compile=compiled,
    )
    optimizers = make_optimizers(model.train(), settings)
    fast = Compiled(model, settings, dynamic=True)
    turn = itertools.cycle(batches)

    def step() -> float:
        batch = next(turn)["ours"]
        with fast, mixed_precision("cpu", precision):
            if task == "sft":
                loss = answer_loss(model, None, *batch)
            else:
                ids, mask, held = batch
                policy = sequence_logprob(model, ids, mask).view(2, -1)
                tokens = mask[:, 1:].sum(1).view(2, -1)
                loss = preference_loss("sigmoid", policy, held, tokens, BETA)
        loss.backward()
        optimizer_step(model, optimizers, 0, settings)
        return loss.item()

    return step


def trl_way(task, model, batches, precision):
    """A function that takes one step by TRL's trainer."""
    import transformers
    import trl
    from datasets import Dataset

    transformers.logging.set_verbosity_error()
    words = BPETokenizer.train(["two words"], 300).to_transformers()
    words.pad_token = words.eos_token = "<|endoftext|>"
    some = {"input_ids": [[1, 2]], "labels": [[-100, 2]]}
    if task == "dpo":
        some = {"prompt": ["two"], "chosen": [" words"], "rejected": [" two"]}
        more = {"beta": BETA, "precompute_ref_log_probs": False}
    else:
        more = {}
    with tempfile.TemporaryDirectory() as folder:
        to_transformers(model, None, Path(folder) / "model")
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            Path(folder) / "model", attn_implementation="sdpa"
        )
        config = trl.SFTConfig if task == "sft" else trl.DPOConfig
        trainer = (trl.SFTTrainer if task == "sft" else trl.DPOTrainer)(
            model=theirs,
            args=config(
                output_dir=folder,
                use_cpu=True,
                bf16=precision == "bfloat16",
                gradient_checkpointing=False,
                optim="adamw_torch_fused",
                adam_beta2=0.95,
                weight_decay=0.0,
                learning_rate=RATE,
                report_to="none",
                disable_tqdm=True,
                **more,
            ),
            train_dataset=Dataset.from_dict(some),
            processing_class=words,
        )
    if task == "dpo":  # the reference is in the batches: it is not needed
        trainer.precompute_ref_logps, trainer.ref_model = True, None
    trainer.current_gradient_accumulation_steps = 1
    optimizer = trainer.create_optimizer()
    called, trainer.optimizer = trainer.accelerator.prepare(
        trainer.model, optimizer
    )
    called.train()
    turn = itertools.cycle(batches)

    def step() -> float:
        loss = trainer.training_step(called, dict(next(turn)["trl"]))
        trainer.accelerator.clip_grad_norm_(called.parameters(), 1.0)
        trainer.optimizer.step()
        called.zero_grad()
        trainer._metrics["train"].clear()
        return loss.item()

    return step


def ways_of(task: str, precision: str, names=("trl", "ours", "ours_compiled")):
    """The ways by name, each with a model of its own, and the model."""
    model, data = model_and_data(task)
    batches = batches_of(task, model, data)
    ways = {}
    for name in names:
        if name == "trl":
            ways[name] = trl_way(task, model, batches, precision)
        else:
            own = GPT(model.config)
            own.load_state_dict(model.state_dict())
            ways[name] = our_way(
                task, own, batches, precision, name == "ours_compiled"
            )
    return ways, model, batches


def memory(task: str, way: str, precision: str) -> None:
    """Print the peak of this process, and its growth during steps, in bytes."""
    ways, *_ = ways_of(task, precision, (way,))
    held, stop = [0], threading.Event()
    watcher = threading.Thread(target=watch, args=(stop, held))
    watcher.start()
    time.sleep(0.1)
    before = held[0]
    if way != "trl":
        keep_freed_memory()  # as `finetune` does
    for _ in range(BATCHES):
        ways[way]()
    stop.set()
    watcher.join()
    print(json.dumps({"peak": held[0], "growth": held[0] - before}))


def memories(task: str, precision: str) -> dict:
    """Peak memory of TRL's side and of ours, each in a process of its own."""
    out = {}
    for way in ("trl", "ours"):
        command = [sys.executable, "-m", __name__, task, way, precision]
        told = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT / "book",
        ).stdout.splitlines()[-1]
        for name, size in json.loads(told).items():
            out[f"{way}_{name}_bytes"] = size
    for name in ("peak", "growth"):
        ours = out[f"ours_{name}_bytes"]
        out[f"{name}_over_ours"] = out[f"trl_{name}_bytes"] / ours
    return out


def compare(task: str, precision: str, rounds: int = 12) -> dict:
    """Seconds of a step by each way, the ratios, the first losses, memory."""
    ways, model, batches = ways_of(task, precision)
    first = {name: way() for name, way in ways.items()}
    for _ in range(BATCHES):  # all shapes have been seen, all is compiled
        for way in ways.values():
            way()
    figures = side_by_side(rounds, **ways)
    quickest = max(figures["over_ours"], figures["over_ours_compiled"])
    held = memories(task, precision)
    tokens = [b["trl"]["input_ids"].numel() for b in batches]
    return {
        "parameters": count_parameters(model),
        "rows": len(batches[0]["trl"]["input_ids"]),
        "tokens": statistics.mean(tokens),
        **{f"{name}_first_loss": loss for name, loss in first.items()},
        **figures,
        **held,
        "within": quickest >= BAR and held["growth_over_ours"] > 1,
    }


def measure() -> dict:
    """The figures of both tasks in both precisions."""
    keep_freed_memory()
    return {
        "threads": torch.get_num_threads(),
        "bar": BAR,
        **{
            task: {
                precision: compare(task, precision) for precision in PRECISIONS
            }
            for task in ("sft", "dpo")
        },
    }


if __name__ == "__main__":
    memory(*sys.argv[1:])

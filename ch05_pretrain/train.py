"""Train a model of any preset, on one device or many.

    python ch05_pretrain/train.py --preset pocket --data pocket_world \\
        --tokenizer artifacts/pocket/tokenizer --out artifacts/mine

    torchrun --nproc-per-node 8 ch05_pretrain/train.py --preset gpt2-124m \\
        --data HuggingFaceFW/fineweb-edu --tokenizer FOLDER_OF_GPT2 \\
        --max-minutes 55

    torchrun --nproc-per-node 8 ch05_pretrain/train.py --preset gpt2-124m \\
        --data FOLDER --tokenizer GPT2 --fsdp 4 --tensor-parallel 2

    torchrun --nproc-per-node 8 ch05_pretrain/train.py --preset gpt2-124m \\
        --data FOLDER --tokenizer GPT2 --optimizer adamw --deepspeed zero.json

After `--max-minutes` it stops with a checkpoint, and the same command goes on
from there; a run in shards may go on with other numbers, on as many processes
as they make. All it does is in `llm_utils.pretrain`, built in chapter 5, and
in `llm_utils.Plan` and `llm_utils.ZeroPlan`, built in the lab on parallelism.
"""

import argparse
import dataclasses
import os
import signal
import sys

import llm_utils

HELP = {
    "data_parallel": "copies of the model (or of its shards)",
    "fsdp": "processes that share one copy's weights, gradients and means",
    "tensor_parallel": "processes that compute each layer together",
    "pipeline_parallel": "stages of whole layers",
}


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--preset", default="gpt2-124m", choices=list(llm_utils.RECIPES)
    )
    parser.add_argument(
        "--data",
        required=True,
        help="shards; or text, JSONL or Parquet files; or an id on the Hub",
    )
    parser.add_argument(
        "--tokenizer",
        required=True,
        help="a tokenizer of chapter 2, or a folder with GPT-2's files",
    )
    parser.add_argument(
        "--out", default="artifacts/gpt2-124m", help="for shards, run, model"
    )
    parser.add_argument("--max-minutes", type=float, help="then stop")
    parser.add_argument("--max-documents", type=int, help="read no more")
    parser.add_argument(
        "--fresh", action="store_true", help="begin anew: forget the old run"
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        default=argparse.SUPPRESS,
        help="write event files beside the log",
    )
    spread = parser.add_argument_group(
        "processes: their product is what torchrun starts (without any of "
        "these: a copy on each)"
    )
    for field in dataclasses.fields(llm_utils.Plan):
        flag = f"--{field.name.replace('_', '-')}"
        spread.add_argument(flag, type=int, metavar="N", help=HELP[field.name])
    spread.add_argument(
        "--deepspeed",
        metavar="FILE",
        help="ZeRO over all of them, by this JSON file for DeepSpeed",
    )
    recipe = parser.add_argument_group("changes to the preset's recipe")
    for field in dataclasses.fields(llm_utils.TrainConfig):
        kind = int if field.name == "context" else field.type
        if kind in (int, float, str):
            flag = f"--{field.name.replace('_', '-')}"
            recipe.add_argument(flag, type=kind, default=argparse.SUPPRESS)
    return vars(parser.parse_args())


def plan(options):
    """The plan that the flags ask for, or None for a copy on each."""
    sizes = {name: options.pop(name) for name in HELP}
    sizes = {name: n for name, n in sizes.items() if n is not None}
    if file := options.pop("deepspeed"):
        if sizes:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in sizes)
            raise ValueError(
                f"--deepspeed spreads by itself: leave out {flags}"
            )
        return llm_utils.ZeroPlan.read(file)
    if not sizes:
        return None
    asked = llm_utils.Plan(**sizes)
    recipe = llm_utils.RECIPES[options["preset"]]
    changes = {
        "accumulation": max(1, recipe.accumulation // max(1, asked.shares))
    }
    for name in ("batch_size", "accumulation", "context"):
        changes[name] = options.get(
            name, changes.get(name, getattr(recipe, name))
        )
    asked.check(
        llm_utils.ModelConfig.preset(options["preset"]),
        dataclasses.replace(recipe, **changes),
        int(os.environ.get("WORLD_SIZE", 1)),
    )
    return asked if set(sizes) != {"data_parallel"} else None


def main():
    options = arguments()
    names = {"preset", "data", "out", "tokenizer"}
    try:
        spread = plan(options)
        given = {
            k: v for k, v in options.items() if k not in names and v is not None
        }
        history = llm_utils.pretrain(
            options["preset"],
            options["data"],
            options["out"],
            options["tokenizer"],
            spread=spread,
            **given,
        )
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        first = int(os.environ.get("RANK", 0)) == 0
        same = isinstance(error, (ValueError, ImportError))  # all say alike
        sys.exit(f"train.py: {error}" if first or not same else 1)
    except KeyboardInterrupt:  # what was saved has been said
        sys.exit(128 + signal.SIGINT)
    if llm_utils.workers()[0] == 0:
        done = history.stopped == "done"
        end = "done" if done else "stopped; run it again to go on"
        print(
            f"{end}: {history.steps:,} steps, "
            f"{history.tokens:,} tokens, {history.seconds / 60:.1f} minutes"
        )
    llm_utils.stop_workers()


if __name__ == "__main__":
    main()

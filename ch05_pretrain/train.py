"""Train a model of any preset, on one device or many.

    python ch05_pretrain/train.py --preset pocket --data pocket_world \\
        --tokenizer artifacts/pocket/tokenizer --out artifacts/mine

    torchrun --nproc-per-node 8 ch05_pretrain/train.py --preset gpt2-124m \\
        --data HuggingFaceFW/fineweb-edu --tokenizer FOLDER_OF_GPT2 \\
        --max-minutes 55

    torchrun --nproc-per-node 8 ch05_pretrain/train.py --preset gpt2-124m \\
        --data FOLDER --tokenizer FOLDER_OF_GPT2 --fsdp 4 --tensor-parallel 2

    torchrun --nproc-per-node 8 ch05_pretrain/train.py --preset gpt2-124m \\
        --data FOLDER --tokenizer FOLDER_OF_GPT2 --optimizer adamw \\
        --deepspeed zero.json

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
import typing

import llm_utils

PLAN = {  # what the flags that spread a run say of themselves
    "data_parallel": "copies of the model (or of its shards)",
    "fsdp": "processes that share one copy's weights, gradients and means",
    "tensor_parallel": "processes that compute each layer together",
    "pipeline_parallel": "stages of whole layers",
}
RECIPE = {  # the fields of TrainConfig that are flags
    "steps": "updates of the weights",
    "batch_size": "rows in an update, over all processes",
    "accumulation": "pieces a process cuts its rows into, to save memory; "
    "the preset's are shared among the processes",
    "context": "tokens in a row",
    "optimizer": "muon, adamw or adamw8bit",
    "learning_rate": "AdamW's peak",
    "muon_learning_rate": "Muon's peak",
    "embedding_learning_rate": "AdamW's peak for an embedding table that is "
    "not the head too; None: the same",
    "momentum": "Muon's",
    "newton_schulz_rounds": "Muon's",
    "weight_decay": "of AdamW and Muon",
    "clip_norm": "largest length of the gradient; 0: no clipping",
    "schedule": "wsd, cosine or constant",
    "warmup_steps": "until the peak",
    "cooldown": "last share of the steps, in which wsd falls",
    "final_rate": "where wsd and cosine end, as a share of the peak",
    "precision": "auto, float32 or bfloat16",
    "windows": "rows of whole documents, or cut from the stream",
    "seed": "of the order of the rows",
    "log_every": "steps a line of the log",
    "eval_every": "in steps; 0: never",
    "eval_documents": "how many are scored; 0: all",
    "checkpoint_every": "in steps; 0: never",
    "keep_checkpoints": "of the latest",
    "compile": "through torch.compile",
    "checkpoint_activations": "calculate each block again in the backward "
    "pass, to save memory",
    "loss_rows": "positions whose logits are held at a time; 0: all",
    "tensorboard": "write event files beside the log",
}


def arguments():
    """What the command line says."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument(
        "--preset",
        default="gpt2-124m",
        choices=list(llm_utils.RECIPES),
        help="shape of the model, and recipe (%(default)s)",
    )
    preset = first.parse_known_args()[0].preset  # for what --help tells
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        parents=[first],
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
        "--out",
        default="artifacts/gpt2-124m",
        help="for shards, run, model (%(default)s)",
    )
    parser.add_argument(
        "--max-minutes", type=float, help="stop with a checkpoint after so long"
    )
    parser.add_argument(
        "--max-documents", type=int, help="read so many documents and no more"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="begin anew: forget the old run"
    )
    spread = parser.add_argument_group(
        "processes: their product is what torchrun starts (without any of "
        "these: a copy on each)"
    )
    for name, text in PLAN.items():
        spread.add_argument(flag(name), type=int, metavar="N", help=text)
    spread.add_argument(
        "--deepspeed",
        metavar="FILE",
        help="ZeRO over all of them, by this JSON file for DeepSpeed",
    )
    recipe = parser.add_argument_group(
        f"changes to the recipe (in brackets: what {preset} has)"
    )
    own = dataclasses.asdict(llm_utils.RECIPES[preset])
    own["compile"] = "on a GPU, not on a CPU"
    kinds = {f.name: f.type for f in dataclasses.fields(llm_utils.TrainConfig)}
    for name, text in RECIPE.items():
        kind, *_ = typing.get_args(kinds[name]) or [kinds[name]]
        how = {"type": kind, "metavar": kind.__name__.upper()}
        if kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        recipe.add_argument(
            flag(name),
            default=argparse.SUPPRESS,
            help=f"{text} ({own[name]})",
            **how,
        )
    return vars(parser.parse_args())


def flag(name):
    """A field's name as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def plan(options):
    """The plan that the flags ask for, or None for a copy on each."""
    sizes = {name: options.pop(name) for name in PLAN}
    sizes = {name: n for name, n in sizes.items() if n is not None}
    if file := options.pop("deepspeed"):
        if sizes:
            flags = ", ".join(map(flag, sizes))
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
        # every process says it: torchrun ends the others when one has failed
        sys.exit(f"train.py: {error}")
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

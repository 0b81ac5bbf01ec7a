"""Train a model of any preset, on one device or many.

    python ch05_pretrain/train.py --preset pocket --data pocket_world \\
        --tokenizer artifacts/pocket/tokenizer --out artifacts/mine

    torchrun --nproc-per-node 8 ch05_pretrain/train.py --preset gpt2-124m \\
        --data HuggingFaceFW/fineweb-edu --tokenizer FOLDER_OF_GPT2 \\
        --max-minutes 55

After `--max-minutes` it stops with a checkpoint, and the same command goes on
from there. All it does is in `llm_utils.pretrain`, built in chapter 5.
"""

import argparse
import dataclasses
import sys

import llm_utils


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
    recipe = parser.add_argument_group("changes to the preset's recipe")
    for field in dataclasses.fields(llm_utils.TrainConfig):
        kind = int if field.name == "context" else field.type
        if kind in (int, float, str):
            flag = f"--{field.name.replace('_', '-')}"
            recipe.add_argument(flag, type=kind, default=argparse.SUPPRESS)
    return vars(parser.parse_args())


def main():
    options = arguments()
    names = {"preset", "data", "out", "tokenizer"}
    given = {k: v for k, v in options.items() if k not in names and v is not None}
    try:
        history = llm_utils.pretrain(
            options["preset"],
            options["data"],
            options["out"],
            options["tokenizer"],
            **given,
        )
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"train.py: {error}")
    if llm_utils.workers()[0] == 0:
        end = {"done": "done", "time": "stopped; run it again to go on"}
        print(
            f"{end[history.stopped]}: {history.steps:,} steps, "
            f"{history.tokens:,} tokens, {history.seconds / 60:.1f} minutes"
        )
    llm_utils.stop_workers()


if __name__ == "__main__":
    main()

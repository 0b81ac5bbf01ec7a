"""The public sets that the 124M model learns from and is examined on.

Each is taken from the Hub once and written to a folder, in the form of the
files that the steps of gpt2_124m.py read, so that they find the same rows
there as in a folder that the reader has prepared.
"""

import hashlib
import json
import lzma
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import llm_utils as lu

MOST = 20_000  # rows kept of a set to learn from, chosen by their text


class Absent(OSError):
    """A set cannot be had; the message names it."""


# From a row as published to a row of our files


def message(row) -> dict:
    """ucirvine/sms_spam: {sms, label}, where 1 is spam."""
    text = " ".join(row["sms"].split())
    return {"label": ("ham", "spam")[row["label"]], "text": text}


def instruction(row) -> dict:
    """yahma/alpaca-cleaned: {instruction, input, output}."""
    return {name: row[name] for name in ("instruction", "input", "output")}


def preference(row) -> dict:
    """HuggingFaceH4/ultrafeedback_binarized: {prompt, chosen, rejected, …}.

    The answers stand at the end of two lists of messages, with a score each;
    None where the scores are equal, as nothing was preferred then.
    """
    if row["score_chosen"] <= row["score_rejected"]:
        return None
    chosen, rejected = (row[k][-1]["content"] for k in ("chosen", "rejected"))
    return {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}


def unbracketed(text) -> str:
    """HellaSwag without the marks of WikiHow's pages, as the harness has it."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def hellaswag(row) -> dict:
    """Rowan/hellaswag: {activity_label, ctx, endings, label: "0" to "3", …}."""
    return {
        "ctx": unbracketed(f"{row['activity_label']}: {row['ctx']}"),
        "endings": [unbracketed(end) for end in row["endings"]],
        "label": int(row["label"]),
    }


def arc_easy(row) -> dict:
    """allenai/ai2_arc: {question, choices: {text, label}, answerKey}."""
    return {
        "query": f"Question: {row['question']}",
        "choices": list(row["choices"]["text"]),
        "gold": row["choices"]["label"].index(row["answerKey"]),
    }


def piqa(row) -> dict:
    """ybisk/piqa: {goal, sol1, sol2, label: 0 or 1}."""
    return {
        "query": f"Question: {row['goal']}",
        "choices": [row["sol1"], row["sol2"]],
        "gold": row["label"],
    }


def lambada(row) -> dict:
    """EleutherAI/lambada_openai: {text}, whose last word is to be found."""
    context, word = row["text"].rsplit(" ", 1)
    return {"context": context, "continuation": word}


# Where each lies


@dataclass(frozen=True)
class PublicSet:
    """A set on the Hub, the file it becomes, and how a row is turned."""

    file: str
    repository: str
    split: str
    turn: Callable
    options: dict = field(default_factory=dict)
    most: int | None = None


SETS = (
    PublicSet(
        "classification/sms_spam.tsv", "ucirvine/sms_spam", "train", message
    ),
    PublicSet(
        "instructions/alpaca_cleaned.jsonl",
        "yahma/alpaca-cleaned",
        "train",
        instruction,
        most=MOST,
    ),
    PublicSet(
        "preferences/ultrafeedback.jsonl",
        "HuggingFaceH4/ultrafeedback_binarized",
        "train_prefs",
        preference,
        most=MOST,
    ),
    PublicSet(
        "eval/hellaswag_val.jsonl.xz",
        "Rowan/hellaswag",
        "validation",
        hellaswag,
    ),
    PublicSet(
        "eval/arc_easy.jsonl",
        "allenai/ai2_arc",
        "test",
        arc_easy,
        {"name": "ARC-Easy"},
    ),
    PublicSet(  # its main branch holds a program, which is not run any more
        "eval/piqa.jsonl",
        "ybisk/piqa",
        "validation",
        piqa,
        {"revision": "refs/convert/parquet"},
    ),
    PublicSet(
        "eval/lambada_openai.jsonl.xz",
        "EleutherAI/lambada_openai",
        "test",
        lambada,
        {"name": "default"},
    ),
)


def published(wanted) -> list[dict]:
    """The rows of a set as the Hub has them; Absent if it cannot be had."""
    from datasets import load_dataset

    try:
        return list(
            load_dataset(
                wanted.repository, split=wanted.split, **wanted.options
            )
        )
    except Exception as error:  # of the network, the Hub, or the files
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Absent(
            f"the set {wanted.repository} cannot be had from the Hub ({why}): "
            "try again, or name a folder of data in LLM_DATA"
        ) from error


def line(path, row) -> str:
    """A row as a line of the file: tab between two texts, or JSON."""
    if path.suffix == ".tsv":
        return "\t".join(row.values())
    return json.dumps(row, ensure_ascii=False)


def some(lines, most) -> list[str]:
    """At most so many of the lines, chosen by a hash of what they say."""
    if most is None or len(lines) <= most:
        return lines
    return sorted(lines, key=lambda x: hashlib.sha256(x.encode()).digest())[
        :most
    ]


def fetch(wanted, folder) -> None:
    """Write a set's file into the folder, unless it is there already."""
    path = folder / wanted.file
    if path.exists():
        return
    rows = published(wanted)
    try:
        turned = [row for row in map(wanted.turn, rows) if row is not None]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Absent(
            f"the set {wanted.repository} has another form than we know "
            f"({type(error).__name__}: {error}): name a folder in LLM_DATA"
        ) from error
    lines = some([line(path, row) for row in turned], wanted.most)
    opened = lzma.open if path.suffix == ".xz" else open
    with (
        lu.atomic_file(path) as part,
        opened(part, "wt", encoding="utf-8") as f,
    ):
        f.writelines(f"{text}\n" for text in lines)
    print(f"  {wanted.repository}: {len(lines):,} rows")


def gather(part, folder) -> list[str]:
    """Fetch the sets of a part ("eval", …); says which cannot be had."""
    faults = []
    for wanted in SETS:
        if wanted.file.startswith(f"{part}/"):
            try:
                fetch(wanted, folder)
            except Absent as fault:
                faults.append(str(fault))
    return faults

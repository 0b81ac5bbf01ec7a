"""The 124M model, from text to answers, step by step.

    python book/gpt2_124m.py compare base pack classify instruct \\
        --data FOLDER --out artifacts/gpt2-124m

Each step reads what those before it left in --out and writes its figures to
OUT/measured/<step>.json; a step whose file stands, and was made from what is
there now, is passed over, unless --force. --plan only tells. --data (or
LLM_DATA) is a folder of real data: instructions, preferences, labelled
messages, benchmarks; without one, public sets are fetched from the Hub into
OUT/data. All that matters is in llm_utils, built in the chapters; here are
the readers of the files, the settings, and the order.

    corpus     DATA/pretrain: chapter 1's pipeline; writes OUT/corpus
    tokenizer, shards    chapter 2's; compare, base, pack: chapter 5's, and the
               base in 8 bits in OUT/weights/base (see pretrain_124m.py)
    classify   OUT/base: spam, learned in full, by LoRA, and by a head alone
    instruct   OUT/weights/base: human answers, in full and by LoRA; writes
               OUT/instruct (LoRA, merged) and OUT/weights/instruct
    prefer     OUT/instruct: DPO by LoRA; writes OUT/dpo and OUT/weights/dpo
    evaluate   the three: bits per byte, HellaSwag, LAMBADA, ARC-easy, PIQA
    samples    the three: the first twenty texts, and answers, as they come
    record     OUT/measured: writes results/gpt2-124m
"""

import argparse
import contextlib
import copy
import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

import keys
import llm_utils as lu
import pretrain_124m
import public_sets


@dataclass(frozen=True)
class Run:
    """Where a run reads and writes, and how much of it.

    data: the folder of real data (None: public sets, from the Hub). limit: so
    many rows of each set of data, and documents, are used at most (None: all),
    for a try without a GPU.
    """

    data: Path | None
    out: Path
    limit: int | None = None
    preset: str = "gpt2-124m"
    max_minutes: float | None = None
    changes: dict = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def tokenizer(self):
        return lu.BPETokenizer.load(self.out / "base")

    def model(self, name):
        """The model in OUT/name, on the device."""
        return lu.load_model(self.out / name, self.device)[0]

    def folder(self, part, needed=True) -> Path:
        """Where a part of the data lies: "classification", "eval", …

        What the Hub does not give is told; if it is needed, by an error.
        """
        if self.data:
            return self.data / part
        for fault in public_sets.gather(part, self.out / "data"):
            if needed:
                raise public_sets.Absent(fault)
            print(f"  {fault}")
        return self.out / "data" / part

    def inputs(self, step) -> dict[str, str]:
        """What a step reads, each with a digest of what it is now.

        An artifact is told by its JSON files, which hold the checksums of the
        rest; data by the names and sizes of files.
        """
        found = {}
        for name in READS.get(step.partition("-")[0], ()):
            data = name.startswith("data/")
            place = self.out / name
            if data and self.data:
                place = self.data / name.removeprefix("data/")
            files = sorted(place.rglob("*" if data else "*.json"))
            found[name] = keys.digest(
                *(
                    f"{f.name} {f.stat().st_size if data else keys.file_digest(f)}"
                    for f in files
                    if f.is_file()
                )
            )
        return found

    def some(self, rows) -> list:
        return list(rows)[: self.limit]

    def validation(self, tokenizer):
        return lu.TokenDataset(self.out / "shards", "validation", 8, tokenizer)


# What fine-tuning costs: rates for AdamW, in full and for thin matrices.

LINEAR = ("_proj",)  # every linear layer of the blocks
RANK, ALPHA = 16, 32.0
HOW = lu.TrainConfig(
    optimizer="adamw",
    schedule="wsd",
    cooldown=0.9,
    betas=(0.9, 0.98),
    weight_decay=0.0,
)
RATES = {"in full": 1e-4, "LoRA": 1e-3, "head only": 1e-2}


def recipe(rows, epochs, batch_size, rate, seed):
    """A TrainConfig for so many epochs of so many rows."""
    steps = max(1, math.ceil(rows / batch_size) * epochs)
    return replace(
        HOW,
        steps=steps,
        batch_size=batch_size,
        learning_rate=rate,
        warmup_steps=max(1, steps // 20),
        seed=seed,
    )


def adapt(model, seed):
    """LoRA on every linear layer of the blocks, in place."""
    return lu.add_lora(model, RANK, ALPHA, LINEAR, seed)


def mean(values) -> float:
    return float(np.mean(values))


def interval(right, n) -> list[float]:
    """The 95% interval of a share."""
    return list(lu.wilson_interval(right / n, n))


# Files


def read(path) -> list:
    """The rows of a file of JSON, or of JSON Lines, packed or not."""
    with lu.open_compressed(path) as file:
        if ".jsonl" in path.name:
            return [json.loads(line) for line in file]
        return json.load(file)


def plain(text) -> str:
    """A text without case and without differences of white space."""
    return " ".join(text.casefold().split())


def held_out(prompt) -> bool:
    """Whether a prompt is kept from all training: one in ten, by its words.

    One rule for chapters 6 and 7: what is held out of the preferences was
    not among the instructions either.
    """
    return lu.corpus_split(prompt, 1 / 20) != "train"


def shuffled(rows, key) -> list:
    """The rows in an order that their texts alone decide."""
    return sorted(
        rows, key=lambda r: hashlib.sha256(key(r).encode()).hexdigest()
    )


# Chapter 6: a class for a message


def message_sides(rows) -> dict[str, list]:
    """(label, text) rows on the sides train, validation and test.

    Exact repeats are left out; a family of messages that are nearly alike
    (spam comes in series) stays together on one side.
    """
    rows = list({plain(text): (label, text) for label, text in rows}.values())
    texts = [text for _, text in rows]
    first = list(range(len(rows)))

    def root(i):
        while first[i] != i:
            i = first[i]
        return i

    for i, j in lu.near_duplicates(texts, threshold=0.5, ngram=3):
        i, j = sorted((root(i), root(j)))
        first[j] = i
    sides = {"train": [], "validation": [], "test": []}
    for i, row in enumerate(rows):
        sides[lu.corpus_split(texts[root(i)], 1 / 8)].append(row)
    return {
        name: shuffled(some, lambda row: row[1]) for name, some in sides.items()
    }


class Messages:
    """Messages as ids after an end-of-text, with their class: 1 is spam."""

    def __init__(self, rows, tokenizer, longest=256):
        self.pad = tokenizer.end_of_text
        self.labels = [int(label == "spam") for label, _ in rows]
        encode = tokenizer.to_tiktoken().encode_ordinary
        ids = [[self.pad, *encode(text)][:longest] for _, text in rows]
        self.examples = [(torch.tensor(x), y) for x, y in zip(ids, self.labels)]


def collate_messages(examples, pad):
    """Ids (B, T), lengths (B,) and classes (B,)."""
    ids, labels = zip(*examples)
    fill = torch.nn.utils.rnn.pad_sequence
    return (
        fill(ids, batch_first=True, padding_value=pad),
        torch.tensor([len(x) for x in ids]),
        torch.tensor(labels),
    )


@torch.no_grad()
def classes(classifier, data, batch_size=128) -> list[int]:
    """The class that a SequenceClassifier gives to each message."""
    device = next(classifier.parameters()).device
    classifier.eval()
    found = [0] * len(data.examples)
    order = sorted(range(len(found)), key=lambda i: len(data.examples[i][0]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        ids, lengths, _ = collate_messages(
            [data.examples[i] for i in rows], data.pad
        )
        with lu.mixed_precision(device):
            logits, _ = classifier(ids.to(device), lengths.to(device))
        for i, label in zip(rows, logits.argmax(-1).tolist()):
            found[i] = label
    return found


def marks(found, labels) -> dict:
    """How good classes are, where one of the two is rare."""
    right = [f == y for f, y in zip(found, labels)]
    precision, recall = lu.precision_recall(
        {i for i, f in enumerate(found) if f},
        {i for i, y in enumerate(labels) if y},
    )
    of_ham = [r for r, y in zip(right, labels) if not y]
    return {
        "accuracy": mean(right),
        "interval": interval(sum(right), len(right)),
        "balanced_accuracy": (recall + mean(of_ham)) / 2,
        "spam_precision": precision,
        "spam_recall": recall,
        "spam_f1": 2 * precision * recall / max(precision + recall, 1e-9),
    }


def bag_of_words(train, test) -> list[int]:
    """The classes of `test` by logistic regression on tf-idf of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    known = words.fit_transform([text for _, text in train])
    line = LogisticRegression(C=100.0, max_iter=1000)
    line.fit(known, [label == "spam" for label, _ in train])
    return line.predict(words.transform([text for _, text in test])).tolist()


def classify(run) -> dict:
    """Is it spam? Three ways to fine-tune, beside two without a model."""
    path = run.folder("classification") / "sms_spam.tsv"
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t", 1) for line in file]
    sides = {name: run.some(s) for name, s in message_sides(rows).items()}
    tokenizer = run.tokenizer
    data = {name: Messages(s, tokenizer) for name, s in sides.items()}
    labels = data["test"].labels
    figures = {
        "messages": {name: len(s) for name, s in sides.items()},
        "spam": {name: mean(d.labels) for name, d in data.items()},
        "test": {
            "majority": marks([0] * len(labels), labels),
            "bag of words": marks(
                bag_of_words(sides["train"], sides["test"]), labels
            ),
        },
        "validation": {},
        "seconds_by_way": {},
    }
    for way, rate in RATES.items():
        began = time.perf_counter()
        model = run.model("base")
        if way == "LoRA":
            adapt(model, seed=6)
        elif way == "head only":
            model.requires_grad_(False)
        classifier = lu.SequenceClassifier(model, 2).to(run.device)
        how = recipe(len(sides["train"]), 3, 32, rate, seed=6)
        lu.finetune(classifier, data["train"], how, collate_messages)
        for side in ("validation", "test"):
            found = classes(classifier, data[side])
            figures[side][way] = marks(found, data[side].labels)
        figures["seconds_by_way"][way] = time.perf_counter() - began
    for way, mark in figures["test"].items():
        print(
            f"  {way:13} {mark['accuracy']:.1%} right, "
            f"balanced {mark['balanced_accuracy']:.1%}, "
            f"F1 of spam {mark['spam_f1']:.3f}"
        )
    return figures


# Chapter 6: answers


def instruction_rows(folder) -> list[dict]:
    """Questions and answers {prompt, answer, source}, without repeats.

    Dolly and the seed tasks were written by people; rasbt's are short and
    synthetic; those of Dolly and HH-RLHF together have, for HH-RLHF's share,
    the questions of people and the answers of a model. Dolly's questions
    about a passage that is absent are left out, wherever they stand. Of the
    Hub's there is one set only, Alpaca's: synthetic, and cleaned.
    """
    rows, absent = {}, set()

    def add(source, prompt, answer):
        prompt, answer, key = prompt.strip(), answer.strip(), plain(prompt)
        if key and answer and key not in absent:
            row = {"prompt": prompt, "answer": answer, "source": source}
            rows.setdefault(key, row)

    if (alpaca := folder / "alpaca_cleaned.jsonl").exists():
        for row in read(alpaca):
            asked, told = lu.as_messages(row)
            add("alpaca", asked["content"], told["content"])
        return list(rows.values())
    for row in read(folder / "dolly_6k.jsonl.xz"):
        if row["may_need_context"]:
            absent.add(plain(row["instruction"]))
        add("dolly", row["instruction"], row["response"])
    for row in read(folder / "self_instruct_seed_tasks.jsonl"):
        for case in row["instances"]:
            parts = (row["instruction"], case["input"])
            add("seed tasks", "\n\n".join(filter(None, parts)), case["output"])
    for row in read(folder / "rasbt_instruction_data.json"):
        asked, told = lu.as_messages(row)
        add("rasbt", asked["content"], told["content"])
    for row in read(folder / "dolly_hhrlhf_small.jsonl"):
        _, _, asked = row["prompt"].partition("### Instruction:\n")
        asked = asked.partition("\n\n### Response:")[0]
        add("dolly_hhrlhf", asked, row["response"])
    return list(rows.values())


def part_instructions(rows) -> tuple[list, list]:
    """(train, held out); of train goes what nearly repeats what is held out."""
    kept = [r for r in rows if held_out(r["prompt"])]
    train = [r for r in rows if not held_out(r["prompt"])]
    texts = [f"{r['prompt']}\n{r['answer']}" for r in kept + train]
    stay = lu.deduplicate(texts, threshold=0.6, ngram=3)
    return (
        [train[i - len(kept)] for i in stay if i >= len(kept)],
        [kept[i] for i in stay if i < len(kept)],
    )


@torch.no_grad()
def held_out_loss(model, data, batch_size=32) -> float:
    """The loss in nats per token of the answers of an InstructionDataset."""
    device, total, count = next(model.parameters()).device, 0.0, 0
    model.eval()
    order = sorted(range(len(data)), key=lambda i: len(data[i][0]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        x, y = lu.collate([data[i] for i in rows], data.pad)
        with lu.mixed_precision(device):
            loss = lu.answer_loss(model, rows, x.to(device), y.to(device))
        learned = int((y != -100).sum())
        total, count = total + loss.item() * learned, count + learned
    return total / count


def finish(run, name, model, tokenizer, about, below) -> None:
    """Write OUT/weights/name, and the model with it merged to OUT/name.

    below: where the weights lie that the adapters were made on, which are
    named in them, so that `load_pretrained` can tell.
    """
    made = "training.json" if below == "base" else "adapter.json"
    digest = lu.read_json(run.out / "weights" / below / made)["sha256"]
    lu.save_lora(model, run.out / "weights" / name, base_sha256=digest, **about)
    lu.save_model(lu.merge_lora(model), run.out / name, tokenizer, about)


def ask(model, tokenizer, prompts, n=256, **options) -> list:
    """(answer, whether it ended) of each prompt, in mixed precision."""
    device = next(model.parameters()).device
    draw = torch.Generator(device).manual_seed(0)
    with lu.mixed_precision(device):
        return lu.answer_tasks(
            model,
            tokenizer,
            prompts,
            n,
            batch_size=256,
            generator=draw,
            **options,
        )


def instruct(run) -> dict:
    """Answers of people, learned in full and by LoRA."""
    tokenizer = run.tokenizer
    chat = lu.ChatFormat(tokenizer)
    sides = part_instructions(
        shuffled(
            instruction_rows(run.folder("instructions")), lambda r: r["prompt"]
        )
    )
    base = lu.load_quantized(run.out / "weights" / "base", run.device)
    longest = base.config.context_length
    sides = [run.some(rows) for rows in sides]
    train, kept = (lu.InstructionDataset(r, chat, longest) for r in sides)
    validation = run.validation(tokenizer)
    documents = min(run.limit or 300, 300)
    prompts = [r["prompt"] for r in sides[1][:200]]
    figures = {
        "rows": {
            name: {
                source: sum(r["source"] == source for r in rows)
                for source in dict.fromkeys(r["source"] for r in rows)
            }
            for name, rows in zip(("train", "held_out"), sides)
        },
        "skipped": train.skipped + kept.skipped,
        "answer_loss": {},
        "stopped": {},
        "base_loss": {},
        "seconds_by_way": {},
    }

    def look(name, model):
        figures["answer_loss"][name] = held_out_loss(model, kept)
        figures["base_loss"][name] = lu.evaluate(
            model, validation, documents, precision="auto"
        )["loss"]
        ended = [
            stopped
            for prompt, (_, stopped) in zip(
                prompts, ask(model, tokenizer, prompts, temperature=0.7)
            )
        ]
        figures["stopped"][name] = mean(ended)
        print(
            f"  {name:8} answers {figures['answer_loss'][name]:.3f} nats a "
            f"token, {figures['stopped'][name]:.0%} ended; text "
            f"{figures['base_loss'][name]:.3f}"
        )

    look("base", base)
    for way in ("in full", "LoRA"):
        began = time.perf_counter()
        model = copy.deepcopy(base)
        if way == "LoRA":
            adapt(model, seed=6)
            figures["trained"] = lu.count_parameters(model, trainable=True)
        how = recipe(len(train), 3, 64, RATES[way], seed=6)
        losses = lu.finetune(model, train, how, loss=lu.answer_loss)
        figures["seconds_by_way"][way] = time.perf_counter() - began
        figures.setdefault("curve", {})[way] = [
            mean(losses[i : i + 10]) for i in range(0, len(losses), 10)
        ]
        look(way, model)
    about = {"steps": how.steps, "rows": figures["rows"]["train"]}
    finish(run, "instruct", model, tokenizer, about, "base")
    return figures


# Chapter 7: preferences

BETA = 0.1


def dialogue(text) -> list[dict]:
    """HH-RLHF's form of a dialogue as chat messages."""
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = text.replace("\n\nAssistant:", "\n\nHuman:\0").split("\n\nHuman:")
    return [
        {
            "role": roles["Assistant" if turn.startswith("\0") else "Human"],
            "content": turn.removeprefix("\0").strip(),
        }
        for turn in turns[1:]
    ]


def shorten(passages, characters) -> str:
    """Passages in the room there is, each cut at a sentence of its own."""
    room, parts = characters // max(1, len(passages)), []
    for title, *sentences in passages:
        part = ""
        for sentence in sentences:
            if part and len(part) + len(sentence) > room:
                break
            part += (" " if part else "") + sentence.strip()
        parts.append(part[:room] if part else title)
    return "\n\n".join(parts)


def preference_rows(folder, characters=1600) -> list[dict]:
    """Pairs {prompt, chosen, rejected, source, first}, as people judged.

    prompt: a text, or messages where a dialogue went before; first: the words
    that decide on which side a pair falls. rasbt's choice, of the more
    polite of two answers, was made by a machine, and so were those of
    UltraFeedback, the one set from the Hub.
    """
    rows = []

    def add(source, prompt, chosen, rejected, first):
        if chosen.strip() and rejected.strip() and chosen != rejected:
            rows.append(
                {
                    "prompt": prompt,
                    "chosen": chosen.strip(),
                    "rejected": rejected.strip(),
                    "source": source,
                    "first": first,
                }
            )

    if (feedback := folder / "ultrafeedback.jsonl").exists():
        for row in read(feedback):
            asked = row["prompt"]
            add("ultrafeedback", asked, row["chosen"], row["rejected"], asked)
        return rows
    for row in read(folder / "rasbt_instruction_preference.json"):
        asked = lu.as_messages(row)[0]["content"]
        add("politeness", asked, row["chosen"], row["rejected"], asked)
    pairs = ((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4))
    for row in read(folder / "qa_feedback_dev.json.xz"):
        told = shorten(row["passages"], characters)
        for pair, better in zip(pairs, row["preference"]):
            if better:
                two = [row[f"prediction {k}"] for k in pair]
                good, bad = two if better == 1 else two[::-1]
                asked = f"{told}\n\n{row['question']}"
                add("questions", asked, good, bad, row["question"])
    for row in read(folder / "hh_harmless_base_test.jsonl.gz"):
        *before, good = dialogue(row["chosen"])
        *other, bad = dialogue(row["rejected"])
        if before == other and good["role"] == bad["role"] == "assistant":
            add(
                "harmlessness",
                before,
                good["content"],
                bad["content"],
                before[0]["content"],
            )
    return rows


def reward_marks(policy, reference, rows) -> dict:
    """Held-out accuracy of the implicit reward, and how far it moved.

    policy, reference: (N, 2) log-probabilities of chosen and rejected. With
    no policy the reference's own log-probability is the judge. The intervals
    take pairs as independent; those of one question are not quite.
    """
    judged = reference if policy is None else policy - reference
    right = (judged[:, 0] > judged[:, 1]).tolist()
    out = {}
    for name in ("all", *dict.fromkeys(r["source"] for r in rows)):
        some = [i for i, r in enumerate(rows) if name in ("all", r["source"])]
        won = sum(right[i] for i in some)
        out[name] = {
            "pairs": len(some),
            "accuracy": won / len(some),
            "interval": interval(won, len(some)),
        }
        if policy is not None:
            moved = judged[some].mean(0).tolist()
            out[name] |= dict(
                zip(("chosen_log_ratio", "rejected_log_ratio"), moved)
            )
    return out


def prefer(run) -> dict:
    """DPO by LoRA on the merged instruct model, on preferences of people."""
    tokenizer = run.tokenizer
    chat = lu.ChatFormat(tokenizer)
    model = run.model("instruct")
    longest = min(640, model.config.context_length)
    rows = shuffled(
        preference_rows(run.folder("preferences")),
        lambda r: r["first"] + r["chosen"] + r["rejected"],
    )
    sides = [
        run.some(r for r in rows if held_out(r["first"]) == kept)
        for kept in (False, True)
    ]
    train, kept = (lu.PreferenceDataset(r, chat, longest) for r in sides)
    prompts = list(
        dict.fromkeys(
            r["prompt"] for r in kept.rows if isinstance(r["prompt"], str)
        )
    )[:150]

    def logprobs(data):
        with lu.mixed_precision(run.device):
            return lu.pair_logprobs(model, data, batch_size=16)

    def lengths():
        said = ask(model, tokenizer, prompts, temperature=0.7)
        return {
            "tokens": mean([len(tokenizer.encode(text)) for text, _ in said]),
            "stopped": mean([stopped for _, stopped in said]),
        }

    reference = {"train": logprobs(train), "held_out": logprobs(kept)}
    answers = {"instruct": lengths()}
    before = reward_marks(None, reference["held_out"], kept.rows)
    adapt(model, seed=7)
    how = recipe(len(train), 1, 16, 1e-4, seed=7)
    history = lu.train_dpo(model, train, how, BETA, reference["train"])
    after = reward_marks(logprobs(kept), reference["held_out"], kept.rows)
    answers["dpo"] = lengths()
    about = {"steps": how.steps, "beta": BETA, "pairs": len(train)}
    finish(run, "dpo", model, tokenizer, about, "instruct")
    for name, mark in after.items():
        low, high = mark["interval"]
        print(
            f"  {name:13} {before[name]['accuracy']:.1%} → {mark['accuracy']:.1%} "
            f"({low:.1%} to {high:.1%}) of {mark['pairs']} pairs"
        )
    words = [
        (len(r["chosen"].split()), len(r["rejected"].split()))
        for r in train.rows
    ]
    return {
        "pairs": {"train": len(train), "held_out": len(kept)},
        "skipped": train.skipped + kept.skipped,
        "before": before,
        "after": after,
        "answers": answers,
        "length_ratio": {
            "chosen_over_rejected": mean([a for a, _ in words])
            / mean([b for _, b in words]),
            "dpo_over_instruct": answers["dpo"]["tokens"]
            / max(answers["instruct"]["tokens"], 1e-9),
        },
        "curve": [
            {k: mean([h[k] for h in history[i : i + 10]]) for k in history[0]}
            for i in range(0, len(history), 10)
        ],
    }


# Chapter 8: what it can do

MODELS = ("base", "instruct", "dpo")


def chance(rows) -> float:
    """What guessing gets: nothing where a word is to be found."""
    if "choices" not in rows[0]:
        return 0.0
    return mean([1 / len(row["choices"]) for row in rows])


def evaluate(run, models=MODELS) -> dict:
    """Bits per byte of held-out text, and four benchmarks by the harness."""
    tokenizer = run.tokenizer
    validation = run.validation(tokenizer)
    folder = run.folder("eval", needed=False)
    rows, missing = {}, []
    for name in lu.BENCHMARKS:
        try:
            rows[name] = lu.benchmark_rows(name, folder, run.limit)
        except FileNotFoundError as error:
            missing.append(name)
            print(f"  {name} is left out: {error}")
    figures = {
        "missing": missing,
        "examples": {name: len(some) for name, some in rows.items()},
        "chance": {name: chance(some) for name, some in rows.items()},
    }
    for name in (m for m in models if (run.out / m).exists()):
        began = time.perf_counter()
        model = run.model(name)
        text = lu.evaluate(model, validation, run.limit or 0, precision="auto")
        found = {
            k: text[k] for k in ("loss", "bits_per_byte", "tokens", "documents")
        }
        lm = lu.harness_lm(model, tokenizer)
        tasks = [lu.local_task(task, some) for task, some in rows.items()]
        with lu.mixed_precision(run.device):
            answers = lu.run_tasks(lm, tasks) if tasks else {}
        for task, answer in answers.items():
            found[task] = {
                k: v for k, v in answer.items() if k not in ("samples", "n")
            }
            for metric in ("acc", "acc_norm"):
                if metric in answer:
                    right = np.asarray(answer["samples"][metric], dtype=float)
                    error = right.std() / math.sqrt(max(1, len(right) - 1))
                    found[task][f"{metric}_stderr"] = float(error)
        figures[name] = found
        print(
            f"  {name:8} {text['bits_per_byte']:.4f} bits a byte; "
            + ", ".join(f"{t} {found[t]['acc']:.1%}" for t in rows)
            + f" ({time.perf_counter() - began:.0f} s)"
        )
    return figures


# The first texts, as they come

OPENINGS = (
    "The train left the station at",
    "In the spring of that year,",
    "Water boils when",
    "Dear Sir,",
    "The history of the island begins with",
    "To install the program, first",
    "She opened the door and",
    "The most important thing about a bridge is",
    "Once upon a time there was",
    "The function returns",
)
QUESTIONS = (
    "What is the capital of France?",
    "Name three animals that live in the sea.",
    "Why is the sky blue?",
    "Write two sentences about rain.",
    "How do I boil an egg?",
    "Give me three tips for sleeping well.",
    "What is a novel?",
    "Rewrite this sentence in the past tense: I walk to the shop.",
    "Which is larger, a mouse or an elephant?",
    "Write a short letter that thanks a friend for a book.",
)


def samples(run, room=200) -> dict:
    """Twenty texts of the base, and answers of the two that were taught."""
    tokenizer = run.tokenizer
    end = tokenizer.end_of_text
    drawing = dict(temperature=0.8, top_p=0.95)
    base = run.model("base")
    draw = torch.Generator(run.device).manual_seed(1)
    starts = ("",) * 10 + OPENINGS
    prompts = [[end, *tokenizer.encode(text)] for text in starts]
    said = lu.generate_batch(
        base, prompts, room, (end,), generator=draw, **drawing
    )
    texts = [
        {
            "prompt": start,
            "text": tokenizer.decode([t for t in ids if t != end]),
            "ended": end in ids,
        }
        for start, ids in zip(starts, said)
    ]
    figures = {"sampling": drawing | {"seed": 1, "tokens": room}, "base": texts}
    for name in (m for m in MODELS[1:] if (run.out / m).exists()):
        said = ask(run.model(name), tokenizer, QUESTIONS, room, **drawing)
        figures[name] = [
            {"prompt": question, "answer": answer, "ended": ended}
            for question, (answer, ended) in zip(QUESTIONS, said)
        ]
    first = texts[10]["prompt"] + texts[10]["text"]
    print("  " + " ".join(first.split())[:200])
    return figures


STEPS = {
    "corpus": pretrain_124m.corpus,
    "tokenizer": pretrain_124m.tokenizer,
    "shards": pretrain_124m.shards,
    "compare": pretrain_124m.compare,
    "base": pretrain_124m.base,
    "pack": pretrain_124m.pack,
    "classify": classify,
    "instruct": instruct,
    "prefer": prefer,
    "evaluate": evaluate,
    **{f"evaluate-{m}": partial(evaluate, models=(m,)) for m in MODELS},
    "samples": samples,
    "record": pretrain_124m.record,
}


# What a step reads, of OUT or (data/…) of the data.
READS = {
    "tokenizer": ("corpus",),
    "shards": ("corpus", "tokenizer"),
    "compare": ("tokenizer", "shards"),
    "base": ("tokenizer", "shards"),
    "pack": ("base", "shards"),
    "classify": ("base", "data/classification"),
    "instruct": ("base", "weights/base", "shards", "data/instructions"),
    "prefer": ("instruct", "weights/instruct", "data/preferences"),
    "evaluate": (*MODELS, "shards", "data/eval"),
    "samples": MODELS,
}
NEEDED = ("corpus", "tokenizer", "shards", "base")  # by all that follow


def surroundings(name) -> dict:
    """The command, the machine, and the versions that made a figure."""
    names = ("torch", "numpy", "tiktoken", "transformers", "triton")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    cuda = torch.cuda.is_available()
    return {
        "command": f"python book/gpt2_124m.py {name} --data DATA --out OUT",
        "hardware": {
            "device": torch.cuda.get_device_name() if cuda else "CPU",
            "cores": os.cpu_count(),
            "system": platform.system(),
        },
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


FAULTS = (ValueError, OSError, ImportError, RuntimeError, ArithmeticError)


def reason(name, run, force=False) -> str:
    """Why a step must be taken; empty if its figures stand."""
    target = run.out / "measured" / f"{name}.json"
    if not target.exists():
        return "it has not been taken yet"
    figures, now = lu.read_json(target), run.inputs(name)
    then = figures.get("inputs", now)
    if changed := [part for part in now if then.get(part) != now[part]]:
        return f"{changed[0]} changed"
    if figures.get("missing"):
        return f"{figures['missing'][0]} was missing"
    return "you asked for it" if force else ""


def take(name, run, force=False) -> dict:
    """Take a step, unless its figures stand; returns them."""
    target = run.out / "measured" / f"{name}.json"
    if not reason(name, run, force):
        print(f"{name}: stands in {target}")
        return lu.read_json(target)
    about = getattr(STEPS[name], "func", STEPS[name]).__doc__
    print(f"{name}: {about.partition(chr(10))[0]}", flush=True)
    began = time.perf_counter()
    figures = STEPS[name](run)
    seconds = time.perf_counter() - began
    figures.setdefault("seconds", seconds)
    where = surroundings(name)
    where["versions"] |= figures.get("versions", {})
    figures |= where
    figures["inputs"] = run.inputs(name)
    lu.write_json(target, figures)
    print(f"{name}: {seconds:.0f} s", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("steps", nargs="+", metavar="STEP", choices=STEPS)
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("LLM_DATA") or None,
        help="a folder (default: LLM_DATA, else sets from the Hub)",
    )
    parser.add_argument("--out", type=Path, default="artifacts/gpt2-124m")
    parser.add_argument("--limit", type=int, help="rows of each set, at most")
    parser.add_argument("--force", action="store_true", help="measure again")
    parser.add_argument("--preset", default="gpt2-124m")
    parser.add_argument("--max-minutes", type=float, help="of the base's run")
    parser.add_argument(
        "--changes", type=json.loads, default={}, help="of the recipe, as JSON"
    )
    parser.add_argument(
        "--plan", action="store_true", help="only tell what would be taken"
    )
    asked = parser.parse_args()
    if asked.data and not asked.data.is_dir():
        parser.error(f"{asked.data} is no folder of data")
    torch.set_float32_matmul_precision("high")
    run = Run(**{f.name: getattr(asked, f.name) for f in fields(Run)})
    if asked.plan:
        for name in asked.steps:
            why = reason(name, run, asked.force)
            print(f"{name}: {'runs, as ' + why if why else 'nothing changed'}")
        return
    failed = []
    for name in asked.steps:  # one that fails does not cost the others
        try:
            take(name, run, asked.force)
        except FAULTS as error:
            failed.append(f"{name}: {error}")
            if name in NEEDED:
                break
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()

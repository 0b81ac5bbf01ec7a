"""The base model of 124 million parameters: text, tokens, training, packing.

The steps of gpt2_124m.py that belong to chapters 1 to 5 and to the end, where
the weights are packed. Each takes a Run and returns the step's figures.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace

import numpy as np

import llm_utils as lu

# Of a small corpus a base makes EPOCHS passes, in steps of a quarter of the
# preset's size, since there are fewer of them.
EPOCHS = 3.25
BATCH = dict(batch_size=128, accumulation=4)
BASE = BATCH | dict(
    learning_rate=2e-3,
    muon_learning_rate=0.015,
    warmup_steps=60,
    eval_every=250,
    eval_documents=100,
    checkpoint_every=1250,
    log_every=10,
)
# GPT-2's own recipe, with the learning rate that Brown et al. (2020, table
# 2.1) give for this size and the schedule they describe.
CLASSIC = dict(
    optimizer="adamw",
    learning_rate=6e-4,
    schedule="cosine",
    final_rate=0.1,
)
SHORT = BATCH | dict(
    steps=200, warmup_steps=20, eval_every=0, eval_documents=300, log_every=5
)


# Machine-read scans of 1797 to 1860, with their errors.
SCANS = "encyclopedia:jburnford/early_encyclopedia_britannica"


def cleaned(path) -> list[tuple[str, str, bool]]:
    """(text, source, whether it looks like prose) of a file's documents."""
    rows = []
    for row in lu.read_corpus([path]):
        text = lu.redact_pii(lu.clean_text(row["text"]))
        faults = (
            lu.gopher_rules(text)
            or lu.gopher_repetition_rules(text)
            or lu.fineweb_rules(text)
        )
        rows.append((text, row["source"], not faults))
    return rows


def examination(folder) -> list[str]:
    """All texts of the benchmarks, each question with each of its answers."""
    texts = []
    for name in lu.BENCHMARKS:
        for row in lu.benchmark_rows(name, folder):
            ends = row.get("choices") or [row["continuation"]]
            texts += [f"{row['context']} {end}" for end in ends]
    return texts


def licences(folder) -> dict[str, str]:
    """Of each source, as the table in the folder's README has them."""
    found = {}
    for line in (folder / "README.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if ":" in cells[0] and len(cells) == 6:
            found[cells[0]] = cells[4]
    return found


class Sieve:
    """Documents (text, source) that a step after the other lets through."""

    def __init__(self, rows):
        self.rows, self.steps = rows, []
        self.note("cleaned", "odd letters repaired, private data redacted")

    def note(self, name, why) -> None:
        size = sum(len(text.encode()) for text, *_ in self.rows)
        self.steps.append((name, len(self.rows), size, why))
        print(f"  {name}: {len(self.rows):,} texts, {size / 1e6:.1f} MB")

    def keep(self, name, kept, why="") -> None:
        """Only the rows of these numbers, or those that a function takes."""
        rows = self.rows
        self.rows = (
            [row for row in rows if kept(row)]
            if callable(kept)
            else [rows[i] for i in kept]
        )
        self.note(name, why)

    @property
    def texts(self) -> list[str]:
        return [text for text, *_ in self.rows]


def corpus(run) -> dict:
    """Chapter 1's pipeline over DATA/pretrain, into OUT/corpus."""
    if run.data is None:
        raise ValueError(
            "name the folder DATA that holds pretrain/, or make ch01"
        )
    folder = run.data / "pretrain"
    files = sorted(folder.glob("train-*.jsonl.xz"))
    with ProcessPoolExecutor() as pool:
        *parts, held = pool.map(cleaned, [*files, folder / "val.jsonl.xz"])
    asked = examination(run.data / "eval")
    splits = {"train": Sieve(sum(parts, [])), "validation": Sieve(held)}
    for part in splits.values():
        part.keep("scans out", lambda r: r[1] != SCANS, "machine-read scans")
        part.keep("judged to be prose", lambda r: r[2], "rules of chapter 1")
        part.keep("copies out", lu.deduplicate(part.texts), "near-copies")
        part.keep(
            "examination out",
            lu.decontaminate(part.texts, asked),
            "13 words of a benchmark",
        )
    train, held = splits["train"], splits["validation"]
    seen = lu.contamination(train.texts, held.texts)
    few = np.flatnonzero(seen < 0.2)
    held.keep("known ones out", few, "a fifth of it stands in training")
    card = lu.data_card(
        {
            "about": "Books and reference pages, to train a base model on.",
            "language": "English",
            "not_for": "Facts of today: most of it is old books.",
        },
        {name: lu.count_texts(part.texts) for name, part in splits.items()},
        lu.count_sources(
            [{"text": t, "source": s} for t, s, _ in train.rows],
            licences(run.data),
        ),
        train.steps,
        contamination={
            "validation": lu.contamination_summary(seen[few]),
            "benchmarks": lu.contamination_summary(
                lu.contamination(train.texts, asked)
            ),
        },
    )
    with lu.atomic_folder(run.out / "corpus") as part:
        for name, sieve in splits.items():
            rows = ({"text": t, "source": s} for t, s, _ in sieve.rows)
            lu.write_lines(part / f"{name}.jsonl", rows)
        lu.write_data_card(part, card)
    return card


def tokenizer(run) -> dict:
    """Chapter 2's tokenizer, learned from OUT/corpus, in OUT/tokenizer."""
    rows = lu.read_lines(run.out / "corpus" / "train.jsonl")
    texts = (row["text"] for row in rows)
    size = lu.ModelConfig.preset(run.preset).vocab_size
    made = lu.BPETokenizer.train(texts, size)
    made.save(run.out / "tokenizer")
    return {"vocab_size": made.vocab_size, "sha256": made.sha256}


def shards(run) -> dict:
    """Token ids of OUT/corpus by OUT/tokenizer."""
    tokenizer = lu.BPETokenizer.load(run.out / "tokenizer")
    encode = tokenizer.to_tiktoken().encode_ordinary
    figures = {"vocab_size": tokenizer.vocab_size}
    for split in ("train", "validation"):
        index = lu.write_shards(
            lu.read_lines(run.out / "corpus" / f"{split}.jsonl"),
            tokenizer,
            run.out / "shards",
            split,
            encode=encode,
            workers=os.cpu_count() or 1,
        )
        figures[split] = {k: index[k] for k in ("documents", "bytes", "tokens")}
        print(
            f"  {split}: {index['tokens'] / 1e6:.1f} million tokens, "
            f"{index['bytes'] / index['tokens']:.2f} bytes each"
        )
    return figures


def splits(run, tokenizer):
    """The TokenDatasets of training and validation."""
    context = lu.RECIPES[run.preset].context
    return [
        lu.TokenDataset(run.out / "shards", split, context, tokenizer)
        for split in ("train", "validation")
    ]


def pace(history, after=60.0) -> float:
    """Tokens a second from `after` seconds on, whatever is done meanwhile.

    Of a run too short for two lines of log: from its beginning.
    """
    seconds = [entry["seconds"] for entry in history.system]
    tokens = [entry["tokens"] for entry in history.records]
    if len(seconds) < 2:
        return history.tokens / history.seconds
    first = int(np.searchsorted(seconds, min(after, seconds[-1] / 2)))
    first = min(first, len(seconds) - 2)
    return (tokens[-1] - tokens[first]) / (seconds[-1] - seconds[first])


def figures_of(run, history, config, shape) -> dict:
    """What there is to say of a training run."""
    speed = pace(history)
    peak = lu.peak_flops(run.device, config.precision)
    logged = [(entry["step"], entry["tokens"]) for entry in history.records] + [
        (history.steps, history.tokens)
    ]
    return {
        "steps": history.steps,
        "tokens": history.tokens,
        "seconds": history.seconds,
        "tokens_per_second": speed,
        "utilisation": speed * lu.flops_per_token(shape, config.context) / peak,
        "peak_memory_bytes": max(
            e["memory_bytes"] or 0 for e in history.system
        ),
        "config": {"model": shape.to_dict(), "train": asdict(config)},
        "curve": {
            "tokens": [e["tokens"] for e in history.records],
            "seconds": [e["seconds"] for e in history.system],
            "train": [e["loss"] for e in history.records],
            "validation": [
                {
                    "tokens": int(np.interp(e["step"], *zip(*logged))),
                    **{k: e[k] for k in ("step", "loss", "bits_per_byte")},
                }
                for e in history.evaluations
            ],
        },
    }


def recipe(run, changes):
    """The preset's TrainConfig with these changes, and the run's own."""
    if run.preset == "gpt2-124m" and run.device.type == "cpu":
        if not run.changes:
            raise ValueError(
                "PyTorch finds no GPU here, and a processor would take weeks "
                "at this size: install a PyTorch that fits your GPU's driver"
            )
    compile = run.device.type == "cuda"
    changes = {"compile": compile, **changes, **run.changes}
    return replace(lu.RECIPES[run.preset], **changes)


def base_changes(tokens, preset) -> dict:
    """How the recipe of a preset is changed for so many tokens of text.

    Not at all where it reads no more than EPOCHS times the text; else BASE,
    and whole hundreds of steps where there are hundreds.
    """
    whole = lu.RECIPES[preset]
    room = int(EPOCHS * tokens)
    if room >= whole.steps * whole.batch_size * whole.context:
        return {}
    steps = max(1, room // (BASE["batch_size"] * whole.context))
    steps = steps // 100 * 100 or steps
    warmup = min(BASE["warmup_steps"], steps // 10)
    return BASE | dict(steps=steps, warmup_steps=warmup)


def compare(run) -> dict:
    """A minute each of the modern and of the classic recipe, same tokens."""
    tokenizer = lu.BPETokenizer.load(run.out / "tokenizer")
    train, validation = splits(run, tokenizer)
    rates = {k: BASE[k] for k in ("learning_rate", "muon_learning_rate")}
    modern = lu.ModelConfig.preset(run.preset, vocab_size=tokenizer.vocab_size)
    sizes = ("vocab_size", "context_length", "n_layer", "d_model")
    classic = lu.ModelConfig.preset(
        "gpt2-124m-classic",
        pad_vocab_to=64,
        n_head=modern.d_model // 64,
        **{name: getattr(modern, name) for name in sizes},
    )
    ways = {"modern": (modern, rates), "classic": (classic, CLASSIC)}
    figures = {}
    for name, (shape, changes) in ways.items():
        model = lu.GPT(shape).to(run.device)
        config = recipe(run, SHORT | changes)
        history = lu.train(model, train, config, validation, progress="print")
        figures[name] = {
            "parameters": lu.count_parameters(model),
            "loss": history.last["loss"],
            "bits_per_byte": history.last["bits_per_byte"],
            **figures_of(run, history, config, shape),
        }
    gain = figures["classic"]["loss"] - figures["modern"]["loss"]
    print(f"  the modern recipe is {gain:.3f} nats a token ahead")
    return figures


def base(run) -> dict:
    """The base model, in one go or several: a run that was stopped goes on."""
    tokenizer = lu.BPETokenizer.load(run.out / "tokenizer")
    train, validation = splits(run, tokenizer)
    shape = lu.ModelConfig.preset(run.preset, vocab_size=tokenizer.vocab_size)
    model = lu.GPT(shape).to(run.device)
    changes = base_changes(len(train.tokens), run.preset)
    config = recipe(run, changes | {"max_minutes": run.max_minutes})
    begun = run.out / "run" / "inputs.json"  # a run of other text is no start
    same = not begun.exists() or lu.read_json(begun) == run.inputs("base")
    lu.write_json(begun, run.inputs("base"))
    history = lu.train(
        model,
        train,
        config,
        validation,
        run.out / "run",
        resume=same,
        progress="print",
    )
    if history.stopped != "done":
        raise RuntimeError(
            f"stopped after {history.steps:,} of {config.steps:,} steps: take "
            "the step again, and it goes on"
        )
    figures = {"parameters": lu.count_parameters(model)}
    figures |= figures_of(run, history, config, shape)
    told = {k: figures[k] for k in ("steps", "tokens", "seconds")}
    lu.save_model(model, run.out / "base", tokenizer, told | history.last)
    whole = lu.evaluate(model, validation, precision="auto")
    figures["validation"] = whole
    figures["sha256"] = lu.read_json(run.out / "base" / "training.json")[
        "sha256"
    ]
    print(
        f"  {figures['tokens_per_second']:,.0f} tokens a second, "
        f"{figures['utilisation']:.0%} of the peak; validation "
        f"{whole['loss']:.3f} nats a token, {whole['bits_per_byte']:.4f} bits "
        "a byte"
    )
    return figures


def pack(run) -> dict:
    """The base in 8 bits, in OUT/weights/base, and what that costs."""
    tokenizer = lu.BPETokenizer.load(run.out / "base")
    model, training = lu.load_model(run.out / "base", run.device)
    validation = run.validation(tokenizer)
    folder = run.out / "weights" / "base"
    lu.save_quantized(model, folder, tokenizer, training=training)
    small = lu.load_quantized(folder, run.device)
    loss = {
        name: lu.evaluate(m, validation, run.limit or 0)["loss"]
        for name, m in (("float32", model), ("8 bits", small))
    }
    cost = loss["8 bits"] - loss["float32"]
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"  {size / 1e6:.1f} MB; in 8 bits {cost:+.5f} nats a token")
    return {"bits": 8, "bytes": size, "loss": loss, "cost": cost}


# What a step's figures say of the whole run, in the order of the report.
PARTS = (
    "compare",
    "pack",
    "classify",
    "instruct",
    "prefer",
    "evaluate",
    "samples",
)


def evaluation(measured) -> dict:
    """The figures of `evaluate`, of all models at once or one by one."""
    found = {}
    for file in sorted(measured.glob("evaluate*.json")):
        found |= lu.read_json(file)
    return found


def commands(measured) -> list[str]:
    """What was typed, in order of time."""
    files = sorted(measured.glob("*.json"), key=lambda f: f.stat().st_mtime)
    figures = map(lu.read_json, files)  # those of chapters have no command
    return [f["command"] for f in figures if "command" in f]


def record(run) -> dict:
    """OUT/measured as results/gpt2-124m: run.json, and a file for each part."""
    measured = run.out / "measured"
    folder = lu.project_root() / "results" / run.preset
    base = lu.read_json(measured / "base.json")
    corpus = measured / "corpus.json"
    parts = {
        name: lu.read_json(measured / f"{name}.json")
        for name in PARTS
        if (measured / f"{name}.json").exists()
    }
    if found := evaluation(measured):
        parts["evaluate"] = found
    texts = parts.get("samples", {}).get("base", [])
    lu.write_json(
        folder / "run.json",
        {
            **base,
            "commands": commands(measured),
            "data_card": lu.read_json(corpus) if corpus.exists() else None,
            "evaluation": parts.get("evaluate", {}).get("base"),
            "samples": texts[:20],
            "parts": sorted(parts),
        },
    )
    for name, figures in parts.items():
        lu.write_json(folder / f"{name}.json", figures)
    print(f"  {folder}: run.json, {', '.join(f'{p}.json' for p in parts)}")
    return {"parts": sorted(parts)}

"""`make book` at the size of GPT-2: what is taken, from where, and what it costs.

The Hub is played by a stand-in; rows have the columns that each set has there.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_book import ROOT, Book
from test_gpt2_124m import (
    sentence,
    write_benchmarks,
    write_instructions,
    write_preferences,
)

import card
import gpt2_124m as program
import llm_utils as lu
import pretrain_124m
import public_sets
import readme
import run

# What takes what's place

PROGRAM = """
import os, signal, sys, time
wanted = sys.argv[1:]
if wanted[0] == "base" and "--plan" in wanted and len(wanted) < 8:
    print("base: " + os.environ.get("BASE", "nothing changed"))
    sys.exit()
print("steps:", *wanted, flush=True)
if "WAIT" in os.environ:
    def stop(*_):
        print("saved", flush=True)
        sys.exit(1)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    open(os.environ["WAIT"], "w").close()
    time.sleep(60)
sys.exit(int(os.environ.get("STATUS", "0")))
"""
LARGE = {"LLM_PRESET": "gpt2-124m"}


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Book:
    """A chapter that runs, and two, 5 and 6, that would not."""
    book = Book(tmp_path_factory.mktemp("book"))
    (book.folder / "ch03_attention" / "attention.ipynb").unlink()
    (book.folder / "ch02_tokenizer" / "tokenizer.ipynb").unlink()
    book.write("ch05_pretrain/pretrain.ipynb", ["# Pretraining", "1 / 0"])
    book.write("ch06_finetune/finetune.ipynb", ["# Fine-tuning", "1 / 0"])
    (book.folder / "book" / "gpt2_124m.py").write_text(PROGRAM)
    return book


def steps_of(told) -> list[str]:
    """The steps that the program was asked for."""
    line = next(s for s in told.stdout.splitlines() if s.startswith("steps:"))
    return line.split()[1 : line.split().index("--out")]


def test_steps_take_the_place_of_later_chapters(book):
    told = book.tool("run", **LARGE)
    assert told.returncode == 0, told.stdout
    assert "ch01 Data: done" in told.stdout
    assert steps_of(told) == "compare base pack classify instruct".split()
    assert "--preset gpt2-124m" in told.stdout
    assert "--out artifacts/gpt2-124m" in told.stdout
    assert (book.folder / "artifacts/gpt2-124m/corpus").exists()
    again = book.tool("run", **LARGE)
    assert "ch01 Data: nothing changed" in again.stdout


def test_a_chapter_alone_takes_its_own_steps(book):
    told = book.tool("run", "ch06", "--force", **LARGE)
    assert steps_of(told) == ["classify", "instruct"]
    assert "--force" in told.stdout and "--plan" not in told.stdout


def test_a_plan_is_only_told(book):
    told = book.tool("run", "--plan", **LARGE)
    assert told.returncode == 0
    assert steps_of(told)[:2] == ["compare", "base"]
    assert "--plan" in told.stdout


def test_other_presets_run_the_notebooks(book):
    told = book.tool("run")
    assert "ch05 Pretraining: artifacts/smoke/tokenizer is missing" in (
        told.stdout
    )
    assert "steps:" not in told.stdout


def test_what_fails_after_the_base_stops_only_a_chapter(book):
    """The page and the card are made all the same; the card then tells."""
    assert book.tool("run", STATUS="1", **LARGE).returncode == 0
    assert book.tool("run", "ch06", STATUS="1", **LARGE).returncode == 1
    told = book.tool("run", STATUS="1", BASE="runs, as …", **LARGE)
    assert told.returncode == 1
    assert "the base model is not there yet" in told.stdout


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_program_time_to_save(book, tmp_path, number):
    waits = tmp_path / "waits"
    child = subprocess.Popen(
        [sys.executable, "book/run.py", "ch05"],
        cwd=book.folder,
        env=os.environ | LARGE | {"WAIT": str(waits), "BASE": "runs"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not waits.exists():
        time.sleep(0.05)
        assert child.poll() is None
    child.send_signal(number)
    time.sleep(0.5)
    if number == signal.SIGINT:  # a terminal tells both
        assert child.poll() is None
        program_of(child).send_signal(number)
    said, _ = child.communicate(timeout=20)
    assert "saved" in said
    assert child.returncode == (130 if number == signal.SIGINT else 1)


def program_of(child):
    import psutil

    return psutil.Process(child.pid).children()[0]


# Whether figures stand


@pytest.fixture
def place(tmp_path) -> program.Run:
    """A Run whose base and data are files of a few bytes."""
    data, out = tmp_path / "data", tmp_path / "out"
    lu.write_json(out / "base" / "training.json", {"sha256": "1"})
    (data / "classification").mkdir(parents=True)
    (data / "classification" / "sms_spam.tsv").write_text("ham\tHello")
    return program.Run(data, out)


def test_figures_stand_while_what_they_follow_from_is_the_same(
    place, monkeypatch
):
    taken = []
    monkeypatch.setitem(
        program.STEPS, "classify", lambda run: taken.append(1) or {"a": 1}
    )
    program.STEPS["classify"].__doc__ = "Is it spam?"
    assert program.reason("classify", place) == "it has not been taken yet"
    for _ in range(2):
        assert program.take("classify", place)["a"] == 1
    assert len(taken) == 1 and program.reason("classify", place) == ""
    assert program.reason("classify", place, True) == "you asked for it"
    lu.write_json(place.out / "base" / "training.json", {"sha256": "2"})
    assert program.reason("classify", place) == "base changed"
    program.take("classify", place)
    with open(place.data / "classification" / "sms_spam.tsv", "a") as file:
        file.write("more")
    assert program.reason("classify", place) == "data/classification changed"
    program.take("classify", place)
    assert len(taken) == 3 and not program.reason("classify", place)
    path = place.out / "measured" / "classify.json"
    lu.write_json(path, lu.read_json(path) | {"missing": ["piqa"]})
    assert program.reason("classify", place) == "piqa was missing"
    old = {"a": 1}  # figures of before this was noted
    lu.write_json(path, old)
    assert program.take("classify", place) == old


def test_every_step_is_planned_without_being_taken(place, monkeypatch, capsys):
    steps = [s for some in run.STEPS["gpt2-124m"].values() for s in some]
    assert set(steps) <= set(program.READS) & set(program.STEPS)
    command = ["x", *steps, "--plan", "--out", str(place.out)]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setenv("LLM_DATA", str(place.data))
    program.main()
    told = capsys.readouterr().out.splitlines()
    assert told == [f"{s}: runs, as it has not been taken yet" for s in steps]
    monkeypatch.setenv("LLM_DATA", str(place.data / "none"))
    with pytest.raises(SystemExit):
        program.main()
    assert "is no folder of data" in capsys.readouterr().err


def test_what_needs_a_base_that_failed_is_not_tried(place, monkeypatch):
    def fails(run):
        """It fails."""
        raise RuntimeError("stopped")

    for name in ("base", "classify"):
        monkeypatch.setitem(program.STEPS, name, fails)
    command = ["x", "base", "classify", "--out", str(place.out)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as error:
        program.main()
    assert error.value.code == "base: stopped"


# The recipe


@pytest.mark.parametrize(
    ("seconds", "pace"),
    [([4.0], 50.0), ([4.0, 8.0], 25.0), ([10.0, 100.0, 160.0], 5 / 3)],
)
def test_the_pace_leaves_out_the_first_minute_if_there_is_more(seconds, pace):
    history = lu.History()
    history.tokens, history.seconds = 100 * len(seconds), 2.0
    for n, at in enumerate(seconds, 1):
        history.system.append({"seconds": at})
        history.records.append({"tokens": 100 * n})
    assert pretrain_124m.pace(history) == pytest.approx(pace)


def test_the_recorded_text_has_the_recorded_recipe():
    assert pretrain_124m.base_changes(84_900_000, "gpt2-124m") == dict(
        batch_size=128,
        accumulation=4,
        steps=2100,
        learning_rate=2e-3,
        muon_learning_rate=0.015,
        warmup_steps=60,
        eval_every=250,
        eval_documents=100,
        checkpoint_every=1250,
        log_every=10,
    )
    recorded = lu.read_json(ROOT / "results" / "gpt2-124m" / "run.json")
    config = recorded["config"]["train"]
    for name, value in pretrain_124m.base_changes(
        84_900_000, "gpt2-124m"
    ).items():
        assert config[name] == value, name


def test_a_billion_tokens_have_the_recipe_of_the_preset():
    assert pretrain_124m.base_changes(10**9, "gpt2-124m") == {}
    assert pretrain_124m.base_changes(3 * 10**9, "gpt2-124m") == {}


@given(st.integers(40_000, 10**9))
def test_no_text_is_read_more_than_four_times(tokens):
    whole = lu.RECIPES["gpt2-124m"]
    changes = pretrain_124m.base_changes(tokens, "gpt2-124m")
    recipe = lu.replace(whole, **changes)
    read = recipe.steps * recipe.batch_size * recipe.context
    assert recipe.warmup_steps <= recipe.steps / 10 + 1
    assert read <= 4 * tokens
    if changes and tokens > 10**8:  # and, where it is small, not much less
        assert read > 3 * tokens


@pytest.fixture
def shards(tmp_path) -> program.Run:
    """A Run at the smallest size with a tokenizer and shards."""
    draw, out = random.Random(0), tmp_path / "out"
    texts = [" ".join(sentence(draw) for _ in range(20)) for _ in range(30)]
    tokenizer = lu.BPETokenizer.train(texts, 300)
    tokenizer.save(out / "tokenizer")
    for split, some in (("train", texts[:20]), ("validation", texts[20:])):
        lu.write_shards(some, tokenizer, out / "shards", split)
    return program.Run(None, out, preset="smoke")


def test_a_stopped_base_goes_on_and_one_of_other_text_begins_anew(
    shards, monkeypatch
):
    begun = []

    def stopped(model, data, config, validation, folder, resume, progress):
        begun.append((resume, config.steps))
        return lu.History(stopped="signal")

    monkeypatch.setattr(lu, "train", stopped)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="and it goes on"):
            pretrain_124m.base(shards)
    lu.write_shards(["Other text. " * 99], shards_tokenizer(shards),
                    shards.out / "shards", "train")  # fmt: skip
    with pytest.raises(RuntimeError):
        pretrain_124m.base(shards)
    assert [resume for resume, _ in begun] == [True, True, False]
    assert begun[0][1] < lu.RECIPES["smoke"].steps  # there is little text


def shards_tokenizer(run):
    return lu.BPETokenizer.load(run.out / "tokenizer")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_base_is_not_begun(place):
    with pytest.raises(ValueError, match="finds no GPU"):
        pretrain_124m.recipe(place, {})


# The public sets

TURN = "A man turns [substeps] the wheel."
PUBLISHED = {
    "ucirvine/sms_spam": [
        {"sms": "Ok lar...\tJoking wif u oni...\n", "label": 0},
        {"sms": "Free entry in 2 a wkly comp\n", "label": 1},
    ],
    "yahma/alpaca-cleaned": [
        {"output": "Red.", "input": "", "instruction": "Name a colour."},
        {"output": "3", "input": "1 + 2", "instruction": "Add these."},
    ],
    "HuggingFaceH4/ultrafeedback_binarized": [
        {
            "prompt": f"Which is best, {good}?",
            "prompt_id": "0f",
            "chosen": [
                {"content": "Which is best?", "role": "user"},
                {"content": "The first.", "role": "assistant"},
            ],
            "rejected": [
                {"content": "Which is best?", "role": "user"},
                {"content": "I do not know.", "role": "assistant"},
            ],
            "messages": [],
            "score_chosen": good,
            "score_rejected": 5.0,
        }
        for good in (8.5, 5.0)
    ],
    "Rowan/hellaswag": [
        {
            "ind": 4,
            "activity_label": "Driving",
            "ctx_a": TURN,
            "ctx_b": "then he",
            "ctx": f"{TURN} then he",
            "endings": ["stops [title] Why.", "sings.", "runs.", "waits."],
            "source_id": "activitynet~v_1",
            "split": "val",
            "split_type": "indomain",
            "label": "2",
        }
    ],
    "allenai/ai2_arc": [
        {
            "id": "Mercury_1",
            "question": "Which is a gas?",
            "choices": {"text": ["iron", "air", "ice"], "label": list("123")},
            "answerKey": "2",
        }
    ],
    "ybisk/piqa": [
        {"goal": "Boil an egg", "sol1": "In a hat.", "sol2": "In water.",
         "label": 1}
    ],
    "EleutherAI/lambada_openai": [{"text": "He saw the door and the door"}],
}  # fmt: skip


class Hub:
    """Plays `load_dataset`: what was asked for, and sets that are not there."""

    def __init__(self):
        self.asked, self.away = [], {}

    def __call__(self, repository, name=None, *, split, revision=None):
        self.asked.append((repository, name, split, revision))
        if repository in self.away:
            raise self.away[repository]
        return datasets.Dataset.from_list(PUBLISHED[repository])


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(datasets, "load_dataset", hub)
    return hub


def test_rows_of_the_hub_become_rows_of_the_files(hub, tmp_path):
    here = program.Run(None, tmp_path)
    path = here.folder("classification") / "sms_spam.tsv"
    assert path.read_text().splitlines() == [
        "ham\tOk lar... Joking wif u oni...",
        "spam\tFree entry in 2 a wkly comp",
    ]
    assert program.instruction_rows(here.folder("instructions")) == [
        {"prompt": "Name a colour.", "answer": "Red.", "source": "alpaca"},
        {"prompt": "Add these.\n\n1 + 2", "answer": "3", "source": "alpaca"},
    ]
    (pair,) = program.preference_rows(here.folder("preferences"))
    assert pair == {
        "prompt": "Which is best, 8.5?",
        "chosen": "The first.",
        "rejected": "I do not know.",
        "source": "ultrafeedback",
        "first": "Which is best, 8.5?",
    }
    folder = here.folder("eval")
    found = {n: lu.benchmark_rows(n, folder) for n in lu.BENCHMARKS}
    assert found == {
        "hellaswag": [
            {
                "context": "Driving: A man turns the wheel. then he",
                "choices": ["stops. Why.", "sings.", "runs.", "waits."],
                "gold": 2,
            }
        ],
        "arc_easy": [
            {
                "context": "Question: Which is a gas?\nAnswer:",
                "choices": ["iron", "air", "ice"],
                "gold": 1,
            }
        ],
        "piqa": [
            {
                "context": "Question: Boil an egg\nAnswer:",
                "choices": ["In a hat.", "In water."],
                "gold": 1,
            }
        ],
        "lambada_openai": [
            {"context": "He saw the door and the", "continuation": "door"}
        ],
    }
    assert {r for r, *_ in hub.asked} == set(PUBLISHED)
    assert ("allenai/ai2_arc", "ARC-Easy", "test", None) in hub.asked
    count = len(hub.asked)
    here.folder("eval")  # once is enough
    assert len(hub.asked) == count


def test_rows_are_those_that_the_harness_would_ask():
    """HellaSwag's texts by its own rule, brackets and spaces included."""
    from lm_eval.tasks.hellaswag.utils import preprocess

    for text in (" A [step] man  runs. ", "Go [title] Why [a] [b] not.", TURN):
        assert public_sets.unbracketed(text) == preprocess(text)


def test_a_set_that_cannot_be_had_is_named(hub, tmp_path, capsys):
    here = program.Run(None, tmp_path)
    hub.away["ucirvine/sms_spam"] = ConnectionError("no route\nto the Hub")
    with pytest.raises(
        public_sets.Absent,
        match=r"ucirvine/sms_spam cannot be had from the Hub \(no route\).*"
        "LLM_DATA",
    ):
        program.classify(here)
    hub.away["ybisk/piqa"] = RuntimeError("scripts are not supported")
    folder = here.folder("eval", needed=False)
    assert "ybisk/piqa cannot be had" in capsys.readouterr().out
    names = [path.name.split(".")[0] for path in sorted(folder.iterdir())]
    assert names == ["arc_easy", "hellaswag_val", "lambada_openai"]


def test_a_set_of_another_form_is_named_and_nothing_is_left(
    hub, tmp_path, monkeypatch
):
    monkeypatch.setitem(PUBLISHED, "ybisk/piqa", [{"question": "?"}])
    with pytest.raises(public_sets.Absent, match="piqa has another form"):
        program.Run(None, tmp_path).folder("eval")
    assert not list(tmp_path.rglob("*piqa*"))


def test_of_a_large_set_the_same_rows_are_kept():
    lines = [f"line {i}" for i in range(1000)]
    kept = public_sets.some(lines, 100)
    assert len(kept) == 100 and kept != lines[:100]
    assert public_sets.some(lines[::-1], 100) == kept
    assert public_sets.some(lines, None) == lines


# The card and the costs


def test_the_card_tells_what_was_measured_and_what_was_not(tmp_path):
    recorded = ROOT / "results" / "gpt2-124m"
    base = lu.read_json(recorded / "run.json")
    lu.write_json(tmp_path / "base.json", base)
    for name in ("compare", "classify", "instruct"):
        shutil.copy(recorded / f"{name}.json", tmp_path)
    found = lu.read_json(recorded / "evaluate.json")
    found["chance"].pop("piqa")
    lu.write_json(tmp_path / "evaluate.json", found | {"missing": ["piqa"]})
    lines, missing = card.card_of_steps(tmp_path)
    assert missing == ["pack", "prefer", "piqa", "samples"]
    told = "\n".join(lines)
    assert f"{base['validation']['bits_per_byte']:.4f} bits a byte" in told
    assert f"{base['tokens_per_second']:,.0f} a second" in told
    spam = lu.read_json(recorded / "classify.json")["test"]["in full"]
    assert f"{spam['accuracy']:.1%} right" in told
    (line,) = [x for x in lines if x.startswith("HellaSwag")]
    assert line.split()[1:3] == [
        "25.0%",
        f"{found['base']['hellaswag']['acc']:.1%}",
    ]
    assert "PIQA" not in told


def test_preferences_stand_on_the_card():
    mark = {"all": {"accuracy": 0.5, "pairs": 40}}
    after = {"all": {"accuracy": 0.625, "pairs": 40}}
    assert card.prefer_lines({"before": mark, "after": after}) == [
        "held-out preferences  50.0% → 62.5% of 40 pairs in order"
    ]


def test_costs_follow_from_speed_and_price():
    run = {
        "hardware": {"device": "One"},
        "tokens_per_second": 100_000.0,
        "peak_memory_bytes": 18e9,
    }
    bench = {
        "clean": {"million_characters_per_second": {"clean": 10.0}},
        "shards": {"megabytes": 10.0, "ours_seconds": 3.0},
        "bpe_large": {"megabytes": 100.0, "memory_for_texts_bytes": 4e8},
    }
    told = readme.costs(
        run, {"compare": 60.0, "pack": 60.0}, bench, 720_000_000
    )
    assert "0.72 billion tokens at the recorded 100,000 a second | 120 minutes" in told
    assert "| $7.00 |" in told
    assert "compare, pack, on the data of the recorded run | 2 minutes" in told
    assert "cleaning it takes 0.3 hours" in told
    assert "into tokens 1.0 on one core" in told
    assert "about 48 GB of memory" in told


def test_the_costs_are_of_what_chapters_1_and_5_say():
    data = (ROOT / "ch01_data" / "data.ipynb").read_text(encoding="utf-8")
    assert f"PRESET, ({readme.TEXT_BYTES / 1e9:.0f}e9, 0.002)" in data
    base = (ROOT / "ch05_pretrain/pretrain.ipynb").read_text(encoding="utf-8")
    assert f'\\"one H200\\": (989e12, 0.4, {readme.PRICE})' in base


# All of it

WHOLE = """
import sys
import run

small = '{"steps": 6, "batch_size": 8, "accumulation": 1, "warmup_steps": 2, ' \
    '"eval_documents": 5}'
command = run.program
run.STEPS["smoke"] = run.STEPS["gpt2-124m"]
run.program = lambda steps, preset, *options: command(
    steps, preset, *options, "--limit", "12", "--changes", small)
sys.exit(run.main(["ch01", "ch02", "ch05", "ch06", "ch07", "ch08"]))
"""


def write_texts(path, draw):
    """Documents of invented words, of one to three paragraphs."""
    parts = "ba ko ri ten mo sul ver an di pel gra hus".split()
    words = ["".join(draw.choices(parts, k=1 + i % 4)) for i in range(1500)]

    def paragraph():
        return " ".join(
            " ".join(draw.choices(words, k=draw.randint(5, 14))).capitalize()
            + "."
            for _ in range(6)
        )

    lu.write_lines(
        path,
        (
            {"text": "\n\n".join(paragraph() for _ in range(1 + i % 3))}
            for i in range(1600)
        ),
    )


@pytest.mark.full
def test_a_whole_book_on_real_text(offline, tmp_path):
    """From a corpus to a card, at the smallest size, and not twice."""
    draw, book, data = random.Random(0), tmp_path / "book", tmp_path / "data"
    for name in ("book", "ch01_data", "ch02_tokenizer", "results"):
        shutil.copytree(ROOT / name, book / name)
    shutil.copy(ROOT / "llm_utils.py", book)
    for path in ROOT.glob("ch*/*.ipynb"):  # all that llm_utils is made of
        place = book / path.relative_to(ROOT)
        place.parent.mkdir(exist_ok=True)
        shutil.copy(path, place)
    write_texts(tmp_path / "text" / "text.jsonl", draw)
    rasbt = write_instructions(data / "instructions", draw)
    write_preferences(data / "preferences", draw, rasbt)
    write_benchmarks(data / "eval", draw)
    (data / "eval" / "piqa.jsonl").unlink()
    (data / "classification").mkdir()
    (data / "classification" / "sms_spam.tsv").write_text(
        "".join(
            f"{'spam' if i % 3 == 0 else 'ham'}\t{i} {sentence(draw)}\n"
            for i in range(90)
        )
    )
    environment = offline | {
        "LLM_PRESET": "smoke",
        "LLM_CORPUS": str(tmp_path / "text"),
        "LLM_DATA": str(data),
        "PYTHONPATH": f"{ROOT / 'book' / 'offline'}:{book / 'book'}:{book}",
    }

    def whole():
        return subprocess.run(
            [sys.executable, "-c", WHOLE],
            cwd=book,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    first = whole()
    assert first.returncode == 0, first.stdout
    assert "piqa is left out" in first.stdout
    lines, missing = card.card_of_steps(book / "artifacts/smoke/measured")
    assert missing == ["piqa"]
    assert sum(line.startswith("held-out") for line in lines) == 3
    second = whole()
    assert second.returncode == 0, second.stdout
    assert second.stdout.count("nothing changed") == 2
    assert second.stdout.count("stands in") == 7  # all but the benchmarks
    table = json.loads(
        (book / "artifacts/smoke/measured/evaluate.json").read_text()
    )
    assert set(table) >= {"base", "instruct", "dpo"}

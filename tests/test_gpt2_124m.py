"""The 124M model's later steps, each on a toy that takes seconds.

The rows of data are invented, in the form of the files they stand for; real
files are read where they are.
"""

import gzip
import json
import lzma
import math
import random
import shutil

import pytest
import torch

import gpt2_124m as program
import llm_utils as lu

WORDS = (
    "red blue green small large old new house river bird walks sings".split()
)


def sentence(draw, n=6):
    return " ".join(draw.choices(WORDS, k=n)).capitalize() + "."


def write_rows(path, rows, lines=True):
    """Rows as JSON, or JSON Lines, packed as the name of the file says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(
            "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
        )


def write_instructions(folder, draw):
    def pair():
        return {"instruction": sentence(draw, 5), "output": sentence(draw, 3)}

    dolly = [
        {
            "instruction": sentence(draw, 5),
            "response": sentence(draw, 4),
            "may_need_context": i % 4 == 0,
        }
        for i in range(40)
    ]
    write_rows(folder / "dolly_6k.jsonl.xz", dolly)
    write_rows(
        folder / "self_instruct_seed_tasks.jsonl",
        [
            {
                "instruction": f"Seed {i}. {sentence(draw)}",
                "instances": [{"input": "", "output": sentence(draw)}],
            }
            for i in range(5)
        ],
    )
    rasbt = [pair() | {"input": "a bird"} for _ in range(20)]
    write_rows(folder / "rasbt_instruction_data.json", rasbt, False)
    write_rows(
        folder / "dolly_hhrlhf_small.jsonl",
        [
            {
                "prompt": "Below.\n\n### Instruction:\n"
                f"{asked}\n\n### Response:\n",
                "response": sentence(draw),
            }
            for asked in (dolly[0]["instruction"], sentence(draw, 7))
        ],
    )
    return rasbt


def write_preferences(folder, draw, rasbt):
    rows = [r | {"chosen": r["output"], "rejected": "No."} for r in rasbt]
    write_rows(folder / "rasbt_instruction_preference.json", rows, False)
    write_rows(
        folder / "qa_feedback_dev.json.xz",
        [
            {
                "question": f"{i}? {sentence(draw)}",
                "passages": [["A title", sentence(draw), sentence(draw)]],
                **{f"prediction {k}": f"answer {k}" for k in range(1, 5)},
                "preference": [1, 0, 2, 0, 0, 1],
            }
            for i in range(12)
        ],
        False,
    )
    opening = "\n\nHuman: {}\n\nAssistant: {}\n\nHuman: {}\n\nAssistant:"
    write_rows(
        folder / "hh_harmless_base_test.jsonl.gz",
        [
            {"chosen": before + " Yes.", "rejected": before + " No, no."}
            for before in (
                opening.format(*(sentence(draw) for _ in range(3)))
                for _ in range(20)
            )
        ],
    )


def write_benchmarks(folder, draw):
    def choices(n):
        return [sentence(draw, 3) for _ in range(n)]

    write_rows(
        folder / "hellaswag_val.jsonl.xz",
        [
            {"ctx": sentence(draw), "endings": choices(4), "label": i % 4}
            for i in range(6)
        ],
    )
    for name, n in (("arc_easy", 4), ("piqa", 2)):
        write_rows(
            folder / f"{name}.jsonl",
            [
                {"query": sentence(draw), "choices": choices(n), "gold": i % n}
                for i in range(6)
            ],
        )
    write_rows(
        folder / "lambada_openai.jsonl.xz",
        [
            {"context": sentence(draw), "continuation": draw.choice(WORDS)}
            for _ in range(6)
        ],
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A Run with invented data and a random model, and its texts."""
    draw, place = random.Random(0), tmp_path_factory.mktemp("toy")
    data, out = place / "data", place / "out"
    texts = [" ".join(sentence(draw) for _ in range(8)) for _ in range(30)]
    messages = [
        f"{'spam' if i % 3 == 0 else 'ham'}\t"
        f"{'WIN CASH ' if i % 3 == 0 else ''}{i} {sentence(draw)}"
        for i in range(90)
    ]
    path = data / "classification" / "sms_spam.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(messages) + "\n", encoding="utf-8")
    rasbt = write_instructions(data / "instructions", draw)
    write_preferences(data / "preferences", draw, rasbt)
    write_benchmarks(data / "eval", draw)
    tokenizer = lu.BPETokenizer.train(texts, 300)
    for split, some in (("train", texts[:20]), ("validation", texts[20:])):
        lu.write_shards(some, tokenizer, out / "shards", split)
    model = lu.GPT(
        lu.ModelConfig(
            vocab_size=300,
            context_length=160,
            n_layer=2,
            n_head=2,
            n_kv_head=1,
            d_model=32,
            d_ff=64,
            pad_vocab_to=64,
        )
    )
    lu.save_model(model, out / "base", tokenizer)
    lu.save_quantized(model, out / "weights" / "base", tokenizer)
    return program.Run(data, out, limit=12)


@pytest.fixture(scope="module")
def figures(toy):
    """What every step found, taken in the order of the program's table."""
    return {name: program.take(name, toy) for name in LATER}


LATER = ("classify", "instruct", "prefer", "evaluate", "samples")


def test_every_step_leaves_its_figures_and_is_not_taken_twice(
    toy, figures, capsys
):
    assert set(LATER) <= set(program.STEPS)
    for name in LATER:
        file = toy.out / "measured" / f"{name}.json"
        assert lu.read_json(file) == figures[name]
        assert program.take(name, toy) == figures[name]
    assert capsys.readouterr().out.count("stands in") == len(LATER)


def test_a_message_and_its_like_fall_on_one_side():
    """Spam comes in series that differ by a number; no side shares one."""
    draw = random.Random(1)
    rows = []
    for family in range(40):
        body = f"Family {family}: {sentence(draw, 12)}"
        rows += [
            ("spam", f"{body} Call {draw.randrange(99)}") for _ in range(4)
        ]
    rows += [(label, text.upper() + " ") for label, text in rows[:9]]
    sides = program.message_sides(rows)
    assert all(sides.values())
    texts = [text for side in sides.values() for _, text in side]
    assert len({program.plain(t) for t in texts}) == len(texts)
    at = {
        name: {text.casefold().split(":")[0] for _, text in some}
        for name, some in sides.items()
    }
    assert sum(map(len, at.values())) == len(set.union(*at.values())) == 40


def test_marks_know_a_rare_class():
    labels = [0] * 8 + [1] * 2
    lazy = program.marks([0] * 10, labels)
    assert lazy["accuracy"] == 0.8 and lazy["balanced_accuracy"] == 0.5
    assert lazy["spam_f1"] == 0
    good = program.marks([0] * 7 + [1] * 3, labels)
    assert good["balanced_accuracy"] == pytest.approx((1 + 7 / 8) / 2)
    assert good["spam_f1"] == pytest.approx(0.8)


def test_the_interval_is_wilsons():
    from scipy.stats import binomtest

    for right, n in ((0, 10), (7, 9), (50, 100), (400, 400)):
        theirs = binomtest(right, n).proportion_ci(0.95, "wilson")
        assert program.interval(right, n) == pytest.approx(theirs, abs=1e-4)


def test_what_is_held_out_of_one_set_is_not_learned_from_another(toy):
    """Chapter 7's held-out prompts were not chapter 6's lessons."""
    instructions = program.instruction_rows(toy.data / "instructions")
    train, kept = program.part_instructions(instructions)
    assert train and kept
    pairs = program.preference_rows(toy.data / "preferences")
    judged = {p["first"] for p in pairs if program.held_out(p["first"])}
    assert judged and not judged & {r["prompt"] for r in train}
    # what differs by a word falls on either side, but is not learned
    draw = random.Random(3)
    body = next(
        text
        for text in (sentence(draw, 40) for _ in range(200))
        if program.held_out(text)
    )
    row = {"prompt": body, "answer": "Yes.", "source": "mine"}
    copies = [row | {"prompt": f"{body} {word}"} for word in WORDS]
    assert not all(program.held_out(c["prompt"]) for c in copies)
    again, _ = program.part_instructions([*instructions, row, *copies])
    assert [r["prompt"] for r in again] == [r["prompt"] for r in train]


def test_a_question_without_its_passage_is_left_out_everywhere(toy):
    """Dolly's, and the same question where it stands once more."""
    folder = toy.data / "instructions"
    asked = {r["prompt"] for r in program.instruction_rows(folder)}
    dolly = program.read(folder / "dolly_6k.jsonl.xz")
    again = program.read(folder / "dolly_hhrlhf_small.jsonl")[0]["prompt"]
    assert dolly[0]["instruction"] in again
    absent = {r["instruction"] for r in dolly if r["may_need_context"]}
    assert len(absent) == 10 and not absent & asked
    assert {r["instruction"] for r in dolly} - absent < asked


def test_a_dialogue_ends_with_the_answer_that_was_judged(toy):
    rows = program.preference_rows(toy.data / "preferences")
    talks = [r for r in rows if r["source"] == "harmlessness"]
    for row in talks:
        roles = [m["role"] for m in row["prompt"]]
        assert roles == ["user", "assistant", "user"]
        assert (row["chosen"], row["rejected"]) == ("Yes.", "No, no.")
    tokenizer = toy.tokenizer
    chat = lu.ChatFormat(tokenizer)
    data = lu.PreferenceDataset(talks, chat, 512)
    ids, mask = data[0][:2]
    learned = [t for t, m in zip(ids.tolist(), mask.tolist()) if m]
    assert learned == [*tokenizer.encode("Yes."), chat.end]


def test_pairs_are_the_way_round_that_people_chose(toy):
    """(1,2) first, (1,4) second, (3,4) first; the rest were equal."""
    rows = program.preference_rows(toy.data / "preferences")
    pairs = [
        (r["chosen"], r["rejected"]) for r in rows if r["source"] == "questions"
    ]
    assert pairs[:3] == [
        ("answer 1", "answer 2"),
        ("answer 4", "answer 1"),
        ("answer 3", "answer 4"),
    ]


def test_a_passage_is_cut_between_sentences():
    passages = [["T", "One. ", "Two two two."], ["U", "Three."]]
    assert program.shorten(passages, 24) == "One.\n\nThree."
    assert program.shorten(passages, 200) == "One. Two two two.\n\nThree."


def test_the_weights_and_adapters_make_the_merged_models(toy, figures):
    """What `load_pretrained` puts together is what was trained and measured."""
    ids = torch.arange(20)[None]
    below = lu.load_pretrained(stage="base", folder=toy.out / "weights")[0]
    for name in ("instruct", "dpo"):
        model, _ = lu.load_pretrained(stage=name, folder=toy.out / "weights")
        whole = toy.model(name)
        torch.testing.assert_close(model(ids)[0], whole(ids)[0])
        assert not torch.equal(model(ids)[0], below(ids)[0])
        below = model


def test_the_held_out_loss_is_the_mean_over_answer_tokens(toy):
    tokenizer = toy.tokenizer
    rows = [
        {"prompt": sentence(random.Random(i)), "answer": "red " * (i + 1)}
        for i in range(5)
    ]
    data = lu.InstructionDataset(rows, lu.ChatFormat(tokenizer), 512)
    model, total, count = toy.model("base"), 0.0, 0
    model.head.weight.data *= 30  # some tokens cost much more than others
    for x, y in data.examples:
        with torch.no_grad():
            logs = model(x[None])[0][0].log_softmax(-1)
        for t, token in enumerate(y.tolist()):
            if token != -100:
                total, count = total - logs[t, token].item(), count + 1
    found = program.held_out_loss(model, data, batch_size=2)
    assert found == pytest.approx(total / count, rel=1e-2)


def test_rewards_are_judged_against_the_reference():
    rows = [{"source": "a"}, {"source": "a"}, {"source": "b"}]
    reference = torch.tensor([[-1.0, -2.0], [-5.0, -3.0], [-1.0, -9.0]])
    policy = torch.tensor([[-1.5, -2.0], [-4.0, -3.0], [-1.0, -8.0]])
    before = program.reward_marks(None, reference, rows)
    after = program.reward_marks(policy, reference, rows)
    assert [before[k]["accuracy"] for k in "ab"] == [0.5, 1.0]
    assert [after[k]["accuracy"] for k in "ab"] == [0.5, 0.0]
    assert after["a"]["chosen_log_ratio"] == pytest.approx(0.25)
    assert after["all"]["rejected_log_ratio"] == pytest.approx(1 / 3)


def test_all_three_models_are_evaluated(toy, figures):
    found = figures["evaluate"]
    assert found["chance"] == {
        "hellaswag": 0.25,
        "arc_easy": 0.25,
        "piqa": 0.5,
        "lambada_openai": 0.0,
    }
    for name in program.MODELS:
        assert found[name]["bits_per_byte"] > 0
        for task in lu.BENCHMARKS:
            accuracy = found[name][task]["acc"]
            n = found["examples"][task]
            error = math.sqrt(accuracy * (1 - accuracy) / (n - 1))
            assert found[name][task]["acc_stderr"] == pytest.approx(error)


def test_samples_are_the_first_that_came(toy, figures):
    """A second run says the same; nothing was chosen or cut."""
    found = figures["samples"]
    assert len(found["base"]) == 20
    assert [s["prompt"] for s in found["base"][:10]] == [""] * 10
    assert all(len(found[name]) == 10 for name in ("instruct", "dpo"))
    assert program.samples(toy)["base"] == found["base"]


def test_a_step_without_what_it_needs_says_so(toy, tmp_path, monkeypatch):
    shutil.copytree(toy.out / "base", tmp_path / "base")
    command = ["x", "prefer", "--data", str(toy.data), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="prefer: .*instruct.* is missing"):
        program.main()
    assert not (tmp_path / "measured").exists()
    assert not (tmp_path / "dpo").exists()


def test_the_real_files_are_read(real_data):
    """All sets are there, with the held-out shares that the steps tell."""
    for folder, reader in (
        ("instructions", program.instruction_rows),
        ("preferences", program.preference_rows),
    ):
        rows = reader(real_data / folder)
        assert len(rows) > 5000
        asked = [r.get("first", r["prompt"]) for r in rows]
        share = sum(map(program.held_out, asked)) / len(rows)
        assert 0.08 < share < 0.12
    path = real_data / "classification" / "sms_spam.tsv"
    with open(path, encoding="utf-8") as file:
        sides = program.message_sides([line.split("\t", 1) for line in file])
    texts = [program.plain(t) for some in sides.values() for _, t in some]
    assert len(texts) == len(set(texts)) == 5159

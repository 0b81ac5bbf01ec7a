"""Chapter 6 at depth: packed rows, files of conversations, and the same run by
TRL, Axolotl and peft."""

import copy
import json
import lzma
import runpy
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import llm_utils as lu

WORDS = (
    "Hob lives at Low Bridge . Where does he live ? The ferry is late ; ask Ivy"
)
CLASSIC = dict(
    position="learned", norm="layernorm", bias=True, qk_norm=False, n_kv_head=2
)
CLASSIC |= dict(activation="gelu_tanh", tie_embeddings=True)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where does Hob live?"},
    {"role": "assistant", "content": "At Low Bridge."},
    {"role": "user", "content": "And Ivy?"},
    {"role": "assistant", "content": "There too.\n Ask her!"},
]
PAIR = TALK[1:3]
LORA = dict(rank=3, alpha=7, targets=["q_proj", "v_proj", "down_proj"])


@pytest.fixture(scope="module")
def tokenizer():
    return lu.BPETokenizer.train([WORDS] * 3, 300)


@pytest.fixture(scope="module")
def chat(tokenizer):
    return lu.ChatFormat(tokenizer)


def randomised(model, seed=1):
    """Every parameter random: a fresh one hides mistakes behind 0 and 1."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) / 5 + (p.dim() < 2))
    return model.eval()


def small(tokenizer, **changes):
    shape = dict(n_layer=2, d_model=32, n_head=2, n_kv_head=1, d_ff=48)
    shape |= dict(context_length=128, vocab_size=tokenizer.vocab_size)
    preset = lu.ModelConfig.preset("smoke").to_dict()
    return randomised(
        lu.GPT(lu.ModelConfig.from_dict(preset | shape | changes))
    )


@pytest.fixture
def model(tokenizer):
    return small(tokenizer)


def rows(n=24, seed=0):
    """Questions and answers of many lengths."""
    draw, words = torch.Generator().manual_seed(seed), WORDS.split()

    def some(most):
        count = int(torch.randint(1, most, (), generator=draw))
        picks = torch.randint(len(words), (count,), generator=draw)
        return " ".join(words[i] for i in picks)

    return [{"prompt": some(9), "answer": some(7)} for _ in range(n)]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


# Packed rows


@pytest.mark.parametrize(
    "changes",
    [{}, CLASSIC, dict(window=5), dict(position="none")],
    ids=["modern", "classic", "window", "no position"],
)
def test_packed_loss_and_gradients_are_those_of_separate_rows(
    tokenizer, chat, changes
):
    model = small(tokenizer, **changes)
    data = lu.InstructionDataset(rows(), chat, 100)
    packed = lu.PackedDataset(data, 100)
    assert len(packed) < len(data) / 2
    x, y, segments = lu.collate_packed(packed.examples, packed.pad)
    apart = lu.answer_loss(model, None, *lu.collate(data.examples, data.pad))
    together = lu.answer_loss(model, None, x, y, segments)
    assert abs(apart - together) < 1e-5
    leaking = lu.answer_loss(model, None, x, y)
    assert abs(apart - leaking) > 1e-3
    one, other = gradients(model, apart), gradients(model, together)
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-5), name


def test_a_packed_row_gives_every_logit_of_its_texts(model):
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(300, (n,), generator=draw) for n in (7, 1, 20, 12)]
    lengths = torch.tensor([len(t) for t in texts])
    for numbers in ([0, 1, 2, 3], [5, 5 - 9, 5, 0]):  # only changes count
        segments = torch.tensor(numbers).repeat_interleave(lengths)[None]
        packed = model(torch.cat(texts)[None], segments=segments)[0][0]
        apart = torch.cat([model(t[None])[0][0] for t in texts])
        assert (packed - apart).abs().max() < 1e-5


def test_no_text_sees_another_and_the_filling_is_seen_by_none(model):
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(300, (1, 30), generator=draw)
    segments = torch.tensor([[0] * 10 + [1] * 12 + [-1] * 8])
    before = model(x, segments=segments)[0]
    for changed, kept in [(slice(0, 10), slice(10, 22)),
                          (slice(22, 30), slice(0, 22))]:  # fmt: skip
        other = x.clone()
        other[:, changed] = (x[:, changed] + 7) % 300
        after = model(other, segments=segments)[0]
        assert torch.equal(after[:, kept], before[:, kept])
        assert not torch.equal(after[:, changed], before[:, changed])


def test_segment_mask_by_hand():
    mask, at = lu.segment_mask(torch.tensor([[3, 3, 4, 3, -1]]))
    assert at.tolist() == [[0, 1, 0, 0, 0]]
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]


def test_segments_go_with_neither_cache_nor_padding(model):
    x = torch.ones(1, 4, dtype=torch.long)
    for more in (
        dict(cache=model.new_cache()),
        dict(left_pad=torch.tensor([1])),
    ):
        with pytest.raises(ValueError, match="packed rows"):
            model(x, segments=x, **more)


@settings(max_examples=25)
@given(n=st.integers(1, 40), seed=st.integers(0, 99), room=st.integers(64, 200))
def test_every_example_is_in_one_row_and_whole(chat, n, seed, room):
    data = lu.InstructionDataset(rows(n, seed), chat, room)
    packed = lu.PackedDataset(data, room)
    assert sorted(sum(packed.rows, [])) == list(range(n))
    for row, (x, y, segments) in zip(packed.rows, packed.examples, strict=True):
        assert len(x) == len(y) == len(segments) <= room
        for k, i in enumerate(row):
            assert torch.equal(x[segments == k], data[i][0])
            assert torch.equal(y[segments == k], data[i][1])


def test_an_example_that_is_too_long_for_a_row(chat):
    data = lu.InstructionDataset(rows(), chat, 100)
    with pytest.raises(ValueError, match="does not fit into a row of 10"):
        lu.PackedDataset(data, 10)


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.full)]
)
def test_finetune_takes_packed_rows(tokenizer, chat, compiled):
    data = lu.InstructionDataset(rows(40), chat, 100)
    packed = lu.PackedDataset(data, 100)
    how = config(batch_size=2, learning_rate=1e-2, compile=compiled)
    losses = lu.finetune(
        small(tokenizer), packed, how, lu.collate_packed, lu.answer_loss
    )
    assert losses[-1] < losses[0] / 2


# Padding


def test_no_number_of_pads_and_no_order_changes_a_class_logit(model, tokenizer):
    classifier = lu.SequenceClassifier(model, 3)
    draw = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(classifier.head.weight, generator=draw)
    texts = [torch.tensor(tokenizer.encode(WORDS[:n])) for n in (3, 11, 30, 52)]
    lengths = torch.tensor([len(t) for t in texts])
    alone = torch.cat(
        [classifier(t[None], torch.tensor([len(t)]))[0] for t in texts]
    )
    for extra in range(65):
        width = int(lengths.max()) + extra
        x = torch.full((4, width), int(torch.randint(300, (), generator=draw)))
        for row, text in zip(x, texts):
            row[: len(text)] = text
        order = torch.randperm(4, generator=draw)
        logits = classifier(x[order], lengths[order])[0]
        assert (logits - alone[order]).abs().max() < 1e-5, extra


def test_the_end_is_learned_even_where_the_filling_has_its_id(model, tokenizer):
    chat = lu.ChatFormat(tokenizer)
    chat.pad = chat.end
    data = lu.InstructionDataset(rows(6), chat, 100)
    x, y = lu.collate(data.examples, data.pad)
    assert (y == chat.end).sum(1).tolist() == [1] * 6
    lengths = [len(x) for x, _ in data.examples]
    for row, n in zip(y, lengths):
        assert row[n - 1] == chat.end and (row[n:] == -100).all()
    model.zero_grad()
    hidden = model(x, hidden=True).detach().requires_grad_()
    cross_entropy(model.logits(hidden).flatten(0, 1), y.flatten()).backward()
    moved = hidden.grad.abs().sum(-1) > 0
    for row, n in zip(moved, lengths):
        assert row[n - 1] and not row[n:].any()


# The template

CONTENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CONVERSATION = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(lu.ChatFormat.ROLES), "content": CONTENT}
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50)
@given(messages=CONVERSATION, prompted=st.booleans())
def test_the_jinja_template_gives_our_ids(tokenizer, chat, messages, prompted):
    """A user who writes a mark is the exception: there only ours is safe."""
    other = tokenizer.to_transformers()
    for template in (chat.jinja, lu.training_template(chat)):
        text = other.apply_chat_template(
            messages, chat_template=template, tokenize=False,
            add_generation_prompt=prompted,
        )  # fmt: skip
        if not any("<|" in m["content"] for m in messages):
            ids = other.encode(text, add_special_tokens=False)
            assert ids == chat.encode(messages, prompted)


# Labels, as others make them


def trl_labels(tokenizer, chat, messages):
    made = tokenizer.to_transformers().apply_chat_template(
        messages, chat_template=lu.training_template(chat), tokenize=True,
        return_dict=True, return_assistant_tokens_mask=True,
    )  # fmt: skip
    return made["input_ids"], [
        t if m else -100
        for t, m in zip(made["input_ids"], made["assistant_masks"])
    ]


def axolotl_labels(tokenizer, chat, messages):
    axolotl = pytest.importorskip("axolotl.prompt_strategies.chat_template")
    theirs = tokenizer.to_transformers()
    prompter = axolotl.ChatTemplatePrompter(
        theirs, chat_template=chat.jinja, max_length=512
    )
    made = axolotl.ChatTemplateStrategy(
        prompter, theirs, train_on_inputs=False, sequence_len=512,
        roles_to_train=["assistant"], train_on_eos="turn",
        eot_tokens=["<|end|>"],
    ).tokenize_prompt({"messages": messages})  # fmt: skip
    return made["input_ids"], made["labels"]


@pytest.mark.parametrize("theirs", [trl_labels, axolotl_labels])
def test_labels_are_theirs(tokenizer, chat, theirs):
    some = [TALK, PAIR, TALK[1:], PAIR + PAIR]
    some += [lu.as_messages(row) for row in rows(10)]
    for messages in some:
        ids, labels = theirs(tokenizer, chat, messages)
        assert (list(ids), list(labels)) == chat.encode_example(messages)


# Files of conversations


def shapes():
    q, a = (m["content"] for m in PAIR)
    return [
        {"messages": PAIR},
        {"conversations": [{"from": "human", "value": q},
                           {"from": "gpt", "value": a}]},
        {"instruction": q, "input": "", "output": a},
        {"instruction": "Where", "input": "does", "output": a},
        {"prompt": q, "answer": a},
        {"instruction": "Where", "context": "does", "response": a},
        {"prompt": q, "completion": a},
    ]  # fmt: skip


BROKEN = [
    '{"messages": [{"role": "user", "con',
    '{"messages": []}',
    '{"messages": "hello"}',
    '{"messages": [{"role": "judge", "content": "x"}]}',
    '{"messages": [{"role": "user", "content": "x"}]}',
    '{"messages": [{"role": "assistant", "content": null}]}',
    '{"messages": ["x"]}',
    '{"conversations": [7]}',
    '{"conversations": [{"from": "gpt"}]}',
    '{"instruction": "x", "output": ""}',
    '{"instruction": "x", "output": ["y"]}',
    '{"instruction": 3, "input": "y", "output": "y"}',
    '{"question": "x"}',
    '"just a text"',
    "7",
    "[" * 100_000,
]


@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.xz"])
def test_all_shapes_are_read(tmp_path, ending):
    path = tmp_path / f"talks.{ending}"
    text = (
        json.dumps(shapes(), indent=1)
        if ending == "json"
        else "\n".join(map(json.dumps, shapes())) + "\n\n"
    )
    data = b"\xef\xbb\xbf" + text.encode()
    path.write_bytes(lzma.compress(data) if ending.endswith("xz") else data)
    read = lu.read_conversations(path)
    q, a = (m["content"] for m in PAIR)
    talks = [[m["content"] for m in row["messages"]] for row in read]
    assert talks == [[q, a]] * 3 + [["Where\n\ndoes", a], [q, a]] * 2


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
def test_a_malformed_line_is_named_or_skipped(tmp_path, line):
    path, log = tmp_path / "talks.jsonl", {}
    good = json.dumps(shapes()[0])
    path.write_text(f"{good}\n\n{line}\n{good}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"talks\.jsonl, line 3: .{5}"):
        lu.read_conversations(path)
    with pytest.warns(UserWarning, match="1 malformed, skipped; first line 3"):
        read = lu.read_conversations(path, malformed="skip", log=log)
    assert read == [{"messages": PAIR}] * 2 and log["rows"] == 2
    assert len(log["skipped"]) == 1


def test_a_malformed_row_of_a_list_is_named(tmp_path):
    path = tmp_path / "talks.json"
    path.write_text(json.dumps([shapes()[0], {"question": "x"}]))
    with pytest.raises(ValueError, match=r"talks\.json, row 2: a row needs"):
        lu.read_conversations(path)
    path.write_text(json.dumps(shapes())[:-9])
    with pytest.raises(ValueError, match="talks.json is not JSON"):
        lu.read_conversations(path, malformed="skip")


def test_bytes_that_are_no_text_are_a_malformed_line(tmp_path):
    path = tmp_path / "talks.jsonl"
    good = json.dumps(shapes()[0]).encode()
    path.write_bytes(good + b"\n" + good.replace(b"Hob", b"H\xffb"))
    with pytest.raises(ValueError, match="line 2: not JSON"):
        lu.read_conversations(path)


def test_a_file_without_conversations_and_a_wrong_wish(tmp_path):
    path = tmp_path / "talks.jsonl"
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no conversation"):
        lu.read_conversations(path)
    with pytest.raises(ValueError, match='"refuse" or "skip"'):
        lu.read_conversations(path, malformed="ignore")


# LoRA, as peft has it


@pytest.fixture
def adapted(model):
    made = lu.add_lora(copy.deepcopy(model), **LORA)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "lora" in name:
                p.normal_(0, 0.3, generator=draw)
    return made.eval()


def read_by_peft(model, adapted, folder):
    """The exported model with the exported adapters, by peft."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    plain = lu.to_transformers(model, None, folder / "model")
    theirs = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    written = lu.lora_to_peft(adapted, folder / "adapter", plain)
    return peft.PeftModel.from_pretrained(theirs, written, is_trainable=True)


def test_adapters_read_by_peft_give_logits_and_gradients(
    tmp_path, model, adapted, tokenizer
):
    theirs = read_by_peft(model, adapted, tmp_path).eval()
    x = torch.tensor([tokenizer.encode(WORDS)])[:, :60]
    ours = adapted(x)[0]
    assert (ours - theirs(x).logits).abs().max() < 1e-4
    assert (ours - model(x)[0]).abs().max() > 1e-1
    one = gradients_of_adapters(adapted, adapted(x, x)[1])
    logits = theirs(x).logits.flatten(0, 1)
    other = gradients_of_adapters(theirs, cross_entropy(logits, x[0]))
    assert len(one) == len(other) == 2 * len(LORA["targets"]) * 2
    for (name, a), (_, b) in zip(sorted(one.items()), sorted(other.items())):
        assert a.abs().max() > 1e-4, name
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-3), name
    names = {n for n, p in theirs.named_parameters() if p.requires_grad}
    assert all("lora_" in n for n in names)
    merged = lu.merge_lora(copy.deepcopy(adapted))(x)[0]
    assert (merged - theirs.merge_and_unload()(x).logits).abs().max() < 1e-4


def gradients_of_adapters(model, loss):
    """By layer and part, in names that both have."""
    loss.backward()
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            part = "a" if "lora_a" in name.lower() else "b"
            words = [w for w in name.split(".") if w.isdigit() or "proj" in w]
            found[*words, part] = p.grad
    return found


def test_layers_that_peft_has_no_place_for(tmp_path, tokenizer):
    classic = lu.add_lora(small(tokenizer, **CLASSIC))
    with pytest.raises(ValueError, match="not a layer of its own .* gpt2"):
        lu.lora_to_peft(classic, tmp_path / "a")
    with pytest.raises(ValueError, match="no adapters"):
        lu.lora_to_peft(small(tokenizer), tmp_path / "a")
    assert not list(tmp_path.iterdir())


# The run, written out


def config(**changes):
    return lu.TrainConfig(
        **dict(steps=20, batch_size=8, accumulation=2, optimizer="adamw",
               warmup_steps=3, precision="float32", seed=5) | changes
    )  # fmt: skip


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
def test_axolotl_accepts_the_recipe_and_knows_every_key(chat, schedule, lora):
    schema = pytest.importorskip("axolotl.utils.schemas.config")
    yaml = pytest.importorskip("yaml")
    made = lu.axolotl_config(
        config(schedule=schedule), chat, "model", "talks.jsonl", 64, lora,
        packing=True,
    )  # fmt: skip
    made = yaml.safe_load(yaml.safe_dump(made))
    read = schema.AxolotlInputConfig(**copy.deepcopy(made))
    assert lu.unknown_keys(schema.AxolotlInputConfig, made) == []
    assert read.max_steps == 20 and read.train_on_inputs is False
    assert read.micro_batch_size * read.gradient_accumulation_steps == 8
    assert read.datasets[0].roles_to_train == ["assistant"]
    assert (read.adapter == "lora") == bool(lora)
    if lora:
        assert (read.lora_r, read.lora_alpha) == (3, 7)
    for wrong, named in [({"learning_rte": 1}, "learning_rte"),
                         ({"special_tokens": {"padd": "x"}},
                          "special_tokens.padd")]:  # fmt: skip
        found = lu.unknown_keys(schema.AxolotlInputConfig, made | wrong)
        assert found == [named]


@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
def test_their_schedule_is_ours(chat, schedule, final):
    """But for the warm-up, which they begin at a rate of zero."""
    from transformers import get_scheduler

    ours = config(schedule=schedule, final_rate=final)
    made = lu.axolotl_config(ours, chat, "model", "talks.jsonl", 64)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], ours.learning_rate)
    theirs = get_scheduler(
        made["lr_scheduler"], optimizer, made["warmup_steps"],
        made["max_steps"], made["lr_scheduler_kwargs"],
    )  # fmt: skip
    for step in range(ours.steps):
        if step > ours.warmup_steps:
            rate = optimizer.param_groups[0]["lr"]
            assert rate == pytest.approx(lu.learning_rate(step, ours)), step
        optimizer.step()
        theirs.step()


def test_runs_that_they_cannot_do_are_refused(chat):
    for wish, words in [
        (dict(optimizer="muon"), "our Muon"),
        (dict(embedding_learning_rate=0.1), "embeddings alone"),
        (dict(warmup_steps=15), "shorten one"),
    ]:
        for write in (lu.axolotl_config, lu.trl_script):
            with pytest.raises(ValueError, match=words):
                write(config(**wish), chat, "model", "talks.jsonl", 64)


@pytest.mark.full
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_the_script_for_trl_runs(
    tmp_path, model, tokenizer, chat, lora, monkeypatch
):
    pytest.importorskip("trl")
    place = lu.to_transformers(model, tokenizer, tmp_path / "model")
    lu.write_lines(
        tmp_path / "talks.jsonl",
        [{"messages": lu.as_messages(row)} for row in rows(8)],
    )
    script = tmp_path / "run.py"
    script.write_text(
        lu.trl_script(
            config(steps=2, batch_size=4, warmup_steps=0), chat, place,
            tmp_path / "talks.jsonl", 128, lora, output=tmp_path / "out",
        ),
        encoding="utf-8",
    )  # fmt: skip
    for name, value in [("HF_HUB_OFFLINE", "1"), ("ACCELERATE_USE_CPU", "true"),
                        ("HF_HOME", str(tmp_path / "home"))]:  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", [str(script)])
    trainer = runpy.run_path(str(script), run_name="__main__")["trainer"]
    assert trainer.state.global_step == 2
    name = "adapter_model" if lora else "model"
    assert (tmp_path / "out" / f"{name}.safetensors").exists()


@pytest.mark.full
@pytest.mark.parametrize("optimizer", ["adamw", "lora"])
def test_eight_steps_are_those_of_trl(tmp_path, tokenizer, chat, optimizer):
    pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = small(tokenizer)
    place = lu.to_transformers(model, tokenizer, tmp_path / "model")
    ours = config(
        steps=8, batch_size=4, accumulation=1, schedule="constant",
        warmup_steps=0, weight_decay=0.0, learning_rate=3e-3,
    )  # fmt: skip
    some = rows(32)
    data = lu.InstructionDataset(some, chat, 100)
    lengths, draw = [len(x) for x, _ in data.examples], torch.Generator()
    batches = lu.length_batches(lengths, 4, draw.manual_seed(ours.seed))
    order = sum(batches, [])
    talks = [{"messages": lu.as_messages(some[i])} for i in order]
    theirs = AutoModelForCausalLM.from_pretrained(place, dtype="float32")
    if optimizer == "lora":
        peft = pytest.importorskip("peft")
        lu.add_lora(model, **LORA)
        dice = torch.Generator().manual_seed(2)
        for name, p in model.named_parameters():
            if "lora" in name:
                p.data.normal_(0, 0.2, generator=dice)
        written = lu.lora_to_peft(model, tmp_path / "adapter", place)
        theirs = peft.PeftModel.from_pretrained(
            theirs, written, is_trainable=True
        )
    losses = []

    class Watched(SFTTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.item())
            return loss

    made = lu.axolotl_config(ours, chat, place, "", 100)
    speaks = AutoTokenizer.from_pretrained(place)
    speaks.chat_template = lu.training_template(chat)
    trainer = Watched(
        theirs,
        SFTConfig(
            output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True,
            save_strategy="no", assistant_only_loss=True, bf16=False,
            gradient_checkpointing=False, optim="adamw_torch",
            per_device_train_batch_size=4, max_length=None,
            train_sampling_strategy="sequential",
            lr_scheduler_type=made["lr_scheduler"],
            **{k: made[k] for k in (
                "max_steps", "learning_rate", "warmup_steps", "weight_decay",
                "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm")},
        ),
        train_dataset=Dataset.from_list(talks),
        processing_class=speaks,
    )  # fmt: skip
    for row, i in zip(trainer.train_dataset, order, strict=True):
        x, y = data[i]
        assert row["input_ids"][:-1] == x.tolist()
        assert row["labels"][1:] == y.tolist()
    trainer.train()
    mine = lu.finetune(model, data, ours)
    assert losses == pytest.approx(mine, abs=1e-5)
    assert max(mine) - min(mine) > 1e-2


def test_real_files_are_read(real_data):
    """Five files in four shapes; a sixth has another, and its line is named."""
    folder = real_data / "instructions"
    counts = {"rasbt_instruction_data.json": 1100, "dolly_6k.jsonl.xz": 6000}
    for path in folder.iterdir():
        if path.name.startswith("self_instruct"):
            with pytest.raises(ValueError, match="line 1: a row needs"):
                lu.read_conversations(path)
        else:
            log = {}
            with warnings.catch_warnings(action="ignore"):
                read = lu.read_conversations(path, malformed="skip", log=log)
            assert len(read) >= counts.get(path.name, 900)
            assert len(log["skipped"]) < len(read) / 50

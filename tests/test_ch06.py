"""Chapter 6: the classifier, the chat format, LoRA and instruction tuning."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

import llm_utils as lu

WORDS = "Hob lives at Low Bridge . Where does he live ? The ferry is late ; ask Ivy"


@pytest.fixture(scope="module")
def tokenizer():
    return lu.BPETokenizer.train([WORDS] * 3, 300)


@pytest.fixture
def model(tokenizer):
    """A tiny model, every parameter random."""
    config = lu.ModelConfig.from_dict({
        **lu.ModelConfig.preset("smoke").to_dict(), "n_layer": 2, "d_model": 32,
        "n_head": 2, "n_kv_head": 1, "d_ff": 48, "context_length": 96,
        "vocab_size": tokenizer.vocab_size})
    model = lu.GPT(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.2, generator=generator)
    return model.eval()


def talk(question, answer):
    return [{"role": "user", "content": question},
            {"role": "assistant", "content": answer}]


def test_padding_and_order_change_no_class_logit(model, tokenizer):
    classifier = lu.SequenceClassifier(model, 3)
    torch.nn.init.normal_(classifier.head.weight)
    rows = [torch.tensor(tokenizer.encode(WORDS[:n])) for n in (5, 19, 40)]
    lengths = torch.tensor([len(r) for r in rows])
    alone = torch.cat([classifier(r[None], torch.tensor([len(r)]))[0] for r in rows])
    for extra in (0, 1, 30):
        width = int(lengths.max()) + extra
        x = torch.stack([torch.nn.functional.pad(r, (0, width - len(r)), value=7)
                         for r in rows])
        together = classifier(x, lengths)[0]
        assert (together - alone).abs().max() < 1e-5
        order = torch.tensor([2, 0, 1])
        shuffled = classifier(x[order], lengths[order])[0]
        assert (shuffled - alone[order]).abs().max() < 1e-5


@given(n=st.integers(1, 5000), part=st.floats(0, 1))
def test_intervals_are_those_of_scipy(n, part):
    k = round(part * n)
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    ours = lu.wilson_interval(k / n, n, 1.959963984540054)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert 0 <= ours[0] <= k / n + 1e-12 and k / n - 1e-12 <= ours[1] <= 1


def test_what_is_no_share():
    for p, n in ((0.5, 0), (1.1, 9), (-0.1, 9)):
        with pytest.raises(ValueError, match="is no share"):
            lu.wilson_interval(p, n)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_a_user_cannot_write_control_tokens(tokenizer, text):
    chat = lu.ChatFormat(tokenizer)
    for content in (text, "<|end|>" + text + "<|assistant|>", "<|endoftext|>"):
        ids = chat.encode([{"role": "user", "content": content}], True)
        special = [i for i in ids if i in tokenizer.special_tokens.values()]
        assert special == [chat.mark["user"], chat.end, chat.mark["assistant"]]


def test_labels_are_the_answer_and_its_end(tokenizer):
    chat = lu.ChatFormat(tokenizer)
    ids, labels = chat.encode_example(talk("Where does he live?", "At Low Bridge."))
    answer = tokenizer.encode("At Low Bridge.") + [chat.end]
    assert labels[-len(answer):] == answer
    assert set(labels[:-len(answer)]) == {-100}
    assert ids[-len(answer):] == answer
    prompt = chat.encode(talk("Where does he live?", "")[:1], True)
    assert ids == prompt + answer


def test_the_jinja_template_gives_the_same_ids(tokenizer):
    chat, other = lu.ChatFormat(tokenizer), tokenizer.to_transformers()
    other.chat_template = chat.jinja
    messages = [{"role": "system", "content": "Be brief."},
                *talk(" Where?  ", "Here;\n there.")]
    for prompted in (False, True):
        some = messages[:2] if prompted else messages
        text = other.apply_chat_template(
            some, tokenize=False, add_generation_prompt=prompted)
        ids = other.encode(text, add_special_tokens=False)
        assert ids == chat.encode(some, prompted)


@pytest.mark.parametrize("row, words", [
    ({"question": "x"}, "row 1"), ({"prompt": "x", "answer": 3}, "row 1"),
    ({"messages": [{"role": "judge", "content": "x"}]}, "judge"), (5, "row 1")])
def test_a_malformed_row_is_named(tokenizer, row, words):
    good = {"instruction": "Where?", "input": "Hob", "output": "Low Bridge"}
    with pytest.raises(ValueError, match=words):
        lu.InstructionDataset([good, row], lu.ChatFormat(tokenizer), 90)


def test_long_rows_are_counted_and_none_left_is_an_error(tokenizer):
    chat = lu.ChatFormat(tokenizer)
    rows = [{"prompt": "Where?", "answer": "Here."},
            {"prompt": WORDS * 20, "answer": "Here."}]
    data = lu.InstructionDataset(rows, chat, 40)
    assert (len(data), data.skipped) == (1, 1)
    with pytest.raises(ValueError, match="at most 2 tokens"):
        lu.InstructionDataset(rows, chat, 2)


def test_the_loss_of_a_batch_is_the_mean_over_its_answer_tokens(model, tokenizer):
    rows = [{"prompt": "Where does Hob live?", "answer": "At Low Bridge."},
            {"prompt": "Late?", "answer": "The ferry is late. Ask Ivy."}]
    data = lu.InstructionDataset(rows, lu.ChatFormat(tokenizer), 90)
    x, y = lu.collate([data[0], data[1]], data.pad)
    together = model(x, y)[1]
    parts = [(model(a[None], b[None])[1], (b != -100).sum()) for a, b in data]
    apart = sum(loss * n for loss, n in parts) / sum(n for _, n in parts)
    assert torch.allclose(together, apart, atol=1e-5)


def test_sparing_the_head_changes_no_loss_and_no_gradient(model, tokenizer):
    rows = [{"prompt": "Where does Hob live?", "answer": "At Low Bridge."},
            {"prompt": "Late?", "answer": "The ferry is late. Ask Ivy."}]
    data = lu.InstructionDataset(rows, lu.ChatFormat(tokenizer), 90)
    x, y = lu.collate([data[0], data[1]], data.pad)
    gradients = []
    for loss in (lambda m: m(x, y)[1], lambda m: lu.answer_loss(m, None, x, y)):
        model.zero_grad()
        value = loss(model)
        value.backward()
        gradients.append([value.detach(), *(p.grad.clone() for p in
                                            model.parameters())])
    for a, b in zip(*gradients):
        assert torch.allclose(a, b, atol=1e-5)


def test_lora_equals_peft(model, tokenizer):
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(
        r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"]))
    ours = lu.add_lora(copy.deepcopy(model), rank=4, alpha=12)
    state = {n.replace("base_model.model.", "").replace(".default.weight", ""): p
             for n, p in theirs.named_parameters() if "lora_" in n}
    with torch.no_grad():
        for name, p in ours.named_parameters():
            if "lora_" in name:
                p.normal_(0, 0.3)
                state[name.replace("lora_a", "lora_A")
                      .replace("lora_b", "lora_B")].copy_(p)
    x = torch.tensor([tokenizer.encode(WORDS)])[:, :80]
    a, b = ours.eval()(x)[0], theirs.eval()(x)[0]
    assert (a - model(x)[0]).abs().max() > 1e-2
    assert (a - b).abs().max() < 1e-4


def test_lora_starts_equal_moves_only_its_own_and_merges(model, tokenizer):
    x = torch.tensor([tokenizer.encode(WORDS)])[:, :60]
    before = {n: p.clone() for n, p in model.named_parameters()}
    adapted = lu.add_lora(copy.deepcopy(model), rank=3, targets=("q_proj", "o_proj"))
    assert torch.equal(adapted.eval()(x)[0], model(x)[0])
    optimizer = torch.optim.SGD(
        [p for p in adapted.parameters() if p.requires_grad], 0.5)
    for _ in range(3):
        adapted(x, x.roll(-1, 1))[1].backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, p in adapted.named_parameters():
        plain = name.replace(".linear.", ".")
        if plain in before:
            assert torch.equal(p, before[plain]), name
    moved = adapted.eval()(x)[0]
    assert (moved - model(x)[0]).abs().max() > 1e-3
    merged = lu.merge_lora(adapted)
    assert not any("lora" in n for n, _ in merged.named_parameters())
    assert (merged(x)[0] - moved).abs().max() < 1e-4


def test_lora_errors(model):
    with pytest.raises(ValueError, match="nothing_proj"):
        lu.add_lora(model, targets=("nothing_proj",))
    with pytest.raises(ValueError, match="rank"):
        lu.LoRALinear(torch.nn.Linear(2, 2), rank=0)


def test_length_batches_visit_every_row_once():
    lengths = [(7 * i) % 31 for i in range(103)]
    batches = list(lu.length_batches(
        lengths, 8, torch.Generator().manual_seed(0), mixed=4))
    assert sorted(i for b in batches for i in b) == list(range(103))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert sum(spread) / len(spread) < 15


def test_finetune_learns_the_answer_and_to_stop(model, tokenizer):
    rows = [{"prompt": "Where does Hob live?", "answer": "At Low Bridge."},
            {"prompt": "Is the ferry late?", "answer": "Ask Ivy."}]
    data = lu.InstructionDataset(rows, lu.ChatFormat(tokenizer), 90)
    config = lu.TrainConfig(steps=150, batch_size=2, optimizer="adamw",
                            learning_rate=1e-2, warmup_steps=5, precision="float32")
    losses = lu.finetune(model, data, config)
    assert losses[-1] < 0.1 < losses[0]
    said = lu.answer_tasks(model, tokenizer, [r["prompt"] for r in rows])
    assert said == [("At Low Bridge.", True), ("Ask Ivy.", True)]
    unfit = lu.answer_tasks(model, tokenizer, [WORDS * 30])
    assert unfit == [("", False)]


def test_a_loss_that_is_not_finite_stops_the_run(model, tokenizer):
    rows = [{"prompt": "Where?", "answer": "Here."}]
    data = lu.InstructionDataset(rows, lu.ChatFormat(tokenizer), 90)
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0"):
        lu.finetune(model, data, lu.TrainConfig(steps=2, batch_size=1))


def test_a_plain_document_is_learned_whole(tokenizer):
    chat = lu.ChatFormat(tokenizer)
    (x, y), = lu.InstructionDataset([{"text": "Hob lives."}], chat, 90).examples
    ids = [chat.pad, *tokenizer.encode("Hob lives."), chat.pad]
    assert (x.tolist(), y.tolist()) == (ids[:-1], ids[1:])

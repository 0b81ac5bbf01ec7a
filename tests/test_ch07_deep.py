"""Chapter 7 beside TRL: the family of losses, and eight steps of DPO.

The losses are given the same numbers on both sides; where TRL computes one
in the middle of a trainer, the trainer is real and the model a tiny one with
random parameters. TRL is imported where it is used: it takes a while.
"""

import copy
import itertools
import json
import lzma
import math
from types import SimpleNamespace

import pytest
import torch
from test_ch06_adapters import random_model

import llm_utils as lu

WORDS = "Hob lives at Low Bridge . Where does he live ? The ferry is late"
CPU = SimpleNamespace(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer():
    return lu.BPETokenizer.train([WORDS] * 3, 300)


def short_run(steps, batch_size, rate):
    """A TrainConfig of few steps, the same on every machine."""
    return lu.TrainConfig(
        steps=steps,
        batch_size=batch_size,
        optimizer="adamw",
        learning_rate=rate,
        warmup_steps=2,
        precision="float32",
    )


def made_up(rows, seed=0):
    """Pairs of made-up questions and answers of many lengths."""
    dice = torch.Generator().manual_seed(seed)
    words = WORDS.split()

    def text(longest):
        n = int(torch.randint(1, longest, (), generator=dice))
        drawn = torch.randint(len(words), (n,), generator=dice)
        return " ".join(words[i] for i in drawn.tolist())

    pairs = (
        {"prompt": text(9), "chosen": text(6), "rejected": text(12)}
        for _ in itertools.count()
    )
    different = (p for p in pairs if p["chosen"] != p["rejected"])
    return list(itertools.islice(different, rows))


def small_model(tokenizer, seed=1):
    shape = dict(vocab_size=tokenizer.vocab_size, context_length=96)
    return random_model(seed, qk_norm=True, **shape)


@pytest.fixture
def numbers():
    """Log-probabilities of policy and reference, and lengths."""
    dice = torch.Generator().manual_seed(5)
    tokens = torch.randint(1, 30, (2, 7), generator=dice)
    policy = -torch.rand(2, 7, generator=dice) * 2 * tokens - 0.01
    return policy, policy + torch.randn(2, 7, generator=dice), tokens


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory, tokenizer):
    """A function: a model and a TRL trainer of the same weights and pairs."""

    def build(trainer, config, rows, **settings):
        from datasets import Dataset
        from transformers import AutoModelForCausalLM

        model = small_model(tokenizer)
        folder = tmp_path_factory.mktemp("trl")
        lu.to_transformers(model, tokenizer, folder / "model")
        theirs = AutoModelForCausalLM.from_pretrained(folder / "model")
        spoken = tokenizer.to_transformers()
        spoken.chat_template = lu.ChatFormat(tokenizer).jinja
        spoken.pad_token = spoken.eos_token = "<|endoftext|>"
        told = []
        for row in rows:
            talk = {"prompt": [{"role": "user", "content": row["prompt"]}]}
            for side in row.keys() - {"prompt", "label"}:
                answer = {"role": "assistant", "content": row[side]}
                talk[side] = [answer]
            told.append(talk | {k: row[k] for k in row.keys() & {"label"}})
        arguments = config(
            output_dir=str(folder / "out"),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1,
            **settings,
        )
        return model, trainer(
            model=theirs,
            args=arguments,
            train_dataset=Dataset.from_list(told),
            processing_class=spoken,
        )

    return build


# The losses, each beside its reference


@pytest.mark.parametrize("beta,gamma", [(2.0, 1.0), (10.0, 3.0), (0.5, 0.0)])
def test_simpo_is_that_of_trls_cpo_trainer(numbers, beta, gamma):
    from trl.experimental.cpo import CPOTrainer

    policy, _, tokens = numbers
    settings = SimpleNamespace(
        loss_type="simpo",
        alpha=0.0,
        beta=beta,
        simpo_gamma=gamma,
        label_smoothing=0.0,
        accelerator=CPU,
    )
    theirs, *_ = CPOTrainer.cpo_loss(settings, *(policy / tokens))
    ours = lu.simpo_loss(*policy, tokens, beta, gamma)
    assert ours.item() == pytest.approx(theirs.mean().item(), rel=1e-6)
    named = lu.preference_loss("simpo", policy, None, tokens, beta, gamma=gamma)
    assert torch.equal(ours, named)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_orpo_is_the_papers_and_its_odds_are_trls(numbers, beta):
    """TRL adds the loss of prompt and answer, the paper the answer's."""
    from trl.experimental.orpo import ORPOTrainer

    policy, _, tokens = numbers
    means = policy / tokens
    settings = SimpleNamespace(beta=beta, accelerator=CPU)
    odds, *_ = ORPOTrainer.odds_ratio_loss(settings, *means)
    ours = lu.orpo_loss(*policy, tokens, beta)
    wanted = -means[0].mean() - odds.mean()
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-5)
    p, q = means.double().exp()
    by_hand = torch.log((p / (1 - p)) / (q / (1 - q))).sigmoid().log()
    by_hand = -means[0].double() - beta * by_hand
    assert ours.item() == pytest.approx(by_hand.mean().item(), rel=1e-5)


def test_orpo_of_a_certain_answer_is_finite():
    sure = torch.tensor([0.0, -1e-12]).requires_grad_()
    loss = lu.orpo_loss(sure, sure - 3, torch.ones(2, 2))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(sure.grad).all()


def test_kto_is_its_formula_and_its_baseline_carries_no_gradient():
    dice = torch.Generator().manual_seed(2)
    policy, reference = torch.randn(2, 6, generator=dice) * 4
    good = torch.tensor([True, False, False, True, True, False])
    for shift in (-5.0, 5.0):
        baseline = (torch.randn(4, generator=dice) + shift).requires_grad_()
        policy = policy.detach().requires_grad_()
        loss = lu.kto_loss(policy, reference, good, baseline, 0.3, 1.5, 0.5)
        z = max(0.0, baseline.mean().item())
        total = 0.0
        for p, r, g in zip(policy.tolist(), reference.tolist(), good.tolist()):
            gain = (p - r - z) if g else (z - p + r)
            value = 1 / (1 + math.exp(-0.3 * gain))
            total += (1.5 if g else 0.5) * (1 - value)
        assert loss.item() == pytest.approx(total / 6, rel=1e-5)
        loss.backward()
        assert baseline.grad is None
        assert (policy.grad[good] < 0).all() and (policy.grad[~good] > 0).all()


def test_robust_loss_undoes_flipped_labels_on_the_average(numbers):
    (win, lose), (rw, rl), _ = numbers
    share = 0.3
    right = lu.dpo_loss(win, lose, rw, rl, 0.5)[0]
    doubt = dict(beta=0.5, kind="robust", label_smoothing=share)
    as_told = lu.dpo_loss(win, lose, rw, rl, **doubt)[0]
    flipped = lu.dpo_loss(lose, win, rl, rw, **doubt)[0]
    average = (1 - share) * as_told + share * flipped
    assert average.item() == pytest.approx(right.item(), rel=1e-5)
    for wrong in (-0.1, 0.5, 1.0):
        with pytest.raises(ValueError, match="label_smoothing"):
            lu.dpo_loss(win, lose, rw, rl, label_smoothing=wrong)


def test_conservative_dpo_has_the_margin_it_likes_best():
    margin = torch.tensor([0.0], requires_grad=True)
    zero = torch.zeros(1)
    best = math.log(0.9 / 0.1) / 0.4
    lu.dpo_loss(margin + best, zero, zero, zero, 0.4, 0.1)[0].backward()
    assert abs(margin.grad.item()) < 1e-6


FAMILY = [
    ("sigmoid", {}, ["sigmoid"], {}),
    ("sigmoid", {"per_token": True}, ["sigmoid_norm"], {}),
    ("robust", {"label_smoothing": 0.2}, ["robust"], {"label_smoothing": 0.2}),
    ("hinge", {}, ["hinge"], {}),
    ("ipo", {"per_token": True}, ["ipo"], {}),
]


@pytest.fixture(scope="module")
def captured(side_by_side):
    """A trainer of TRL's with a batch, and the same batch by our functions."""
    from trl import DPOConfig, DPOTrainer

    rows = made_up(6)
    model, trainer = side_by_side(
        DPOTrainer, DPOConfig, rows, beta=0.4, per_device_train_batch_size=6
    )
    reference = copy.deepcopy(model)
    with torch.no_grad():
        named = dict(trainer.ref_model.named_parameters())
        for name, p in trainer.model.named_parameters():
            p.mul_(1.5)  # the policy has moved
            assert p is not named[name]
        for p in model.parameters():
            p.mul_(1.5)
    batch = next(iter(trainer.get_train_dataloader()))
    return model, reference, trainer, batch


def ours_of(model, reference, batch):
    """Policy, reference and lengths (2, B) of a batch of TRL's collator."""
    ids, mask = batch["input_ids"], batch["completion_mask"]
    policy = lu.sequence_logprob(model, ids, mask).view(2, -1)
    with torch.no_grad():
        held = lu.sequence_logprob(reference, ids, mask).view(2, -1)
    return policy, held, mask[:, 1:].sum(1).view(2, -1)


@pytest.mark.full
@pytest.mark.parametrize("kind,options,theirs,settings", FAMILY)
def test_loss_and_gradient_are_those_of_trls_trainer(
    captured, monkeypatch, kind, options, theirs, settings
):
    model, reference, trainer, batch = captured
    monkeypatch.setattr(trainer, "loss_types", theirs)
    for name, value in settings.items():
        monkeypatch.setattr(trainer, name, value)
    trainer.model.zero_grad(), model.zero_grad()
    wanted = trainer.compute_loss(trainer.model, batch)
    wanted.backward()
    sides = ours_of(model, reference, batch)
    loss = lu.preference_loss(kind, *sides, 0.4, **options)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5, rel=1e-5)
    lengths = [
        math.hypot(*(p.grad.norm().item() for p in m.parameters()))
        for m in (model, trainer.model)
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)


@pytest.mark.full
def test_kto_is_that_of_trls_trainer(side_by_side):
    """Single answers, more bad than good, with TRL's mismatched answers."""
    from trl import KTOConfig, KTOTrainer

    rows = [
        {
            "prompt": row["prompt"],
            "completion": row["chosen" if i % 3 == 0 else "rejected"],
            "label": i % 3 == 0,
        }
        for i, row in enumerate(made_up(8, seed=3))
    ]
    model, trainer = side_by_side(
        KTOTrainer,
        KTOConfig,
        rows,
        beta=0.4,
        desirable_weight=1.3,
        undesirable_weight=0.6,
        per_device_train_batch_size=8,
    )
    theirs = (trainer.model, trainer.ref_model)
    heads = [model.head, *(m.get_output_embeddings() for m in theirs)]
    with torch.no_grad():
        for head in heads:
            head.weight.mul_(8)  # a reference that is sure of something
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for p in (*model.parameters(), *trainer.model.parameters()):
            p.mul_(0.6)  # less sure: answers to other questions gain
    batch = next(iter(trainer.get_train_dataloader()))
    wanted = trainer.compute_loss(trainer.model, batch)
    names = ("input_ids", "completion_mask")
    told, strangers = (
        [batch[prefix + name] for name in names] for prefix in ("", "KL_")
    )
    policy = lu.sequence_logprob(model, *told)
    with torch.no_grad():
        held = lu.sequence_logprob(reference, *told)
        baseline = lu.sequence_logprob(model, *strangers)
        baseline -= lu.sequence_logprob(reference, *strangers)
    good = torch.as_tensor(batch["label"], dtype=torch.bool)
    loss = lu.kto_loss(policy, held, good, baseline, 0.4, 1.3, 0.6)
    assert baseline.mean() > 0.1
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_mismatched_answers_are_those_of_the_pair_before(tokenizer):
    chat, rows = lu.ChatFormat(tokenizer), made_up(5, seed=4)
    data = lu.PreferenceDataset(rows, chat, 96)
    other = lu.mismatched(data)
    for i, (ids, mask, worse, worse_mask) in enumerate(other.examples):
        prompt = chat.encode(
            [{"role": "user", "content": rows[i]["prompt"]}], True
        )
        for side, row, counts in (
            ("chosen", ids, mask),
            ("rejected", worse, worse_mask),
        ):
            answer = tokenizer.encode(rows[i - 1][side]) + [chat.end]
            longest = max(len(e[0]) for e in data.examples)
            whole = (prompt + answer)[:longest]
            assert row.tolist() == whole
            assert counts.sum() == len(whole) - len(prompt)
    assert data.examples[0][0].tolist() != other.examples[0][0].tolist()


@pytest.mark.parametrize(
    "kind,beta,options",
    [
        ("robust", 0.2, {"label_smoothing": 0.1}),
        ("sigmoid", 2.0, {"per_token": True}),
        ("hinge", 0.2, {}),
        ("ipo", 0.2, {}),
        ("simpo", 2.0, {"gamma": 0.5}),
        ("orpo", 1.0, {}),
        ("kto", 0.2, {}),
    ],
)
def test_training_by_each_loss_puts_the_pairs_in_order(
    tokenizer, kind, beta, options
):
    data = lu.PreferenceDataset(made_up(6), lu.ChatFormat(tokenizer), 96)
    model = small_model(tokenizer)
    before = lu.pair_logprobs(model, data)
    history = lu.train_dpo(
        model,
        data,
        short_run(30, 3, 3e-3),
        beta,
        kind=kind,
        **options,
    )
    ratio = lu.pair_logprobs(model, data) - before
    assert (ratio[:, 0] > ratio[:, 1]).all()
    assert history[-1]["loss"] < history[0]["loss"]


def test_an_unknown_loss_is_refused(tokenizer):
    data = lu.PreferenceDataset(made_up(2), lu.ChatFormat(tokenizer), 96)
    config = lu.TrainConfig(steps=1, batch_size=2, precision="float32")
    with pytest.raises(ValueError, match="cosine"):
        lu.train_dpo(small_model(tokenizer), data, config, kind="cosine")


def test_the_head_is_not_asked_about_the_prompt(tokenizer):
    data = lu.PreferenceDataset(made_up(8), lu.ChatFormat(tokenizer), 96)
    ids, mask = lu.collate_pairs(data.examples, data.pad)
    model, asked = small_model(tokenizer), []
    model.head.register_forward_hook(
        lambda _, inputs, out: asked.append(out.shape[:-1].numel())
    )
    sums = lu.sequence_logprob(model, ids, mask)
    answers = math.ceil(mask.sum() / 64) * 64  # so many, or a few more
    assert asked == [answers] and answers < 0.8 * mask.numel()
    whole = (lu.token_logprobs(model, ids) * mask[:, 1:]).sum(1)
    assert torch.allclose(sums, whole, atol=1e-4)
    slope = torch.randn(len(sums), generator=torch.Generator().manual_seed(0))
    grads = [
        torch.autograd.grad((x * slope).sum(), list(model.parameters()))
        for x in (sums, whole)
    ]
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


# Eight steps of DPO


@pytest.mark.full
@pytest.mark.parametrize("kind,smoothing", [("sigmoid", 0.0), ("robust", 0.1)])
def test_eight_steps_are_those_of_trls_dpo_trainer(
    side_by_side, tokenizer, monkeypatch, kind, smoothing
):
    """Both sides by their own loop; TRL gets the rows in our order."""
    from trl import DPOConfig, DPOTrainer

    steps, size, beta, rate = 8, 4, 0.3, 2e-3
    rows = made_up(steps * size, seed=7)
    chat = lu.ChatFormat(tokenizer)
    data = lu.PreferenceDataset(rows, chat, 96)
    batches = lu.length_batches(
        [len(example[0]) for example in data.examples],
        size,
        torch.Generator().manual_seed(7),
    )
    ordered = [rows[i] for batch in batches for i in batch]
    model, trainer = side_by_side(
        DPOTrainer,
        DPOConfig,
        ordered,
        loss_type=[kind],
        beta=beta,
        label_smoothing=smoothing,
        per_device_train_batch_size=size,
        max_steps=steps,
        learning_rate=rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
    )
    theirs, lengths = [], []
    compute, clip = trainer.compute_loss, trainer.accelerator.clip_grad_norm_

    def computed(*args, **kwargs):
        loss = compute(*args, **kwargs)
        found = {k: v[-1] for k, v in trainer._metrics["train"].items()}
        theirs.append(found | {"loss": loss.item()})
        return loss

    def clipped(*args, **kwargs):
        norm = clip(*args, **kwargs)
        theirs[-1]["norm"] = float(norm)
        return norm

    trainer.compute_loss = computed
    trainer.accelerator.clip_grad_norm_ = clipped
    step = lu.optimizer_step
    monkeypatch.setattr(
        lu, "optimizer_step", lambda *a: lengths.append(step(*a))
    )
    trainer.train()
    ours = lu.train_dpo(
        model,
        data,
        lu.TrainConfig(
            steps=steps,
            batch_size=size,
            optimizer="adamw",
            learning_rate=rate,
            schedule="constant",
            warmup_steps=0,
            weight_decay=0.0,
            betas=(0.9, 0.95),
            clip_norm=1.0,
            precision="float32",
            seed=7,
        ),
        beta,
        kind=kind,
        label_smoothing=smoothing,
    )
    assert len(ours) == len(theirs) == len(lengths) == steps
    for own, other, norm in zip(ours, theirs, lengths, strict=True):
        for value, name in (
            (own["loss"], "loss"),
            (beta * own["chosen"], "rewards/chosen"),
            (beta * own["rejected"], "rewards/rejected"),
            (own["margin"], "rewards/margins"),
            (own["accuracy"], "rewards/accuracies"),
            (norm, "norm"),
        ):
            assert value == pytest.approx(other[name], rel=1e-5, abs=1e-5), name
    assert abs(ours[-1]["margin"]) > 0.1  # it has moved


# Pairs that people judged


def test_real_preferences_go_through_the_same_code(real_data, tokenizer):
    folder = real_data / "preferences"
    with lzma.open(folder / "qa_feedback_dev.json.xz", "rt") as file:
        answered = json.load(file)
    rows = []
    for row in answered[:200]:
        better = row["preference"][0]  # of the first two answers
        if better:
            two = [row[f"prediction {k}"] for k in (1, 2)]
            good, bad = two if better == 1 else two[::-1]
            rows.append(
                {"prompt": row["question"], "chosen": good, "rejected": bad}
            )
    assert len(rows) > 40
    learned = lu.BPETokenizer.train(
        [r[side] for r in rows for side in ("prompt", "chosen")], 600
    )
    data = lu.PreferenceDataset(rows, lu.ChatFormat(learned), 320)
    assert len(data) > 20 and len(data) + data.skipped == len(rows)
    for (ids, mask, _, _), row in zip(data.examples, data.rows, strict=True):
        answer = ids[mask == 1].tolist()
        assert learned.decode(answer[:-1]) == row["chosen"]
    model = random_model(vocab_size=learned.vocab_size, context_length=320)
    before = lu.pair_logprobs(model, data)
    history = lu.train_dpo(
        model,
        data,
        short_run(20, 8, 1e-3),
        beta=0.1,
        reference=before,
    )
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    gained = lu.pair_logprobs(model, data) - before
    right = (gained[:, 0] > gained[:, 1]).float().mean()
    assert right > 0.7

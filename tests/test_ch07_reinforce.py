# ruff: noqa: F811  (fixtures of chapter 6 are arguments)
"""Chapter 7's reinforcement: GRPO and RLOO are TRL's, and the theory is exact."""

import copy
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_ch06 import model, tokenizer  # noqa: F401  (fixtures)

import llm_utils as lu

RECORD = Path(__file__).resolve().parent.parent / "results" / "alignment.json"
PROMPTS = ["Where does Hob live?", "Late?", "Who is Ivy ; ask", "Where?"]


def rewarded(text):
    """A reward that any answer has."""
    return len(text) % 7 + 0.5 * text.count("e")


class Task:
    def __init__(self, prompt):
        self.prompt = prompt


@pytest.fixture
def theirs(model, tokenizer, tmp_path, monkeypatch):
    """A function: the trainer of a name and settings, on our model's weights."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with torch.no_grad():  # answers end, and at different places
        model.head.weight[tokenizer.end_of_text] *= 40
    lu.to_transformers(model, tokenizer, tmp_path / "hf")

    def make(kind, **settings):
        import trl

        own = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
        args = getattr(trl, f"{kind}Config")(
            output_dir=str(tmp_path / "out"),
            use_cpu=True,
            bf16=False,
            report_to=[],
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=10,
            temperature=1.0,
            **settings,
        )
        trainer = getattr(trl, f"{kind}Trainer")(
            model=own,
            args=args,
            reward_funcs=lambda completions, **_: [
                rewarded(c) for c in completions
            ],
            train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
            processing_class=AutoTokenizer.from_pretrained(tmp_path / "hf"),
        )
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer

    return make


def captured(trainer, tokenizer):
    """A batch that TRL's trainer has drawn, scored and weighed, and our rows."""
    torch.manual_seed(5)
    inputs = trainer._generate_and_score_completions(
        [{"prompt": p} for p in PROMPTS[:2] for _ in range(4)]
    )
    rows = []
    for side in ("prompt", "completion"):
        keep = inputs[f"{side}_mask"].bool()
        rows.append(
            [ids[k].tolist() for ids, k in zip(inputs[f"{side}_ids"], keep)]
        )
    ids, mask = lu._answers(*rows, 0)
    texts = [
        trainer.processing_class.decode(a, skip_special_tokens=True)
        for a in rows[1]
    ]
    rewards = torch.tensor([rewarded(t) for t in texts]).view(2, 4)
    assert len({len(a) for a in rows[1]}) > 1 and len(rewards.unique()) > 2
    return inputs, ids, mask, rewards


def as_theirs(values, mask, like):
    """Our (B, T-1) values of the answers' tokens in TRL's rectangle."""
    out = torch.zeros(like.shape)
    return out.masked_scatter(like.bool(), values[mask[:, 1:].bool()])


def same_gradients(model, trainer, folder):
    """Whether the trainer's gradients, under our names, are our own."""
    own = copy.deepcopy(trainer.model)
    with torch.no_grad():
        for p, q in zip(
            own.parameters(), trainer.model.parameters(), strict=True
        ):
            p.copy_(q.grad)
    own.save_pretrained(folder)
    theirs = dict(lu.from_transformers(folder).named_parameters())
    largest = max(p.grad.abs().max() for p in model.parameters())
    for name, p in model.named_parameters():
        assert p.grad.abs().max() > 0, name
        assert (p.grad - theirs[name]).abs().max() < 1e-5 * max(1, largest), (
            name
        )


@pytest.mark.parametrize(
    "beta, weigh_kl", [(0.0, True), (0.3, False), (0.3, True)]
)
@pytest.mark.parametrize("moved", [False, True])
def test_grpo_is_trls(
    model, tokenizer, theirs, tmp_path, beta, weigh_kl, moved
):
    trainer = theirs(
        "GRPO",
        loss_type="grpo",
        beta=beta,
        epsilon=0.2,
        num_iterations=2,
        use_bias_correction_kl=weigh_kl,
    )
    inputs, ids, mask, rewards = captured(trainer, tokenizer)
    advantages = lu.group_advantages(rewards).view(-1)
    assert torch.allclose(advantages, inputs["advantages"], atol=1e-5)
    logprob = lu.answer_token_logprobs(model, ids, mask)
    here = inputs["completion_mask"]
    draw = torch.Generator().manual_seed(4)
    noise, other = (
        torch.randn(2, *logprob.shape, generator=draw) * mask[:, 1:] / 3
    )
    reference, old = logprob.detach() + noise, None
    if beta:
        inputs["ref_per_token_logps"] = as_theirs(reference, mask, here)
    if moved:  # as after some updates: many ratios are beyond the clip
        old = logprob.detach() + other
        inputs["old_per_token_logps"] = as_theirs(old, mask, here)
        ratio = (logprob - old).exp()[mask[:, 1:].bool()]
        assert (ratio > 1.2).any() and (ratio < 0.8).any()
    loss = lu.grpo_loss(
        logprob, reference, mask[:, 1:], advantages, beta, old, 0.2, weigh_kl
    )
    loss.backward()
    value = trainer._compute_loss(trainer.model, inputs)
    value.backward()
    assert loss.item() == pytest.approx(value.item(), abs=1e-5)
    same_gradients(model, trainer, tmp_path / "gradient")


@pytest.mark.parametrize("moved", [False, True])
def test_rloo_is_trls(model, tokenizer, theirs, tmp_path, moved):
    trainer = theirs("RLOO", beta=0.0, epsilon=0.2)
    inputs, ids, mask, rewards = captured(trainer, tokenizer)
    advantages = lu.rloo_advantages(rewards).view(-1)
    assert torch.allclose(advantages, inputs["advantages"], atol=1e-5)
    logprob = lu.answer_token_logprobs(model, ids, mask)
    summed = logprob.detach().sum(1)
    assert torch.allclose(summed, inputs["old_logps"], atol=1e-4)
    old = None
    if moved:
        draw = torch.Generator().manual_seed(6)
        old = logprob.detach() + torch.randn(logprob.shape, generator=draw) / 5
        old = old * mask[:, 1:]
        inputs["old_logps"] = old.sum(1)
        ratio = (summed - old.sum(1)).exp()
        assert ((ratio - 1).abs() > 0.2).any() and (
            (ratio - 1).abs() < 0.2
        ).any()
    loss = lu.reinforce_loss(
        logprob, logprob.detach(), mask[:, 1:], advantages, 0.0, old, 0.2
    )
    loss.backward()
    value = trainer._compute_loss(trainer.model, inputs)
    value.backward()
    assert loss.item() == pytest.approx(value.item(), abs=1e-5)
    same_gradients(model, trainer, tmp_path / "gradient")


def test_answer_token_logprobs_are_those_of_the_answers(model):
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(300, (3, 20), generator=draw)
    mask = (torch.rand(3, 20, generator=draw) < 0.4).long()
    found = lu.answer_token_logprobs(model, ids, mask)
    wanted = lu.token_logprobs(model, ids) * mask[:, 1:]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_token_beyond_the_clip_moves_only_backwards():
    """Likelier by a fifth and good: no gradient. Likelier and bad: all of it."""
    mask = torch.ones(1, 1)
    for ratio, advantage, moves in [
        (1.3, 1.0, False),
        (1.3, -1.0, True),
        (0.7, -1.0, False),
        (0.7, 1.0, True),
        (1.1, 1.0, True),
    ]:
        old = torch.tensor([[-2.0]])
        logprob = (old + torch.tensor(ratio).log()).requires_grad_()
        for loss in (lu.grpo_loss, lu.reinforce_loss):
            logprob.grad = None
            loss(
                logprob, old, mask, torch.tensor([advantage]), 0.0, old
            ).backward()
            wanted = -advantage * ratio if moves else 0.0
            assert logprob.grad.item() == pytest.approx(wanted, abs=1e-5)


CONFIG = lu.TrainConfig(
    steps=20,
    batch_size=2,
    optimizer="adamw",
    learning_rate=1e-2,
    warmup_steps=1,
    seed=1,
    precision="float32",
)


@pytest.mark.parametrize("kind", ["several updates", "rloo"])
def test_it_raises_its_own_reward(model, tokenizer, kind):
    options = {
        "several updates": {"updates": 3},
        "rloo": {
            "advantages": lu.rloo_advantages,
            "loss": lu.reinforce_loss,
            "updates": 2,
        },
    }
    earned = lu.train_grpo(
        model,
        tokenizer,
        [Task("Where?")],
        lambda _, a: a.count("e"),
        CONFIG,
        group=8,
        beta=0.01,
        max_new_tokens=8,
        **options[kind],
    )
    assert len(earned) == CONFIG.steps
    assert sum(earned[-5:]) > 1.5 * sum(earned[:5])


def test_several_updates_are_several_and_keep_the_old_policy(model, tokenizer):
    """The second update of a batch is weighed against the policy that drew it."""
    seen = []

    def loss(logprob, reference, mask, advantages, beta, old, clip):
        seen.append((logprob.detach(), old))
        return lu.grpo_loss(
            logprob, reference, mask, advantages, beta, old, clip
        )

    lu.train_grpo(
        model,
        tokenizer,
        [Task("Where?")],
        lambda _, a: len(a),
        replace(CONFIG, steps=2),
        group=4,
        max_new_tokens=6,
        updates=3,
        loss=loss,
    )
    assert len(seen) == 6
    for batch in (seen[:3], seen[3:]):
        first = batch[0][0]
        assert all(torch.equal(old, first) for _, old in batch)
        assert not torch.equal(batch[1][0], first)
    with pytest.raises(ValueError, match="at least 1"):
        lu.train_grpo(
            model, tokenizer, [Task("Where?")], len, CONFIG, updates=0
        )


def test_leaving_one_out_is_what_it_says():
    rewards = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = lu.rloo_advantages(rewards)
    for n in range(5):
        for i in range(4):
            others = [rewards[n, j] for j in range(4) if j != i]
            wanted = rewards[n, i] - sum(others) / 3
            assert found[n, i].item() == pytest.approx(wanted.item(), abs=1e-5)
    assert lu.batch_advantages(rewards).mean().abs() < 1e-6
    with pytest.raises(ValueError, match="needs 2"):
        lu.rloo_advantages(rewards[:, :1])


# The policy gradient, by writing down every answer


@pytest.fixture(scope="module")
def every():
    """A tiny policy's answers of at most 3 of 3 tokens (2 ends them): their
    probabilities, their rewards, and the gradients of their log-probabilities."""
    answers = [
        y
        for n in (1, 2, 3)
        for y in itertools.product(range(3), repeat=n)
        if 2 not in y[:-1] and (n == 3 or y[-1] == 2)
    ]
    draw = torch.Generator().manual_seed(0)
    policy = lu.GPT(
        lu.ModelConfig(
            vocab_size=3,
            context_length=4,
            n_layer=1,
            n_head=1,
            d_model=8,
            d_ff=16,
            tie_embeddings=False,
        ),
        draw,
    )
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.4 * torch.randn(p.shape, generator=draw))
    ids, mask = lu._answers([[0]] * len(answers), [list(y) for y in answers], 0)
    logprob = lu.sequence_logprob(policy, ids, mask)
    reward = torch.tensor([2.0 + y.count(0) for y in answers])
    parameters = list(policy.parameters())

    def flat(value):
        parts = torch.autograd.grad(value, parameters, retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    exact = flat((logprob.exp() * reward).sum())
    scores = torch.stack([flat(one) for one in logprob])
    return logprob.exp().detach(), reward, scores, exact


def test_all_answers_together_are_certain(every):
    pi, reward, scores, exact = every
    assert len(pi) == 15 and pi.sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose((pi * reward) @ scores, exact, atol=1e-5)
    assert (pi @ scores).abs().max() < 1e-5  # no baseline changes the mean


def test_leaving_one_out_is_unbiased_and_calmer(every):
    """The mean over many groups is the exact gradient within its error; with the
    group's own mean it is three quarters of it, for groups of four."""
    pi, reward, scores, exact = every
    draw = torch.Generator().manual_seed(1)
    picked = torch.multinomial(pi, 80000, True, generator=draw).view(-1, 4)
    variance = {}
    for name, way, length in (
        ("none", lambda r: r, 1),
        ("rloo", lu.rloo_advantages, 1),
        ("own mean", lambda r: r - r.mean(1, keepdim=True), 0.75),
    ):
        weights = torch.zeros(len(picked), len(pi)).scatter_add(
            1, picked, way(reward[picked]) / 4
        )
        found = weights @ scores
        error = found.std(0) / len(found) ** 0.5
        off = ((found.mean(0) - length * exact) / error.clamp_min(1e-9))[
            error > 1e-7
        ]
        assert off.abs().max() < 5, name
        assert (
            (found.mean(0) @ exact) / (exact @ exact)
        ).item() == pytest.approx(length, abs=0.03)
        variance[name] = found.var(0).sum().item()
    assert variance["rloo"] < variance["none"] / 3


def test_reinforce_of_all_answers_is_the_exact_gradient(every):
    """The loss, fed each answer as often as it is drawn, gives −∇J."""
    pi, reward, scores, exact = every
    logprob = pi.log()[:, None].requires_grad_()
    lu.reinforce_loss(
        logprob,
        logprob.detach(),
        torch.ones_like(logprob),
        pi * reward * len(pi),
    ).backward()
    assert torch.allclose(-logprob.grad.squeeze(1) @ scores, exact, atol=1e-5)


# Several tries


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    for right in range(7):
        marks = [i < right for i in range(6)]
        for k in (1, 2, 5, 6):
            subsets = list(itertools.combinations(marks, k))
            wanted = sum(map(any, subsets)) / len(subsets)
            assert lu.pass_at_k(6, right, k) == pytest.approx(wanted)
    for n, right, k in ((4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)):
        with pytest.raises(ValueError):
            lu.pass_at_k(n, right, k)


def test_the_best_of_n_is_the_mean_over_all_subsets():
    """Ties are shared, and the judge's choice is worth what it is worth."""
    draw = torch.Generator().manual_seed(2)
    judged = torch.randint(4, (3, 7), generator=draw)
    values = torch.randn(3, 7, generator=draw, dtype=torch.float64)
    for n in (1, 3, 7):
        for row in range(3):
            worth = []
            for subset in itertools.combinations(range(7), n):
                top = max(judged[row, i] for i in subset)
                best = [values[row, i] for i in subset if judged[row, i] == top]
                worth.append(sum(best) / len(best))
            found = lu.best_of(judged, values, n)[row].item()
            assert found == pytest.approx(
                float(sum(worth) / len(worth)), abs=1e-9
            )
    with pytest.raises(ValueError, match="best of 8"):
        lu.best_of(judged, values, 8)


# The record


def test_the_record_has_three_seeds_of_each_arm_at_one_budget():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    about, seeds = record["about"], {}
    assert "lab_reinforcement" in about["command"] and about["versions"]
    for run in record["runs"]:
        seeds.setdefault(run["arm"], []).append(run["seed"])
        together = run["right"] + run["wrong"] + run["silent"]
        assert together == pytest.approx(1, abs=1e-3)
        budgets = 10 if run["arm"].endswith(" ×10") else 1
        if run["arm"] not in ("base", "SFT"):
            spent = run["tokens"] / budgets / about["budget_tokens"]
            assert 0.85 < spent < 1.15
        if "pass@1" in run:
            assert run["pass@1"] <= run["pass@4"] <= run["pass@8"]
    assert all(sorted(some) == [0, 1, 2] for some in seeds.values())
    assert {
        "base",
        "SFT",
        "more SFT",
        "DPO",
        "GRPO",
        "GRPO ×10",
        "RLOO ×10",
        "REINFORCE ×10",
        "best of 8",
        "best of 8, exact",
    } == set(seeds)


def test_what_the_lab_says_of_the_record_is_in_it():
    """The lab's sentences on who won, and how far each went."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    by = {(run["arm"], run["seed"]): run for run in record["runs"]}

    def mean(arm, key):
        return sum(by[arm, seed][key] for seed in range(3)) / 3

    def gain(arm, key="score"):  # over SFT, and half of its 95% interval
        won = [by[arm, s][key] - by["SFT", s][key] for s in range(3)]
        middle = sum(won) / 3
        spread = (sum((w - middle) ** 2 for w in won) / 2) ** 0.5
        return middle, 4.303 * spread / 3**0.5

    sure = {
        arm: abs(gain(arm)[0]) > gain(arm)[1] for arm, _ in by if arm != "SFT"
    }
    assert sure["more SFT"] and sure["DPO"] and sure["GRPO"]
    assert 0.4 < gain("GRPO")[0] / gain("DPO")[0] < 0.6  # about half as much
    assert abs(gain("more SFT")[0] - gain("DPO")[0]) < 0.03
    assert abs(gain("GRPO ×10")[0] - gain("DPO")[0]) < 0.03
    assert mean("more SFT", "kl") > 3 * mean("DPO", "kl") > 3 * mean("GRPO", "kl")
    for arm in ("GRPO ×10", "RLOO ×10", "REINFORCE ×10"):
        assert sure[arm]
        for key in ("right", "pass@8"):
            assert abs(gain(arm, key)[0]) <= gain(arm, key)[1]
        assert 0 < gain(arm, "pass@1")[0] < 0.04
        runs = [by[arm, seed] for seed in range(3)]
        at_three = sum(dict(run["course"])[80] for run in runs) / 3
        assert abs(mean(arm, "score") - at_three) < 0.02  # and then it stays
        first, last = (
            sum(sum(run["curve"][part]) for run in runs)
            for part in (slice(24), slice(-24, None))
        )
        assert last > first * 1.05
    ranked = sorted(
        (a for a in sure if a != "base" and not a.endswith(" ×10")),
        key=lambda a: gain(a)[0],
    )
    assert ranked[0] == "best of 8" and ranked[-1] == "best of 8, exact"
    assert mean("best of 8", "right") < mean("SFT", "pass@1")
    for arm in ("more SFT", "DPO", "GRPO"):
        assert abs(gain(arm, "pass@8")[0]) <= gain(arm, "pass@8")[1]
    told = [gain(arm, "pass@1") for arm in sure if arm.endswith(" ×10")]
    assert sum(middle > half for middle, half in told) == 2
    assert all(run["silent"] <= 0.05 for run in by.values())

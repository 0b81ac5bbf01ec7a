"""Chapter 7: log-probabilities, DPO, the reward model and GRPO."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from test_ch06 import model, tokenizer  # noqa: F401  (fixtures)

import llm_utils as lu

ROWS = [{"prompt": "Where does Hob live?", "chosen": "At Low Bridge.",
         "rejected": "Ask Ivy."},
        {"prompt": "Late?", "chosen": "The ferry is late.", "rejected": "Late late"}]
STEPS = lu.TrainConfig(steps=40, batch_size=2, optimizer="adamw",
                       learning_rate=3e-3, warmup_steps=2, precision="float32")


@pytest.fixture
def pairs(tokenizer):  # noqa: F811
    return lu.PreferenceDataset(ROWS, lu.ChatFormat(tokenizer), 90)


def test_sequence_logprob_is_the_sum_over_the_answer(model, pairs):  # noqa: F811
    ids, mask = lu.collate_pairs([pairs[0], pairs[1]], pairs.pad)
    found = lu.sequence_logprob(model, ids, mask)
    for b in range(len(ids)):
        total = 0.0
        for t in range(1, ids.shape[1]):
            if mask[b, t]:
                logits = model(ids[b : b + 1, :t])[0][0, -1]
                total += logits.log_softmax(-1)[ids[b, t]].item()
        assert found[b].item() == pytest.approx(total, abs=1e-3)


def test_the_mask_is_the_answer_and_its_end(pairs, tokenizer):  # noqa: F811
    chat = lu.ChatFormat(tokenizer)
    ids, mask, _, _ = pairs[0]
    kept = [i for i, m in zip(ids.tolist(), mask.tolist()) if m]
    assert kept == tokenizer.encode("At Low Bridge.") + [chat.end]


def test_dpo_loss_is_its_formula():
    g = torch.Generator().manual_seed(0)
    win, lose, rw, rl = (torch.randn(5, generator=g) * 4 for _ in range(4))
    margin = (win - rw) - (lose - rl)
    sigmoid = -torch.log(1 / (1 + torch.exp(-0.3 * margin)))
    other = -torch.log(1 / (1 + torch.exp(0.3 * margin)))
    loss, good, bad = lu.dpo_loss(win, lose, rw, rl, 0.3)
    assert torch.allclose(loss, sigmoid.mean(), atol=1e-6)
    assert torch.allclose(good - bad, 0.3 * margin, atol=1e-6)
    smooth = lu.dpo_loss(win, lose, rw, rl, 0.3, label_smoothing=0.2)[0]
    assert torch.allclose(smooth, (0.8 * sigmoid + 0.2 * other).mean(), atol=1e-6)
    ipo = lu.dpo_loss(win, lose, rw, rl, 0.3, kind="ipo")[0]
    assert torch.allclose(ipo, ((margin - 1 / 0.6) ** 2).mean(), atol=1e-5)
    hinge = lu.dpo_loss(win, lose, rw, rl, 0.3, kind="hinge")[0]
    assert torch.allclose(hinge, (1 - 0.3 * margin).clamp_min(0).mean(), atol=1e-6)
    for bad_arguments in ({"kind": "cosine"}, {"beta": 0.0}):
        with pytest.raises(ValueError):
            lu.dpo_loss(win, lose, rw, rl, **bad_arguments)


def test_training_starts_at_log_2_and_puts_the_pairs_in_order(model, pairs):  # noqa: F811
    before = lu.pair_logprobs(model, pairs)
    history = lu.train_dpo(model, pairs, STEPS, beta=0.2)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert history[-1]["loss"] < 0.3
    ratio = lu.pair_logprobs(model, pairs) - before
    assert (ratio[:, 0] > ratio[:, 1]).all()


def test_the_chosen_answers_own_loss_counts_per_token(model, pairs, monkeypatch):  # noqa: F811
    values = {}

    def once(model, data, config, collate, loss, on_step=None):
        rows = list(range(len(data)))
        ids, mask = collate([data[i] for i in rows], data.pad)
        values[weight] = loss(model, rows, ids, mask).item()

    monkeypatch.setattr(lu, "finetune", once)
    for weight in (0.0, 0.7):
        lu.train_dpo(model, pairs, STEPS, chosen_weight=weight)
    per_token = [
        lu.sequence_logprob(model, ids[None], mask[None]).item() / mask.sum().item()
        for ids, mask, _, _ in pairs.examples
    ]
    added = -0.7 * sum(per_token) / len(per_token)
    assert values[0.0] == pytest.approx(math.log(2), abs=1e-4)
    assert values[0.7] - values[0.0] == pytest.approx(added, rel=1e-4)


def test_a_row_that_lacks_a_text_is_named(tokenizer):  # noqa: F811
    chat = lu.ChatFormat(tokenizer)
    with pytest.raises(ValueError, match="row 1"):
        lu.PreferenceDataset([ROWS[0], {"prompt": "x", "chosen": "y"}], chat, 90)
    with pytest.raises(ValueError, match="at most 3"):
        lu.PreferenceDataset(ROWS, chat, 3)


def test_reward_model_orders_pairs_and_ignores_padding(model, pairs):  # noqa: F811
    reward = lu.RewardModel(model)
    losses = lu.train_reward_model(reward, pairs, STEPS)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert lu.reward_accuracy(reward, pairs) == 1.0
    ids = pairs[0][0][None]
    n = torch.tensor([ids.shape[1]])
    longer = reward(F.pad(ids, (0, 11), value=3), n)
    assert torch.allclose(reward(ids, n), longer, atol=1e-5)


def test_kl_of_a_model_from_itself_is_zero(model, tokenizer):  # noqa: F811
    kl, _ = lu.policy_kl(model, copy.deepcopy(model), tokenizer,
                         ["Where?", "Who is late?", "too long " * 400], 8)
    assert kl == pytest.approx(0, abs=1e-3)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.norm.weight.mul_(3)
    kl, error = lu.policy_kl(model, other, tokenizer, ["Where does Hob live?"] * 60, 12)
    assert kl > 2 * error > 0


def test_advantages_have_no_mean_and_vanish_when_all_are_equal():
    rewards = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    advantages = lu.group_advantages(rewards)
    assert advantages.mean(1).abs().max() < 1e-5
    assert torch.equal(lu.group_advantages(torch.ones(2, 4)), torch.zeros(2, 4))


def test_grpo_gradient_is_the_policy_gradient():
    g = torch.Generator().manual_seed(0)
    logprob = torch.randn(3, 5, generator=g).requires_grad_()
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 1, 0, 0]])
    advantages = torch.tensor([1.0, -0.5, 0.25])
    loss = lu.grpo_loss(logprob, logprob.detach(), mask, advantages, beta=0.7)
    loss.backward()
    wanted = -advantages[:, None] * mask / mask.sum(1, keepdim=True) / 3
    assert torch.allclose(logprob.grad, wanted, atol=1e-6)
    away = lu.grpo_loss(logprob, logprob.detach() + 1, mask, 0 * advantages, 1.0)
    assert away.item() == pytest.approx(math.e - 2, abs=1e-5)


def test_grpo_raises_its_own_reward(model, tokenizer):  # noqa: F811
    class Task:
        prompt = "Where?"

    config = lu.TrainConfig(steps=60, batch_size=2, optimizer="adamw",
                            learning_rate=1e-2, warmup_steps=1, seed=1)
    earned = lu.train_grpo(
        model, tokenizer, [Task()], lambda _, a: a.count("e"), config,
        group=8, beta=0.0, max_new_tokens=8)
    assert sum(earned[-5:]) > sum(earned[:5]) + 2
    with pytest.raises(ValueError, match="at least 2"):
        lu.train_grpo(model, tokenizer, [Task()], lambda *_: 0, config, group=1)

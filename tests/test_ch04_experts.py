"""Mixtures of experts, of chapter 4's lab, beside transformers' Mixtral."""

import pytest
import torch
from transformers import MixtralConfig
from transformers.models.mixtral import modeling_mixtral

import llm_utils as lu

SHAPE = {"d_ff": 12, "n_expert": 6}


def drawn(module, seed=0, std=0.5):
    """The module with all its parameters drawn anew."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, std, generator=draw)
    return module


def numbers(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mixtral(layer, n_active):
    """transformers' layer with our weights."""
    theirs = modeling_mixtral.MixtralSparseMoeBlock(
        MixtralConfig(
            hidden_size=16,
            intermediate_size=12,
            num_local_experts=6,
            num_experts_per_tok=n_active,
        )
    )
    with torch.no_grad():
        theirs.gate.weight.copy_(layer.router.weight)
        for e, f in enumerate(layer.experts):
            both = torch.cat([f.gate_proj.weight, f.up_proj.weight])
            theirs.experts.gate_up_proj[e] = both
            theirs.experts.down_proj[e] = f.down_proj.weight
    return theirs


@pytest.mark.parametrize("n_active", [1, 2, 3, 6])
def test_output_and_gradients_are_mixtrals(n_active):
    layer = drawn(lu.MixtureOfExperts(16, n_active=n_active, **SHAPE))
    theirs = mixtral(layer, n_active)
    ours, other = (numbers(2, 9, 16).requires_grad_() for _ in range(2))
    y, z = layer(ours), theirs(other)
    assert torch.allclose(y, z, atol=1e-5)
    weight = numbers(2, 9, 16, seed=2)
    (y * weight).sum().backward()
    (z * weight).sum().backward()
    assert torch.allclose(ours.grad, other.grad, atol=1e-4)
    slopes = torch.stack([f.down_proj.weight.grad for f in layer.experts])
    assert torch.allclose(slopes, theirs.experts.down_proj.grad, atol=1e-4)
    assert torch.allclose(
        layer.router.weight.grad, theirs.gate.weight.grad, atol=1e-4
    )


def test_balance_is_that_of_transformers():
    """Which counts each of the k choices of a token: k times ours."""
    for n_active in 1, 2, 4:
        layer = drawn(lu.MixtureOfExperts(16, n_active=n_active, **SHAPE))
        x = numbers(3, 20, 16)
        layer(x)
        theirs = modeling_mixtral.load_balancing_loss_func(
            (layer.router(x.flatten(0, 1)),), 6, n_active
        )
        assert n_active * layer.balance.item() == pytest.approx(
            theirs.item(), rel=1e-5
        )


def test_a_router_of_one_hears_only_shares_that_are_left_as_they_are():
    for sum_to_one in True, False:
        layer = drawn(
            lu.MixtureOfExperts(16, n_active=1, sum_to_one=sum_to_one, **SHAPE)
        )
        layer(numbers(1, 9, 16)).square().sum().backward()
        slope = layer.router.weight.grad.abs().max()
        assert (slope < 1e-4) == sum_to_one


def test_lean_changes_who_is_chosen_and_no_weight():
    """All but two are leant out: what is left is a mixture of these two."""
    layer = drawn(lu.MixtureOfExperts(16, n_active=2, **SHAPE)).eval()
    layer.lean[[0, 1, 3, 5]] = -2
    layer.lean[4] = 0.5
    x = numbers(2, 9, 16)
    p = layer.router(x)[..., [2, 4]].softmax(-1)
    expected = layer.experts[2](x) * p[..., :1] + layer.experts[4](x) * p[..., 1:]
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_lean_evens_out_the_work():
    """A router with favourites, in training, comes to serve all."""
    even = {}
    for rate in 0.0, 0.02:
        layer = drawn(
            lu.MixtureOfExperts(16, n_active=2, lean_rate=rate, **SHAPE)
        )
        x = numbers(8, 32, 16)
        x[..., 0] += 15  # which some experts like and others do not
        for _ in range(200):
            layer(x)
        even[rate] = torch.stack(layer.loads[-50:]).mean(0).min()
        assert len(layer.loads) == 200
        assert layer.loads[0].sum() == pytest.approx(1)
    assert even[0.0] < 0.03 and even[0.02] > 0.1
    seen = layer.lean.clone()
    layer.eval()(x)
    assert torch.equal(layer.lean, seen) and len(layer.loads) == 200


def sparse(**more):
    config = lu.ModelConfig.preset("smoke", vocab_size=50)
    return drawn(
        lu.SparseGPT(config, d_ff=8, n_expert=4, n_active=2, **more), std=0.2
    )


def test_no_token_looks_ahead_and_a_cache_changes_nothing():
    model = sparse().eval()
    ids = torch.arange(24)[None] % 50
    with torch.no_grad():
        whole = model(ids)[0]
        changed = ids.clone()
        changed[0, -1] = 33
        assert torch.allclose(model(changed)[0][:, :-1], whole[:, :-1], atol=1e-5)
        cache = model.new_cache()
        parts = [model(part, cache=cache)[0] for part in ids.split(5, dim=1)]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_price_is_paid_in_training_alone():
    ids = torch.arange(24)[None] % 50
    cheap, dear = sparse(), sparse(price=0.5)
    cheap_loss, dear_loss = (m(ids, ids)[1] for m in (cheap, dear))
    balance = torch.stack([b.feed_forward.balance for b in dear.blocks]).mean()
    assert balance > 1.0
    assert torch.allclose(dear_loss, cheap_loss + 0.5 * balance)
    cheap_loss, dear_loss = (m.eval()(ids, ids)[1] for m in (cheap, dear))
    assert torch.equal(cheap_loss, dear_loss)

"""Chapter 3: attention, its mask, its rotation, its cache and its tiles."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import llm_utils as lu

sizes = st.integers(1, 40)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomise(module, seed=0):
    """Every parameter random: zeros and ones would hide a wrong mapping."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 3)
    return module


def close(a, b, tolerance=1e-5):
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_same_gradients(ours, theirs, inputs, seed):
    """Both outputs send the same random gradient back to all inputs alike."""
    back = numbers(*ours.shape, seed=seed)
    for a, b in zip(torch.autograd.grad(ours, inputs, back),
                    torch.autograd.grad(theirs, inputs, back),
                    strict=True):
        assert close(a, b, 1e-4)


# --- the equation -------------------------------------------------------------


@given(t=sizes, s=sizes, d=st.integers(1, 20), heads=st.integers(1, 4))
def test_equation_is_torchs(t, s, d, heads):
    q, k, v = numbers(2, heads, t, d), numbers(2, heads, s, d, seed=1), \
        numbers(2, heads, s, d, seed=2)
    assert close(lu.scaled_dot_product_attention(q, k, v),
                 F.scaled_dot_product_attention(q, k, v))


@given(t=sizes, more=st.integers(0, 20))
def test_masked_equation_is_torchs_forward_and_backward(t, more):
    q, k, v = (numbers(1, 2, n, 8, seed=i).requires_grad_()
               for i, n in enumerate((t, t + more, t + more)))
    mask = lu.causal_mask(t, t + more)
    ours = lu.scaled_dot_product_attention(q, k, v, mask)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert close(ours, theirs)
    assert_same_gradients(ours, theirs, (q, k, v), seed=5)


def test_mask_allows_the_past_and_itself():
    assert lu.causal_mask(3).tolist() == [
        [True, False, False], [True, True, False], [True, True, True]]
    assert lu.causal_mask(2, 4).tolist() == [
        [True, True, True, False], [True, True, True, True]]
    with pytest.raises(ValueError, match="3 queries"):
        lu.causal_mask(3, 2)


def test_dense_attention_is_the_equation():
    q, k, v = (numbers(2, 3, 17, 8, seed=i) for i in range(3))
    assert close(lu.dense_attention(q, k, v),
                 lu.scaled_dot_product_attention(q, k, v, lu.causal_mask(17)))


# --- rotation -----------------------------------------------------------------


@given(m=st.integers(0, 400), n=st.integers(0, 400), by=st.integers(0, 400))
def test_only_the_distance_counts(m, n, by):
    q, k = numbers(1, 16), numbers(1, 16, seed=1)

    def score(i, j):
        turned = (lu.apply_rope(z, torch.tensor([p]))
                  for z, p in ((q, i), (k, j)))
        return float(next(turned) @ next(turned).T)

    assert score(m, n) == pytest.approx(score(m + by, n + by), abs=2e-3)


def test_rotation_keeps_lengths_and_position_zero():
    x = numbers(2, 3, 50, 32)
    turned = lu.apply_rope(x, torch.arange(50))
    assert close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[..., 0, :], x[..., 0, :])
    assert not close(turned[..., 1:, :], x[..., 1:, :], 1e-2)


def test_rotation_is_that_of_llama():
    from transformers import LlamaConfig
    from transformers.models.llama import modeling_llama as llama

    config = LlamaConfig(hidden_size=64, num_attention_heads=2, head_dim=32)
    positions = torch.arange(7, 47)
    q, k = numbers(1, 2, 40, 32), numbers(1, 2, 40, 32, seed=1)
    table = llama.LlamaRotaryEmbedding(config)(q, positions[None])
    theirs = llama.apply_rotary_pos_emb(q, k, *table)
    theta = config.rope_parameters["rope_theta"]
    for ours, other in zip((q, k), theirs, strict=True):
        assert close(lu.apply_rope(ours, positions, theta), other)


def test_odd_width_cannot_be_turned():
    with pytest.raises(ValueError, match="even"):
        lu.rope_frequencies(7)
    with pytest.raises(ValueError, match="even"):
        lu.MultiHeadAttention(15, 3, rope_theta=1e4)


# --- the module ---------------------------------------------------------------


def torch_twin(ours):
    twin = nn.MultiheadAttention(
        ours.o_proj.in_features, ours.n_head, batch_first=True,
        bias=ours.o_proj.bias is not None)
    three = (ours.q_proj, ours.k_proj, ours.v_proj)
    with torch.no_grad():
        twin.in_proj_weight.copy_(torch.cat([p.weight for p in three]))
        if ours.o_proj.bias is not None:
            twin.in_proj_bias.copy_(torch.cat([p.bias for p in three]))
    twin.out_proj.load_state_dict(ours.o_proj.state_dict())
    return twin


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_head", [1, 2, 4])
def test_module_is_torchs_forward_and_backward(n_head, bias):
    ours = randomise(lu.MultiHeadAttention(24, n_head, bias=bias))
    twin, x = torch_twin(ours), numbers(3, 11, 24).requires_grad_()
    theirs, _ = twin(x, x, x, attn_mask=~lu.causal_mask(11),
                     need_weights=False)
    out = ours(x)
    assert close(out, theirs)
    back = numbers(*out.shape, seed=7)
    (dx_ours,) = torch.autograd.grad(out, x, back, retain_graph=True)
    (dx_theirs,) = torch.autograd.grad(theirs, x, back, retain_graph=True)
    assert close(dx_ours, dx_theirs, 1e-4)
    out.backward(back)
    theirs.backward(back)
    three = (ours.q_proj, ours.k_proj, ours.v_proj)
    assert close(torch.cat([p.weight.grad for p in three]),
                 twin.in_proj_weight.grad, 1e-4)
    assert close(ours.o_proj.weight.grad, twin.out_proj.weight.grad, 1e-4)
    if bias:
        assert close(torch.cat([p.bias.grad for p in three]),
                     twin.in_proj_bias.grad, 1e-4)


def test_heads_cut_in_one_step_would_be_noticed():
    """The fault that the comparison above must catch."""
    ours = randomise(lu.MultiHeadAttention(24, 4, bias=True))
    x, twin = numbers(1, 11, 24), torch_twin(ours)
    theirs, _ = twin(x, x, x, attn_mask=~lu.causal_mask(11))
    ours.project = lambda x, past=0, rope=None: [
        p(x).view(1, 4, 11, 6)
        for p in (ours.q_proj, ours.k_proj, ours.v_proj)]
    assert not close(ours(x), theirs, 1e-2)


@given(groups=st.sampled_from([1, 2, 3, 6]), t=st.integers(1, 30))
def test_groups_share_keys_and_values(groups, t):
    few = randomise(lu.MultiHeadAttention(24, 6, groups, rope_theta=1e4))
    many = lu.MultiHeadAttention(24, 6, rope_theta=1e4)
    state = few.state_dict()
    for name in ("k_proj.weight", "v_proj.weight"):
        state[name] = state[name].view(groups, 4, 24).repeat_interleave(
            6 // groups, dim=0).reshape(24, 24)
    many.load_state_dict(state)
    x = numbers(2, t, 24)
    assert close(few(x), many(x))


@pytest.fixture(params=[(None, None, False), (2, 1e4, True), (1, 1e4, False)])
def layer(request):
    groups, theta, qk_norm = request.param
    return randomise(lu.MultiHeadAttention(
        32, 4, groups, bias=True, rope_theta=theta, qk_norm=qk_norm)).eval()


def test_future_never_changes_the_past(layer):
    x = numbers(2, 20, 32)
    changed = x.clone()
    changed[:, 13:] += 1
    with torch.no_grad():
        assert torch.equal(layer(x)[:, :13], layer(changed)[:, :13])
        assert (layer(x)[:, 13:] != layer(changed)[:, 13:]).any(-1).all()


def test_bfloat16_on_a_cpu_keeps_the_mask(layer):
    """There the module takes another way through the equation."""
    x, layer = numbers(2, 20, 32).bfloat16(), layer.bfloat16()
    changed = x.clone()
    changed[:, 13:] += 1
    with torch.no_grad():
        assert torch.equal(layer(x)[:, :13], layer(changed)[:, :13])
        exact = layer.float()(x.float())
        rounded = layer.bfloat16()(x).float()
        assert (rounded - exact).norm() < 0.02 * exact.norm()


@given(data=st.data())
def test_cache_is_no_cache_for_any_pieces(data):
    layer = randomise(lu.MultiHeadAttention(
        32, 4, 2, rope_theta=1e4, qk_norm=True))
    pieces = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=4))
    x, cache = numbers(2, sum(pieces), 32), lu.KVCache()
    with torch.no_grad():
        parts = [layer(part, cache) for part in x.split(pieces, dim=1)]
        assert close(torch.cat(parts, 1), layer(x))
    assert cache.length == sum(pieces)


def test_cache_forgets_what_is_trimmed(layer):
    x, cache = numbers(1, 12, 32), lu.KVCache()
    with torch.no_grad():
        layer(x[:, :7], cache)
        layer(numbers(1, 3, 32, seed=9), cache)  # a wrong guess
        cache.trim(7)
        assert close(layer(x[:, 7:], cache), layer(x)[:, 7:])
    for n in (-1, 13):
        with pytest.raises(ValueError, match="cannot keep"):
            cache.trim(n)


def test_cache_refuses_another_batch():
    cache = lu.KVCache()
    cache.update(numbers(1, 2, 3, 4), numbers(1, 2, 3, 4))
    with pytest.raises(ValueError, match="new cache"):
        cache.update(numbers(2, 2, 3, 4), numbers(2, 2, 3, 4))


def test_weights_are_those_that_are_used(layer):
    x = numbers(2, 9, 32)
    weights = lu.attention_weights(layer, x)
    assert close(weights.sum(-1), torch.ones(2, 4, 9))
    assert (weights.triu(1) == 0).all()
    with torch.no_grad():
        v = layer.project(x)[2].repeat_interleave(4 // layer.n_kv_head, 1)
        out = layer.o_proj((weights @ v).transpose(1, 2).flatten(2))
        assert close(out, layer(x))


@pytest.mark.parametrize("arguments, words", [
    ((32, 5), "does not divide"), ((32, 4, 3), "cannot share"),
    ((32, 0), "does not divide"), ((32, 4, 0), "cannot share")])
def test_heads_must_come_out_even(arguments, words):
    with pytest.raises(ValueError, match=words):
        lu.MultiHeadAttention(*arguments)


@pytest.mark.parametrize("masks", [None, 1, 4])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_one_word_reads_each_key_of_its_group(groups, masks):
    """masks: none, one for all heads, one for each."""
    q, (k, v) = numbers(2, 4, 1, 8), numbers(2, 2, groups, 30, 8, seed=1)
    mask = None
    if masks:
        mask = numbers(2, masks, 1, 30, seed=2) > 0
        mask[..., 0] = True
    many = [z.repeat_interleave(4 // groups, 1) for z in (k, v)]
    ours = lu._attend(q, k, v, mask, None, 0.0)
    assert ours.shape == q.shape
    assert close(ours, lu.scaled_dot_product_attention(q, *many, mask))


def test_one_word_repeats_no_key():
    """The largest tensor made is no larger than the keys that are kept."""
    q, (k, v) = numbers(1, 8, 1, 8), numbers(2, 1, 1, 500, 8, seed=1)
    with Largest() as largest:
        lu._attend(q, k, v, None, None, 0.0)
    assert largest.elements <= k.numel()


# --- tiles --------------------------------------------------------------------


@given(t=st.integers(1, 70), more=st.integers(0, 30),
       block=st.integers(1, 80), causal=st.booleans(),
       groups=st.sampled_from([1, 2, 4]))
def test_tiles_are_the_equation(t, more, block, causal, groups):
    q = numbers(2, 4, t, 8).requires_grad_()
    k, v = (numbers(2, groups, t + more, 8, seed=i).requires_grad_()
            for i in (1, 2))
    ours = lu.flash_attention(q, k, v, block, causal)
    many = [z.repeat_interleave(4 // groups, 1) for z in (k, v)]
    mask = lu.causal_mask(t, t + more) if causal else None
    square = lu.scaled_dot_product_attention(q, *many, mask)
    assert close(ours, square)
    assert_same_gradients(ours, square, (q, k, v), seed=3)


def test_tiles_pass_the_numerical_gradient():
    q, k, v = (numbers(1, 1, 7, 4, seed=i).double().requires_grad_()
               for i in range(3))
    assert torch.autograd.gradcheck(
        lambda *z: lu.flash_attention(*z, block=3), (q, k, v))


def test_tiles_stand_large_scores():
    q, k, v = (50 * numbers(1, 1, 40, 16, seed=i) for i in range(3))
    ours = lu.flash_attention(q, k, v, block=8)
    assert torch.isfinite(ours).all()
    assert close(ours, lu.scaled_dot_product_attention(
        q, k, v, lu.causal_mask(40)), 1e-4)


class Largest(TorchDispatchMode):
    """The largest number of elements in any result."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for z in out if isinstance(out, tuple | list) else [out]:
            if torch.is_tensor(z):
                self.elements = max(self.elements, z.numel())
        return out


def test_tiles_never_hold_the_square():
    q, k, v = (numbers(1, 2, 512, 16, seed=i).requires_grad_()
               for i in range(3))
    with Largest() as tiles:
        lu.flash_attention(q, k, v, block=32).sum().backward()
    assert tiles.elements == 2 * 512 * 16
    with Largest() as square:
        lu.scaled_dot_product_attention(
            q, k, v, lu.causal_mask(512)).sum().backward()
    assert square.elements == 2 * 512 * 512


@pytest.mark.parametrize("heads, keys, block", [(4, 9, 0), (3, 9, 8),
                                                (4, 5, 8)])
def test_tiles_refuse_what_does_not_fit(heads, keys, block):
    q, k = numbers(1, heads, 9, 4), numbers(1, 2, keys, 4)
    with pytest.raises(ValueError, match="must"):
        lu.flash_attention(q, k, k, block)


# --- what the chapter says of the scale ---------------------------------------


def test_scale_keeps_the_deviation_of_scores():
    for d in (16, 256):
        q, k = numbers(2000, d), numbers(2000, d, seed=1)
        scores = (q * k).sum(-1)
        assert scores.std().item() == pytest.approx(math.sqrt(d), rel=0.1)

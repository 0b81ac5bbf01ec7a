"""The loss by one kernel: the same as by slices, run by Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

import llm_utils as lu

COMPARE = """
import torch
import llm_utils as lu

g = torch.Generator().manual_seed({seed})
V, rows, n = {vocab}, {rows}, 13
x = torch.randn(n, 24, generator=g)
weight = 2 * torch.randn(rows, 24, generator=g)
y = torch.randint(V, (n,), generator=g)
y[[0, 5]] = -100
share = torch.tensor(1 / 11)
loss, slope = lu._slice_loss(x, weight, y, share, V, None)
ours, found = lu._fused_slice_loss(x, weight, y, share, V)
torch.testing.assert_close(ours, loss)
torch.testing.assert_close(found, slope)
assert not found[:, V:].any(), "the padding has no slope"
assert not found[[0, 5]].any(), "what does not count has no slope"
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="no Triton here"
)
@pytest.mark.parametrize(
    ("seed", "vocab", "rows"), [(0, 997, 1024), (1, 4100, 4160), (2, 64, 64)]
)
def test_kernel_gives_the_loss_and_the_slope_of_the_slices(seed, vocab, rows):
    code = COMPARE.format(seed=seed, vocab=vocab, rows=rows)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_padded_rows_cost_and_learn_nothing():
    """The loss with a padded vocabulary is the loss without."""
    g = torch.Generator().manual_seed(0)
    config = lu.ModelConfig.preset("smoke", vocab_size=500, pad_vocab_to=64)
    model = lu.GPT(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=g)
    ids, targets = torch.randint(500, (2, 3, 20), generator=g)
    logits, loss = model(ids, targets)
    assert logits.shape == (3, 20, 500)
    plain = model.head(model(ids, hidden=True)[..., :])[..., :500]
    expected = torch.nn.functional.cross_entropy(
        plain.flatten(0, 1), targets.flatten()
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not model.head.weight.grad[500:].any()


@pytest.mark.full
def test_blocks_are_compiled_once_and_left_as_they_were():
    if not lu.can_compile("cpu"):
        pytest.skip("torch.compile does not work here")
    from torch._dynamo.utils import counters

    model = lu.GPT(lu.ModelConfig.preset("smoke", n_layer=5))
    fast = lu.Compiled(model, lu.TrainConfig(compile=True))
    ids = torch.randint(500, (2, 16))
    expected = model(ids, ids)[1]
    counters.clear()
    for _ in range(2):
        with fast:
            loss = model(ids, ids)[1]
        assert not any("forward" in vars(b) for b in model.blocks)
    torch.testing.assert_close(loss, expected)
    assert counters["stats"]["unique_graphs"] == 1, counters["stats"]

"""What makes training quick, and must not change what is learned."""

import copy
import json
import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import llm_utils as lu


def random_gpt(seed=0, **changes):
    """A small model, every parameter random."""
    config = lu.ModelConfig.preset(
        "smoke", vocab_size=83, context_length=32, **changes
    )
    model = lu.GPT(config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) / 4)
    return model


def some_rows(seed=1, shape=(3, 20)):
    draw = torch.Generator().manual_seed(seed)
    x, y = torch.randint(83, (2, *shape), generator=draw)
    y[0, :7] = -100
    return x, y


class Documents(SimpleNamespace):
    """Tokens and starts, as a TokenDataset has them."""

    def __len__(self):
        return len(self.starts)


def toy_tokens():
    draw = np.random.default_rng(0)
    docs = [[*draw.integers(1, 10, n), 0] for n in draw.integers(2, 30, 40)]
    return Documents(
        tokens=np.concatenate(docs).astype(np.uint16),
        starts=np.cumsum([0] + [len(d) for d in docs[:-1]]),
        index={"documents": len(docs)},
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 7, 37, 1000])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_loss_by_slices(dtype, rows, softcap):
    draw = torch.Generator().manual_seed(rows)
    x = torch.randn(37, 16, dtype=dtype, generator=draw, requires_grad=True)
    w = torch.randn(70, 16, dtype=dtype, generator=draw, requires_grad=True)
    y = torch.randint(61, (37,), generator=draw)
    y[3:9] = -100
    ours = lu.linear_cross_entropy(x, w, y, rows, 61, softcap)
    logits = x @ w[:61].T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    theirs = F.cross_entropy(logits, y)
    close = {"atol": 1e-5 if dtype == torch.float32 else 1e-12, "rtol": 1e-6}
    torch.testing.assert_close(ours, theirs, **close)
    # times 3: the gradient that comes from above must be passed on
    torch.testing.assert_close(
        torch.autograd.grad(3 * ours, [x, w]),
        torch.autograd.grad(3 * theirs, [x, w]),
        **close,
    )


def test_loss_by_slices_is_to_be_differentiated_once():
    x, w = torch.randn(4, 8), torch.randn(9, 8, requires_grad=True)
    loss = lu.linear_cross_entropy(x, w, torch.arange(4))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        loss.backward()


@pytest.mark.parametrize("softcap", [None, 15.0])
@pytest.mark.parametrize("size", [2, 400])
def test_slices_hold_where_logits_are_far_apart(size, softcap):
    """Sure and right, sure and wrong: the slope of a target is p - 1."""
    g = torch.Generator().manual_seed(size)
    x, w = torch.eye(6), size * torch.randn(90, 6, generator=g)
    y = (x @ w.T).argmax(-1)
    y[:3] = (x @ w.T).argmin(-1)[:3]
    x.requires_grad_(), w.requires_grad_()
    ours = lu.linear_cross_entropy(x, w, y, softcap=softcap)
    logits = (x @ w.T).double()
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    theirs = F.cross_entropy(logits, y)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    for mine, right in zip(
        torch.autograd.grad(ours, [x, w]), torch.autograd.grad(theirs, [x, w])
    ):
        torch.testing.assert_close(
            mine, right, rtol=1e-5, atol=1e-5 * right.abs().max().item()
        )


def test_loss_by_slices_with_nothing_to_learn_is_not_a_number():
    x, w = torch.randn(4, 8), torch.randn(9, 8)
    y = torch.full((4,), -100)
    assert math.isnan(lu.linear_cross_entropy(x, w, y).item())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": True},
        {"logit_softcap": 3.0},
        {"pad_vocab_to": 64, "logit_softcap": 3.0},
    ],
)
def test_model_gives_the_same_loss_by_slices(changes):
    model, (x, y) = random_gpt(**changes), some_rows()
    seen = {}
    for model.loss_rows in (0, 8):
        logits, loss = model(x, y)
        assert (logits is None) == bool(model.loss_rows)
        grads = torch.autograd.grad(loss, list(model.parameters()))
        seen[model.loss_rows] = [loss, *grads]
    torch.testing.assert_close(seen[0], seen[8], atol=1e-5, rtol=1e-4)


def test_loss_by_slices_under_autocast():
    model, (x, y) = random_gpt(), some_rows()
    losses = []
    for model.loss_rows in (0, 8):
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(model(x, y)[1])
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(*losses, atol=2e-2, rtol=2e-2)
    losses[1].backward()
    assert model.head.weight.grad.dtype == torch.float32


def test_padded_vocabulary_adds_rows_and_nothing_else():
    plain, padded = random_gpt(seed=2), random_gpt(seed=3, pad_vocab_to=64)
    assert len(padded.head.weight) == 128
    state = plain.state_dict()
    for name in ("token_embedding.weight", "head.weight"):
        full = padded.state_dict()[name].clone()
        full[:83] = state[name]
        state[name] = full
    padded.load_state_dict(state)
    x, y = some_rows()
    assert padded(x)[0].shape[-1] == 83
    torch.testing.assert_close(padded(x)[0], plain(x)[0])
    torch.testing.assert_close(padded(x, y)[1], plain(x, y)[1])


def test_softcap_bounds_the_logits():
    x, _ = some_rows()
    free = random_gpt()(x)[0]
    capped = random_gpt(logit_softcap=1.5)(x)[0]
    assert free.abs().max() > 1.5 >= capped.abs().max()
    torch.testing.assert_close(capped, 1.5 * torch.tanh(free / 1.5))


@pytest.mark.parametrize(
    ("field", "value"),
    [("logit_softcap", 0.0), ("pad_vocab_to", 0), ("window", 0)],
)
def test_senseless_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        lu.ModelConfig(**{field: value})


def test_checkpointed_blocks_give_the_same_gradients():
    model, (x, y) = random_gpt().train(), some_rows()
    seen, calls = [], []
    model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for model.checkpointing in (False, True):
        calls.clear()
        grads = torch.autograd.grad(model(x, y)[1], list(model.parameters()))
        seen.append((grads, len(calls)))
    torch.testing.assert_close(seen[0][0], seen[1][0])
    assert [n for _, n in seen] == [1, 2]  # once more in the backward pass


def test_prefetch_gives_the_same_batches_and_positions():
    one = lu.Batches(toy_tokens(), 4, 24, seed=7)
    two = lu.Prefetch(lu.Batches(toy_tokens(), 4, 24, seed=7))
    for step in range(30):
        assert one.state_dict() == two.state_dict()
        if step == 17:  # as a resumed run does
            state = json.loads(json.dumps(two.state_dict()))
            two.load_state_dict(state)
        for a, b in zip(one.next(), two.next(), strict=True):
            assert torch.equal(a, b)


def test_prefetch_works_meanwhile_and_tells_of_a_failure():
    made = threading.Event()

    class Slow:
        n = 0

        def state_dict(self):
            return {"row": self.n}

        def next(self):
            self.n += 1
            if self.n == 2:
                made.set()
            if self.n == 3:
                raise OSError("the disk is gone")
            return self.n, self.n

    ahead = lu.Prefetch(Slow())
    assert ahead.next() == (1, 1)
    assert made.wait(10), "the second batch is made before it is asked for"
    assert ahead.state_dict() == {"row": 1}
    ahead.next()
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.next()


def test_the_length_of_a_large_gradient_is_close():
    """Small numbers beside large ones: a sum of squares on one core drifts."""
    g = torch.Generator().manual_seed(0)
    grads = [torch.randn(2100, 1000, generator=g) for _ in range(2)]
    grads.append(torch.randn(7, generator=g))
    right = math.sqrt(sum(z.double().square().sum().item() for z in grads))
    found = lu._gradient_norm(grads).item()
    assert found == pytest.approx(right, rel=2e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adamw8bit"])
def test_gradients_are_clipped_however_the_optimizer_does_it(optimizer):
    """Long ones count as if of length 1, and then short ones as they are."""
    config = lu.TrainConfig(optimizer=optimizer, warmup_steps=0)
    model = random_gpt()
    twins = model, copy.deepcopy(model)
    runs = [lu.make_optimizers(twin, config) for twin in twins]
    g = torch.Generator().manual_seed(1)
    slopes = [torch.randn(p.shape, generator=g) for p in model.parameters()]
    size = torch.cat([slope.flatten() for slope in slopes]).norm()
    for length, clipped in ((40, 1), (0.1, 0.1)):
        for twin, run, long in zip(twins, runs, (length, clipped)):
            for p, slope in zip(twin.parameters(), slopes):
                p.grad = slope * (long / size)
            norm = lu.optimizer_step(twin, run, 0, config)
            assert norm == pytest.approx(long, rel=1e-4)
    for ours, right in zip(*(twin.parameters() for twin in twins)):
        torch.testing.assert_close(ours, right, rtol=1e-3, atol=3e-4)


def test_gelu_by_sigmoid_is_gelu_by_tanh():
    if not lu.can_compile():
        pytest.skip("no compiler here")
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64, requires_grad=True)
    quick = torch.compile(lu.gelu_tanh)(z)
    right = F.gelu(z, approximate="tanh")
    torch.testing.assert_close(quick, right, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        *(torch.autograd.grad(y.sum(), z) for y in (quick, right)),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.full
def test_compiled_model_learns_the_same():
    if not lu.can_compile("cpu"):
        pytest.skip("torch.compile does not work here")
    losses = []
    for compile in (False, True):
        config = lu.TrainConfig(
            steps=5,
            batch_size=4,
            context=24,
            compile=compile,
            precision="float32",
            optimizer="adamw",
        )
        history = lu.train(random_gpt(), toy_tokens(), config, progress=None)
        losses.append(history.losses)
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_without_a_compiler_the_model_is_called_as_it_is(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    lu.can_compile.cache_clear()
    try:
        model = random_gpt()
        fast = lu.Compiled(model, lu.TrainConfig(compile=True))
        with fast:
            assert "forward" not in vars(model.blocks[0])
    finally:
        lu.can_compile.cache_clear()


def test_line_of_progress_tells_pace_and_utilisation(capsys):
    config = lu.TrainConfig(steps=20, batch_size=4, context=24)
    lu.train(random_gpt(), toy_tokens(), config, progress="print")
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split(":")[0].split()[1]) for line in lines] == [
        1,
        *range(2, 21, 2),
    ]
    assert "ready to go on after" in lines[0]
    assert all("tokens/s, utilisation " in line for line in lines[1:])


def test_a_sitting_tells_its_pace_within_its_first_minute():
    """Wherever a run goes on: two lines at once, one after half a minute."""
    history, told = lu.History(), []
    run = SimpleNamespace(
        history=history, start=100, folder=None, config=lu.TrainConfig(steps=10_000)
    )
    for i in range(1, 61):  # the first step compiles for 40 s
        history.steps, history.seconds = 100 + i, 40.0 + 2 * (i - 1)
        lu._between(run, None, lambda history: told.append(history.steps), "")
    assert told == [101, 102, 116]


def test_pace_and_utilisation_are_those_since_the_line_before(capsys):
    model = random_gpt()
    history = lu.History()
    run = SimpleNamespace(
        history=history,
        model=model,
        context=24,
        world=1,
        device=torch.device("cpu"),
        config=lu.TrainConfig(precision="float32"),
    )
    printer = lu._Printer(run)
    for steps, tokens, seconds in ((1, 500, 60.0), (2, 700, 62.0), (4, 2700, 64.0)):
        history.steps, history.tokens, history.seconds = steps, tokens, seconds
        history.records.append({"loss": 2.5})
        printer(history)
    begun, first, second = capsys.readouterr().out.splitlines()
    assert begun.endswith("ready to go on after 60.0 s")  # compiling, for one
    assert " 100 tokens/s" in first and "1,000 tokens/s" in second
    share = 1000 * lu.flops_per_token(model.config, 24)
    share /= lu.peak_flops(torch.device("cpu"), "float32")
    assert second.endswith(f"utilisation {share:.0%}")


def test_peak_is_of_the_right_size():
    peak = lu.peak_flops("cpu", "float32")
    assert 1e9 < peak < 1e14
    assert lu.peak_flops("cpu", "float32") == peak  # measured once


def test_a_tied_table_learns_from_the_rows_read_and_from_the_head():
    """Its gradient is that of two tables with the same numbers, summed."""
    tied, loose = (random_gpt(tie_embeddings=tie) for tie in (True, False))
    loose.load_state_dict(
        tied.state_dict() | {"head.weight": tied.token_embedding.weight}
    )
    x, y = some_rows()
    for rows in (0, 7):
        for model in (tied, loose):
            model.zero_grad()
            model.loss_rows = rows
            model(x, y)[1].backward()
        table = tied.token_embedding.weight.grad
        assert table.layout == torch.strided
        torch.testing.assert_close(
            table, loose.token_embedding.weight.grad + loose.head.weight.grad
        )


def test_a_tied_table_gets_no_second_gradient_full_of_zeros():
    model = random_gpt(tie_embeddings=True)
    for rows, full in ((0, True), (7, False)):
        model.loss_rows = rows
        with torch.profiler.profile() as seen:
            model(*some_rows())[1].backward()
        names = {event.key for event in seen.key_averages()}
        assert ("aten::embedding_dense_backward" in names) == full

"""The lab on ablations: µP, the switches of the recipe, and the record."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import nbformat
import pytest
import torch

import llm_utils as lu

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "ch05_pretrain" / "lab_ablations.ipynb"
RECORD = ROOT / "results" / "ablations.json"
BASE = 32


def shape(width=64, **changes):
    """A small model `width` wide, heads of 16."""
    return lu.ModelConfig(
        **{
            "vocab_size": 97,
            "context_length": 32,
            "n_layer": 2,
            "n_head": width // 16,
            "d_model": width,
            "d_ff": 3 * width,
            "tie_embeddings": False,
            **changes,
        }
    )


def randomised(config, seed=1):
    """Every parameter random, so that nothing hides behind a 0 or a 1."""
    model, draw = lu.GPT(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) / 5 + (p.dim() < 2))
    return model.eval()


@pytest.fixture
def ids():
    draw = torch.Generator().manual_seed(0)
    return torch.randint(97, (3, 24), generator=draw)


# µP


def test_the_factor_is_base_width_over_width():
    assert shape(128).mup_scale == 1
    assert shape(128, mup_base_width=32).mup_scale == 0.25
    assert shape(16, mup_base_width=32).mup_scale == 2
    with pytest.raises(ValueError, match="mup_base_width"):
        shape(mup_base_width=0)


def test_a_model_as_wide_as_the_base_is_the_standard_one(ids):
    plain, mup = (lu.GPT(shape(BASE, mup_base_width=b)) for b in (None, BASE))
    for p, q in zip(plain.parameters(), mup.parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(plain(ids)[0], mup(ids)[0])


@pytest.mark.parametrize("width", [64, 128, 256])
def test_the_first_weights_of_the_blocks_shrink_by_the_root(width):
    """The same draws: each matrix in the blocks times √(base/width), no other."""
    plain, mup = (lu.GPT(shape(width, mup_base_width=b)) for b in (None, BASE))
    for name, p in plain.named_parameters():
        inside = name.startswith("blocks.") and p.dim() == 2
        factor = math.sqrt(BASE / width) if inside else 1.0
        assert torch.allclose(dict(mup.named_parameters())[name], factor * p), (
            name
        )


def test_the_readout_is_multiplied_by_base_over_width(ids):
    config = shape(128, mup_base_width=BASE)
    mup = randomised(config)
    plain = randomised(replace(config, mup_base_width=None))
    assert torch.allclose(mup(ids)[0], plain(ids)[0] / 4, atol=1e-5)
    mup.loss_rows = 7  # the loss that never holds all logits knows of it too
    whole = torch.nn.functional.cross_entropy(
        plain(ids)[0].flatten(0, 1) / 4, ids.flatten()
    )
    assert torch.allclose(mup(ids, ids)[1], whole, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_rates_of_adamw_under_mup(tied):
    """The matrices' rate × base/width, rate × decay as it was; others stay."""
    config = lu.TrainConfig(
        optimizer="adamw",
        learning_rate=0.01,
        weight_decay=0.2,
        embedding_learning_rate=0.3,
    )
    model = lu.GPT(shape(128, mup_base_width=BASE, tie_embeddings=tied))
    (adamw,) = lu.make_optimizers(model, config)
    rates = {
        id(p): (g["peak"], g["weight_decay"])
        for g in adamw.param_groups
        for p in g["params"]
    }
    assert len(rates) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        inside = name.startswith("blocks.") and p.dim() == 2
        table = name.startswith("token_embedding") and not tied
        head = name.startswith("head") or name.startswith("token") and tied
        want = 0.01 / 4 if inside else 0.3 if table else 0.01
        decay = 0.8 if inside else 0.2 if head else 0.0
        assert rates[id(p)] == pytest.approx((want, decay)), name


def test_muon_needs_no_other_rate():
    config = lu.TrainConfig(optimizer="muon")
    model = lu.GPT(shape(128, mup_base_width=BASE))
    muon, adamw = lu.make_optimizers(model, config)
    assert {g["peak"] for g in muon.param_groups} == {0.02}
    assert {g["peak"] for g in adamw.param_groups} == {3e-3}


@pytest.mark.parametrize("width", [64, 256])
def test_a_step_of_muon_is_as_large_at_every_width(width):
    """A matrix moves by rate × about 1 in its largest direction, however wide."""
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(width, width))
    optimizer = lu.Muon([p], lr=0.1, weight_decay=0.0, dtype=torch.float32)
    p.grad = torch.randn(width, width)
    optimizer.step()
    assert 0.07 < torch.linalg.matrix_norm(p.detach(), 2) < 0.13


@pytest.mark.parametrize("base", [None, BASE])
def test_coordinate_check(base):
    """Under µP a few steps move the model as far at every width; else not."""
    widths, power = (32, 64, 128), {}
    moves = [lu.coordinate_check(shape(w, mup_base_width=base)) for w in widths]
    for what in ("stream", "logits"):
        assert all(len(m[what]) == 4 for m in moves)
        power[what] = math.log(moves[-1][what][-1] / moves[0][what][-1]) / (
            math.log(widths[-1] / widths[0])
        )
    if base:
        assert all(abs(p) < 0.5 for p in power.values()), power
    else:
        assert all(p > 0.6 for p in power.values()), power


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": True},
        {"norm": "layernorm", "bias": True, "logit_softcap": 5.0},
        {"pad_vocab_to": 64},
    ],
)
def test_folded_away_it_computes_the_same(ids, changes):
    model = randomised(shape(128, mup_base_width=BASE, **changes))
    before = [p.clone() for p in model.parameters()]
    plain = lu.fold_mup(model)
    assert plain.config.mup_base_width is None
    assert torch.allclose(plain(ids)[0], model(ids)[0], atol=1e-5)
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)  # the model itself is as it was


def test_transformers_gets_only_the_folded_one(tmp_path, ids):
    model = randomised(shape(128, mup_base_width=BASE))
    with pytest.raises(ValueError, match="mup_base_width"):
        lu.to_transformers(model, None, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    again = lu.from_transformers(
        lu.to_transformers(lu.fold_mup(model), None, tmp_path / "m")
    )
    assert torch.allclose(again(ids)[0], model(ids)[0], atol=1e-4)


def test_saved_and_loaded_it_is_the_same_model(tmp_path, ids):
    model = randomised(shape(128, mup_base_width=BASE))
    again, _ = lu.load_model(lu.save_model(model, tmp_path / "m"))
    assert torch.equal(again(ids)[0], model(ids)[0])


# The switches of the recipe


def names_and_shapes(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


SWITCHES = {
    "position": ("learned", {"position_embedding.weight"}),
    "qk_norm": (False, {"q_norm", "k_norm"}),
    "activation": ("gelu_tanh", set()),
    "init": ("scaled", set()),
    "logit_softcap": (None, set()),
    "pad_vocab_to": (1, {"token_embedding.weight", "head.weight"}),
}
RECIPE = dict(
    activation="relu2", init="zero", logit_softcap=15.0, pad_vocab_to=64
)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_the_parameters_that_it_names_and_no_others(name):
    other, touched = SWITCHES[name]
    on = names_and_shapes(lu.GPT(shape(**RECIPE)))
    off = names_and_shapes(lu.GPT(shape(**{**RECIPE, name: other})))
    differ = {n for n in on | off if on.get(n) != off.get(n)}
    assert all(any(t in n for t in touched) for n in differ)
    assert bool(differ) == bool(touched)


@pytest.mark.parametrize(
    "name", ["position", "qk_norm", "activation", "logit_softcap"]
)
def test_a_switch_that_computes_computes_something_else(name, ids):
    """With the same weights wherever both have them, all random."""
    on = randomised(shape(**RECIPE))
    off = randomised(shape(**{**RECIPE, name: SWITCHES[name][0]}))
    off.load_state_dict(on.state_dict(), strict=False)
    assert (on(ids)[0] - off(ids)[0]).abs().max() > 1e-3


def test_padding_and_first_weights_compute_the_same_function(ids):
    """Padded rows are seen by nobody, and init decides only the beginning."""
    on = randomised(shape(**RECIPE))
    for name in ("init", "pad_vocab_to"):
        off = lu.GPT(shape(**{**RECIPE, name: SWITCHES[name][0]})).eval()
        state = {
            n: p[: off.state_dict()[n].shape[0]]
            for n, p in on.state_dict().items()
        }
        off.load_state_dict(state)
        assert on(ids)[0].shape == (3, 24, 97)
        assert torch.allclose(on(ids)[0], off(ids)[0], atol=1e-6), name


def test_the_soft_cap_bounds_and_keeps_the_order(ids):
    capped = randomised(shape(**RECIPE))
    free = randomised(shape(**{**RECIPE, "logit_softcap": None}))
    with torch.no_grad():
        for model in (capped, free):
            model.head.weight *= 10
        a, b = capped(ids)[0], free(ids)[0]
    assert b.abs().max() > 15 > a.abs().max()
    assert torch.allclose(a, 15 * torch.tanh(b / 15), atol=1e-4)


def test_zero_projections_let_the_stream_through(ids):
    model = lu.GPT(shape(**RECIPE)).eval()
    x = model.token_embedding(ids)
    assert torch.equal(model(ids, hidden=True), model.norm(x))


def test_a_cool_down_falls_to_nothing_and_a_constant_rate_does_not():
    wsd = lu.TrainConfig(steps=100, warmup_steps=10, cooldown=0.5)
    constant = replace(wsd, schedule="constant")
    rates = [
        [lu.learning_rate(s, c) for s in range(100)] for c in (wsd, constant)
    ]
    assert rates[0][:51] == rates[1][:51] and rates[1][99] == 3e-3
    steps = [a - b for a, b in zip(rates[0][51:], rates[0][52:], strict=False)]
    assert steps == pytest.approx([3e-3 / 50] * len(steps))


# The record


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def test_the_record_says_how_it_was_made(record):
    assert {"command", "date", "hardware", "versions"} <= set(record["about"])
    assert "lab_ablations" in record["about"]["command"]


def test_each_run_stands_once_with_three_seeds(record):
    known = {
        f.name for k in (lu.ModelConfig, lu.TrainConfig) for f in fields(k)
    }
    seeds = {}
    for run in record["runs"]:
        assert set(run["settings"]) <= known | {"documents"}
        assert run["loss"] is None or 0.5 < run["loss"] < 12
        arm = json.dumps(run["settings"], sort_keys=True)
        seeds.setdefault(arm, []).append(run["seed"])
    assert len(seeds) > 50
    assert all(sorted(s) == [0, 1, 2] for s in seeds.values())


def test_the_lab_finds_all_its_runs_in_the_record(
    record, tmp_path, monkeypatch
):
    """Its cells that read the record run, and nothing is trained or written."""
    if not (ROOT / "artifacts" / "pocket" / "shards").exists():
        pytest.skip("the pocket shards are missing: run `make ch02` first")
    monkeypatch.setenv("LLM_PRESET", "pocket")
    monkeypatch.delenv("LLM_FULL", raising=False)
    before = RECORD.read_bytes()
    cells = {c.id: c.source for c in nbformat.read(LAB, 4).cells}
    space = {"__name__": "lab"}
    more = ("abl-equal-time", "abl-mup-grid")
    reading = [i for i in cells if i.endswith("-runs") or i in more]
    assert len(reading) >= 11
    for name in (
        "setup",
        "base",
        "few",
        "build",
        "record",
        "recorded",
        "timed",
    ):
        exec(cells[f"abl-{name}"], space)
    space["train"] = lambda *a, **k: pytest.fail("a run is not in the record")
    for name in reading:
        exec(cells[name], space)
    assert RECORD.read_bytes() == before
    with pytest.raises(KeyError, match="LLM_FULL"):
        space["recorded"](learning_rate=0.123)

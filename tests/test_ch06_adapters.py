"""Chapter 6: adapters on the disk, and what must not be loaded."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import llm_utils as lu

IDS = torch.arange(40)[None] % 70


def random_model(seed=1, **changes):
    """A tiny model, every parameter random."""
    shape = dict(vocab_size=70, context_length=48, n_layer=2, d_model=32)
    shape |= dict(n_head=2, n_kv_head=1, d_ff=64)
    model = lu.GPT(lu.ModelConfig(**{**shape, **changes}))
    return shaken(model, seed).eval()


def shaken(model, seed=2):
    """The model with random values in every parameter that can move."""
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_(0, 0.2, generator=dice)
    return model


@pytest.fixture
def base():
    return random_model()


@pytest.fixture
def adapted(base):
    return shaken(lu.add_lora(copy.deepcopy(base), rank=3, alpha=7))


def state_of(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rewritten(folder, change):
    """The folder with its tensors changed, and a hash that fits them."""
    file, told = folder / "adapter.safetensors", folder / "adapter.json"
    save_file(change(load_file(file)), file)
    about = lu.read_json(told) | {"sha256": lu.sha256_file(file)}
    told.write_text(json.dumps(about))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "targets",
    [("q_proj",), ("q_proj", "v_proj", "o_proj"), ("proj",)],
    ids=["one", "three", "all"],
)
def test_a_round_trip_gives_every_bit_back(tmp_path, base, targets, dtype):
    base = base.to(dtype)
    made = lu.add_lora(copy.deepcopy(base), rank=5, alpha=11, targets=targets)
    folder = lu.save_lora(shaken(made), tmp_path / "a", steps=3)
    again = lu.load_lora(copy.deepcopy(base), folder)
    assert same(state_of(made), state_of(again))
    assert torch.equal(made(IDS)[0], again(IDS)[0])
    for one, other in zip(made.parameters(), again.parameters(), strict=True):
        assert one.dtype == other.dtype
        assert one.requires_grad == other.requires_grad
    lu.merge_lora(made), lu.merge_lora(again)
    assert same(state_of(made), state_of(again))


def test_only_the_adapters_are_written(tmp_path, adapted):
    folder = lu.save_lora(adapted, tmp_path / "a", base_sha256="f" * 64)
    assert {f.name for f in folder.iterdir()} == {
        "adapter.safetensors",
        "adapter.json",
    }
    state = load_file(folder / "adapter.safetensors")
    own = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert state.keys() == own and all("lora" in name for name in own)
    about = lu.read_json(folder / "adapter.json")
    assert about == {
        "rank": 3,
        "alpha": 7.0,
        "targets": ["q_proj", "v_proj"],
        "base_sha256": "f" * 64,
        "sha256": lu.sha256_file(folder / "adapter.safetensors"),
    }


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_a_truncated_file_is_not_loaded(tmp_path, base, adapted, keep):
    file = lu.save_lora(adapted, tmp_path / "a") / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    before = state_of(base)
    with pytest.raises(ValueError, match="truncated or altered"):
        lu.load_lora(base, tmp_path / "a")
    assert same(state_of(base), before)


def test_one_bit_is_noticed(tmp_path, base, adapted):
    file = lu.save_lora(adapted, tmp_path / "a") / "adapter.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 16
    file.write_bytes(data)
    with pytest.raises(ValueError, match="truncated or altered"):
        lu.load_lora(base, tmp_path / "a")


@pytest.mark.parametrize(
    "changes, named",
    [
        (dict(d_model=64), "blocks.0.attention.q_proj.lora_a is"),
        (dict(n_layer=1), "blocks.1.attention.q_proj.lora_a is .* missing"),
        (dict(n_layer=3), "blocks.2.attention.q_proj.lora_a is missing"),
        (dict(n_kv_head=2), "blocks.0.attention.v_proj.lora_b is"),
    ],
)
def test_another_model_is_refused_and_stays(tmp_path, adapted, changes, named):
    lu.save_lora(adapted, tmp_path / "a")
    other = random_model(**changes)
    before = state_of(other)
    with pytest.raises(ValueError, match=f"does not fit this model: {named}"):
        lu.load_lora(other, tmp_path / "a")
    assert same(state_of(other), before)
    assert all(p.requires_grad for p in other.parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda state: dict(list(state.items())[1:]),
        lambda state: state | {"blocks.9.q_proj.lora_a": torch.zeros(3, 32)},
        lambda state: {name: t[..., :-1].clone() for name, t in state.items()},
        lambda state: {},
    ],
    ids=["one less", "one more", "narrower", "none"],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, base, adapted, change):
    folder = lu.save_lora(adapted, tmp_path / "a")
    rewritten(folder, change)
    before = state_of(base)
    with pytest.raises(ValueError, match="does not fit this model"):
        lu.load_lora(base, folder)
    assert same(state_of(base), before)


def test_layers_that_are_not_there(tmp_path, base, adapted):
    told = lu.save_lora(adapted, tmp_path / "a") / "adapter.json"
    about = lu.read_json(told)
    told.write_text(json.dumps(about | {"targets": ["c_attn"]}))
    with pytest.raises(ValueError, match="does not fit this model"):
        lu.load_lora(base, tmp_path / "a")
    del about["targets"], about["alpha"]
    told.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="has no 'alpha', 'targets'"):
        lu.load_lora(base, tmp_path / "a")
    told.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        lu.load_lora(base, tmp_path / "a")


def test_a_model_with_adapters_takes_no_more(tmp_path, adapted):
    lu.save_lora(adapted, tmp_path / "a")
    before = state_of(adapted)
    with pytest.raises(ValueError, match="does not fit this model"):
        lu.load_lora(adapted, tmp_path / "a")
    assert same(state_of(adapted), before)


def test_the_weights_they_were_made_on(tmp_path, base, adapted):
    folder = lu.save_lora(adapted, tmp_path / "a", base_sha256="one")
    with pytest.raises(ValueError, match="other weights"):
        lu.load_lora(base, folder, base_sha256="another")
    again = lu.load_lora(base, folder, base_sha256="one")
    assert same(state_of(again), state_of(adapted))


@pytest.mark.parametrize("name", ["adapter.safetensors", "adapter.json"])
def test_a_missing_file_is_named(tmp_path, base, adapted, name):
    folder = lu.save_lora(adapted, tmp_path / "a")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        lu.load_lora(base, folder)


def test_what_cannot_be_saved_leaves_the_old_folder(tmp_path, base, adapted):
    folder = lu.save_lora(adapted, tmp_path / "a")
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    with pytest.raises(ValueError, match="no adapters"):
        lu.save_lora(base, folder)
    with pytest.raises(ValueError, match="not for the caller"):
        lu.save_lora(adapted, folder, rank=8)
    with pytest.raises(TypeError):
        lu.save_lora(adapted, folder, steps=torch.tensor(1))
    adapted.blocks[1].attention.q_proj = adapted.blocks[
        1
    ].attention.q_proj.merged()
    with pytest.raises(ValueError, match="in every layer called"):
        lu.save_lora(adapted, folder)
    adapted.blocks[1].attention.q_proj = lu.LoRALinear(
        adapted.blocks[1].attention.q_proj, rank=4
    )
    with pytest.raises(ValueError, match="one rank and alpha"):
        lu.save_lora(adapted, folder)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
    assert [f.name for f in tmp_path.iterdir()] == ["a"]

"""Chapter 4 with strangers: files as the public has them, and small numbers."""

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_ch04 import TINY, classic, modern, randomise, some_ids

import llm_utils as lu

CLOSE = dict(rtol=1e-5, atol=1e-5)
CONFIGS = {
    "gpt2": classic(),
    "gpt2, erf, untied": classic(activation="gelu", tie_embeddings=False),
    "llama": modern(qk_norm=False, rope_theta=500.0, tie_embeddings=False),
    "llama, tied, multi-query": modern(qk_norm=False, n_kv_head=1),
    "qwen3": modern(norm_eps=1e-3),
    "qwen3, untied, all heads": modern(n_kv_head=4, tie_embeddings=False),
}


def their_model(kind, **changes):
    """A model that transformers made, every parameter random."""
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        LlamaConfig,
        Qwen3Config,
    )

    if kind == "gpt2":
        config = GPT2Config(
            **{
                **dict(vocab_size=97, n_positions=64, n_embd=48),
                **dict(n_layer=3, n_head=4, n_inner=80),
                **changes,
            }
        )
    else:
        config = {"llama": LlamaConfig, "qwen3": Qwen3Config}[kind](
            **{
                **dict(vocab_size=97, hidden_size=48, num_hidden_layers=3),
                **dict(num_attention_heads=4, num_key_value_heads=2),
                **dict(intermediate_size=80, max_position_embeddings=64),
                **dict(head_dim=12),
                **changes,
            }
        )
    return randomise(AutoModelForCausalLM.from_config(config))


def their_logits(folder, ids, **options):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    assert not any(p.isnan().any() for p in model.parameters())
    return model(ids).logits


# --- both ways ----------------------------------------------------------------


@pytest.mark.parametrize("name", list(CONFIGS))
@torch.no_grad()
def test_ours_there_to_five_places(name, tmp_path):
    ours, ids = randomise(lu.GPT(CONFIGS[name])), some_ids(3, 64)
    folder = lu.to_transformers(ours, None, tmp_path / "theirs")
    logits = ours(ids)[0]
    assert logits.abs().max() > 1  # else 1e-5 would mean little
    torch.testing.assert_close(their_logits(folder, ids), logits, **CLOSE)


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("gpt2", {}),
        ("gpt2", {"n_inner": None, "activation_function": "gelu"}),
        ("gpt2", {"activation_function": "gelu_pytorch_tanh"}),
        ("gpt2", {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-2}),
        ("llama", {}),
        ("llama", {"num_key_value_heads": None, "rms_norm_eps": 1e-2}),
        ("llama", {"tie_word_embeddings": True}),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 500.0,
                }
            },
        ),
        ("qwen3", {}),
        ("qwen3", {"tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    ],
)
@torch.no_grad()
def test_theirs_here_to_five_places(kind, changes, tmp_path):
    theirs, ids = their_model(kind, **changes), some_ids(3, 64)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = lu.from_transformers(tmp_path / "theirs")
    torch.testing.assert_close(ours(ids)[0], theirs(ids).logits, **CLOSE)
    again = lu.to_transformers(ours, None, tmp_path / "again")
    torch.testing.assert_close(
        their_logits(again, ids), theirs(ids).logits, **CLOSE
    )


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
@torch.no_grad()
def test_weights_in_half_precision_come_as_float32(kind, tmp_path):
    folder = tmp_path / "theirs"
    their_model(kind).to(torch.bfloat16).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors").values()
    assert {z.dtype for z in tensors} == {torch.bfloat16}
    ours, ids = lu.from_transformers(folder), some_ids(2, 20)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    theirs = their_logits(folder, ids, dtype=torch.float32)
    torch.testing.assert_close(ours(ids)[0], theirs, **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "qwen3, untied, all heads"])
@torch.no_grad()
def test_rows_that_pad_the_vocabulary_stay_at_home(name, tmp_path):
    plain = CONFIGS[name]
    config = lu.ModelConfig.from_dict(plain.to_dict() | {"pad_vocab_to": 64})
    ours, ids = randomise(lu.GPT(config)), some_ids(3, 64)
    assert ours.token_embedding.weight.shape[0] == 128
    folder = lu.to_transformers(ours, None, tmp_path / "theirs")
    assert lu.read_json(folder / "config.json")["vocab_size"] == 97
    tensors = load_file(folder / "model.safetensors")
    assert 128 not in {n for z in tensors.values() for n in z.shape}
    logits = ours(ids)[0]
    assert logits.shape[-1] == 97
    torch.testing.assert_close(their_logits(folder, ids), logits, **CLOSE)
    back = lu.from_transformers(folder)
    assert back.config == plain
    torch.testing.assert_close(back(ids)[0], logits, **CLOSE)


def test_a_model_in_bfloat16_is_written_as_config_says(tmp_path):
    ours = randomise(lu.GPT(modern())).to(torch.bfloat16)
    folder = lu.to_transformers(ours, None, tmp_path / "theirs")
    assert lu.read_json(folder / "config.json")["dtype"] == "float32"
    tensors = load_file(folder / "model.safetensors").values()
    assert {z.dtype for z in tensors} == {torch.float32}


# --- files as they are about --------------------------------------------------


def spellings(tensors, tied):
    """The same GPT-2 in the ways in which public files have it."""
    bare = {n.removeprefix("transformer."): z for n, z in tensors.items()}
    masks = {
        f"h.{i}.attn.{n}": z
        for i in range(TINY["n_layer"])
        for n, z in (
            ("bias", torch.ones(1, 1, 64, 64).tril()),
            ("masked_bias", torch.tensor(-1e4)),
        )
    }
    full = {f"transformer.{n}": z for n, z in masks.items()}
    head = {"lm_head.weight": bare["wte.weight"].clone()} if tied else {}
    for a, b in ((tensors, full), (bare, masks)):
        for extra in ({}, b, head, b | head):
            yield a | extra


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_every_spelling_of_a_gpt2(tied, tmp_path):
    ours, ids = randomise(lu.GPT(classic(tie_embeddings=tied))), some_ids(2, 64)
    folder = lu.to_transformers(ours, None, tmp_path / "theirs")
    right = load_file(folder / "model.safetensors")
    for tensors in spellings(right, tied):
        save_file(tensors, folder / "model.safetensors")
        assert torch.equal(lu.from_transformers(folder)(ids)[0], ours(ids)[0])


def test_a_tied_head_that_is_another_is_refused(tmp_path):
    folder = lu.to_transformers(
        randomise(lu.GPT(classic())), None, tmp_path / "theirs"
    )
    tensors = load_file(folder / "model.safetensors")
    head = tensors["transformer.wte.weight"] + 1
    save_file(tensors | {"lm_head.weight": head}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="head and embedding are one"):
        lu.from_transformers(folder)


def test_a_missing_head_is_named(tmp_path):
    folder = lu.to_transformers(
        randomise(lu.GPT(CONFIGS["llama"])), None, tmp_path / "theirs"
    )
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="no tensor lm_head.weight"):
        lu.from_transformers(folder)


@pytest.mark.parametrize(
    "extra",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.7.mlp.up_proj.weight",
    ],
)
def test_a_tensor_too_many_is_named(extra, tmp_path):
    folder = lu.to_transformers(
        randomise(lu.GPT(modern())), None, tmp_path / "theirs"
    )
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {extra: torch.ones(48)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=extra.removeprefix("model.")):
        lu.from_transformers(folder)


@pytest.fixture
def shards(tmp_path):
    """A folder of several shards, and the model that was cut."""
    model = their_model("qwen3")
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    return tmp_path / "shards", model


@torch.no_grad()
def test_shards_are_read_together(shards):
    folder, theirs = shards
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    ids = some_ids(2, 30)
    ours = lu.from_transformers(folder)(ids)[0]
    torch.testing.assert_close(ours, theirs(ids).logits, **CLOSE)
    # another model's weights lying about are not this model's
    save_file({"lora": torch.ones(2)}, folder / "adapter_model.safetensors")
    assert torch.equal(lu.from_transformers(folder)(ids)[0], ours)


def test_shards_that_are_not_whole_are_refused(shards):
    folder, _ = shards
    last = sorted(folder.glob("model-*.safetensors"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-7])
    with pytest.raises(ValueError, match=f"{last.name} is cut short"):
        lu.from_transformers(folder)
    last.unlink()
    with pytest.raises(FileNotFoundError, match=f"{last.name} is missing"):
        lu.from_transformers(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors is missing"):
        lu.from_transformers(folder)


# --- what is not the same function --------------------------------------------


@pytest.mark.parametrize(
    "config, words",
    [
        (modern(logit_softcap=30.0), "logit_softcap must be None, not 30.0"),
        (modern(window=8), "window must be None, not 8"),
        (modern(activation="relu2"), "activation must be 'swiglu'"),
        (modern(norm_position="post"), "norm_position must be 'pre'"),
        (modern(position="none"), "position must be 'rope', not 'none'"),
        (modern(bias=True), "bias must be False, not True"),
        (classic(qk_norm=True), "gpt2, the nearest, qk_norm must be False"),
        (classic(n_kv_head=2), "n_kv_head must be n_head"),
        (classic(activation="relu2"), "'gelu_tanh' or 'gelu', not 'relu2'"),
    ],
)
def test_a_function_of_our_own_is_not_written(config, words, tmp_path):
    with pytest.raises(ValueError, match=f"no layout.*{words}"):
        lu.to_transformers(lu.GPT(config), None, tmp_path / "theirs")
    assert list(tmp_path.iterdir()) == []


def test_a_new_field_is_never_dropped_in_silence(monkeypatch, tmp_path):
    """A field that the layouts have not heard of must have its default."""
    from dataclasses import field, make_dataclass

    Wider = make_dataclass(
        "Wider", [("wings", int, field(default=0))], bases=(lu.ModelConfig,)
    )
    model = lu.GPT(modern())
    model.config = Wider(**model.config.to_dict(), wings=2)
    with pytest.raises(ValueError, match="wings must be 0, not 2"):
        lu.to_transformers(model, None, tmp_path / "theirs")


@pytest.mark.parametrize(
    "kind, change, words",
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "not divided"),
        ("gpt2", {"scale_attn_weights": False}, "not divided"),
        ("gpt2", {"activation_function": "relu"}, "another activation, relu"),
        ("gpt2", {"add_cross_attention": True}, "attention to another"),
        ("llama", {"mlp_bias": True}, "biases"),
        (
            "llama",
            {"rope_parameters": None, "rope_scaling": {"type": "linear"}},
            "scaled RoPE",
        ),
        ("qwen3", {"use_sliding_window": True}, "sliding window"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 3}, "sliding"),
    ],
)
def test_what_another_setting_computes_is_refused(
    kind, change, words, tmp_path
):
    config = {"gpt2": classic(), "llama": CONFIGS["llama"]}.get(kind, modern())
    folder = lu.to_transformers(lu.GPT(config), None, tmp_path / "theirs")
    values = lu.read_json(folder / "config.json")
    lu.write_json(folder / "config.json", values | change)
    with pytest.raises(ValueError, match=words):
        lu.from_transformers(folder)


@pytest.mark.parametrize(
    "kind, name", [("gpt2", "n_embd"), ("qwen3", "intermediate_size")]
)
def test_a_setting_that_is_missing_is_named(kind, name, tmp_path):
    config = classic() if kind == "gpt2" else modern()
    folder = lu.to_transformers(lu.GPT(config), None, tmp_path / "theirs")
    values = lu.read_json(folder / "config.json")
    del values[name]
    lu.write_json(folder / "config.json", values)
    with pytest.raises(ValueError, match=f"does not say {name}"):
        lu.from_transformers(folder)


# --- faults that shapes do not show -------------------------------------------


def silent_faults(tensors):
    """(what, tensors) of every fault in a block that all shapes allow."""
    block = {n: z for n, z in tensors.items() if ".1." in n}
    for name, z in block.items():
        if z.dim() == 2 and z.shape[0] == z.shape[1]:
            yield f"{name} transposed", {name: z.T.contiguous()}
    for (a, x), (b, y) in itertools.combinations(block.items(), 2):
        if x.shape == y.shape:
            yield f"{a} and {b} exchanged", {a: y.clone(), b: x.clone()}


@pytest.mark.parametrize("name", ["gpt2", "qwen3, untied, all heads"])
@torch.no_grad()
def test_logits_show_what_shapes_do_not(name, tmp_path):
    ours, ids = randomise(lu.GPT(CONFIGS[name])), some_ids(1, 30)
    folder = lu.to_transformers(ours, None, tmp_path / "theirs")
    right, logits = load_file(folder / "model.safetensors"), ours(ids)[0]
    faults = dict(silent_faults(right))
    assert any("transposed" in what for what in faults)
    for what, spoiled in faults.items():
        if "k_proj.bias" in what:
            continue
        save_file(right | spoiled, folder / "model.safetensors")
        off = (lu.from_transformers(folder)(ids)[0] - logits).abs().max()
        assert off > 1e-3, what


# --- the norm's epsilon -------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-12, 1e-6, 1e-5, 1e-2])
def test_epsilon_is_the_border_between_small_and_sized(eps):
    """A vector of size s comes out of size s / √(s² + ε)."""
    x = torch.randn(512, generator=torch.Generator().manual_seed(0))
    x = x - x.mean()
    x = x / x.square().mean().sqrt()
    for scale in (1e-5, 1e-3, 0.02, 1.0, 100.0):
        for norm in (lu.RMSNorm(512, eps), lu.LayerNorm(512, eps)):
            out = norm(scale * x).square().mean().sqrt().item()
            expected = scale / (scale**2 + eps) ** 0.5
            assert out == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_add_up_in_float32(dtype):
    """Where squares vanish or overflow in the format, ours stay right."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(9, 512, generator=g) * torch.logspace(-4, 4, 9)[:, None]
    x = x.clamp(-6e4, 6e4).to(dtype)
    for make in (lu.RMSNorm, lu.LayerNorm):
        norm = make(512, 1e-6)
        torch.testing.assert_close(
            norm(x).float(), norm(x.float()), rtol=1e-2, atol=1e-2
        )
        assert norm(x).isfinite().all()

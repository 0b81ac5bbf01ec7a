"""Chapter 4: the model, its price, its twins elsewhere, and its folder."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import llm_utils as lu

TINY = dict(vocab_size=97, context_length=64, n_layer=3, d_model=48, n_head=4,
            d_ff=80)


def classic(**changes):
    return lu.ModelConfig.preset("gpt2-124m-classic", **{**TINY, **changes})


def modern(**changes):
    return lu.ModelConfig(**{**TINY, "n_kv_head": 2, **changes})


CONFIGS = {
    "classic": classic(),
    "modern": modern(),
    "post-norm": classic(norm_position="post", activation="gelu"),
    "relu2, multi-query, untied": modern(
        activation="relu2", n_kv_head=1, tie_embeddings=False),
    "no positions": modern(position="none", qk_norm=False),
    "layernorm with rope": modern(norm="layernorm", bias=True),
}


def randomise(model, seed=0):
    """Every parameter random: zeros and ones would hide a wrong mapping."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / 5
                    + 0.5 * (p.dim() < 2))
    return model.eval()


def some_ids(*shape, seed=0):
    return torch.randint(
        97, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=list(CONFIGS), ids=list(CONFIGS))
def model(request):
    return randomise(lu.GPT(CONFIGS[request.param]))


# --- parts --------------------------------------------------------------------


@given(rows=st.integers(1, 9), width=st.integers(2, 40),
       eps=st.sampled_from([1e-6, 1e-5, 1e-2]))
def test_norms_are_torchs(rows, width, eps):
    for ours, theirs in (
            (lu.LayerNorm(width, eps), nn.LayerNorm(width, eps)),
            (lu.LayerNorm(width, eps, bias=False),
             nn.LayerNorm(width, eps, bias=False)),
            (lu.RMSNorm(width, eps), nn.RMSNorm(width, eps))):
        theirs.load_state_dict(randomise(ours).state_dict())
        x = torch.randn(rows, width).requires_grad_()
        outs = ours(x), theirs(x)
        torch.testing.assert_close(*outs)
        grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in outs]
        torch.testing.assert_close(*grads)


def test_epsilon_saves_a_dead_vector():
    zeros = torch.zeros(1, 8)
    for norm in (lu.LayerNorm, lu.RMSNorm):
        assert torch.equal(norm(8)(zeros), zeros)
        assert norm(8, 0.0)(zeros).isnan().all()


def test_swiglu_is_llamas():
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    ours = randomise(lu.FeedForward(48, 80, "swiglu"))
    theirs = LlamaMLP(LlamaConfig(
        hidden_size=48, intermediate_size=80, num_attention_heads=4))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 48)
    torch.testing.assert_close(ours(x), theirs(x))


def test_other_bends():
    x = torch.randn(2, 5, 48)
    for name, bend in (("gelu", nn.GELU()), ("gelu_tanh", nn.GELU("tanh")),
                       ("relu2", lambda z: torch.relu(z) ** 2)):
        layer = randomise(lu.FeedForward(48, 80, name, bias=True))
        torch.testing.assert_close(
            layer(x), layer.down_proj(bend(layer.up_proj(x))))


@pytest.mark.parametrize("where", ["pre", "post"])
def test_block_is_torchs_in_either_form(where):
    """nn.TransformerEncoderLayer, under a causal mask, is the same block."""
    config = classic(activation="gelu", norm_position=where, position="none")
    ours, C = randomise(lu.Block(config)), config.d_model
    theirs = nn.TransformerEncoderLayer(
        C, config.n_head, config.d_ff, 0.0, "gelu", config.norm_eps,
        batch_first=True, norm_first=where == "pre")
    state, names = ours.state_dict(), {
        "attention.o_proj": "self_attn.out_proj",
        "attention_norm": "norm1", "feed_forward_norm": "norm2",
        "feed_forward.up_proj": "linear1", "feed_forward.down_proj": "linear2"}
    twin = {f"{b}.{kind}": state[f"{a}.{kind}"]
            for a, b in names.items() for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        twin[f"self_attn.in_proj_{kind}"] = torch.cat(
            [state[f"attention.{p}_proj.{kind}"] for p in "qkv"])
    theirs.load_state_dict(twin)
    x = torch.randn(2, 9, C)
    torch.testing.assert_close(
        ours(x), theirs(x, src_mask=~lu.causal_mask(9)), rtol=1e-4, atol=1e-4)


# --- promises -----------------------------------------------------------------


@torch.no_grad()
def test_future_never_changes_the_past(model):
    ids = some_ids(2, 40)
    changed = ids.clone()
    changed[:, 25] = (ids[:, 25] + 1) % 97
    before, after = model(ids)[0], model(changed)[0]
    assert torch.equal(before[:, :25], after[:, :25])
    assert (before[:, 25:] != after[:, 25:]).any(-1).all()


@torch.no_grad()
def test_cache_is_no_cache_in_chunks(model):
    ids = some_ids(2, 64)
    whole = model(ids)[0]
    for pieces in ([64], [1] * 64, [30, 1, 1, 32], [5, 40, 19]):
        cache = model.new_cache()
        parts = [model(part, cache=cache)[0]
                 for part in ids.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), whole,
                                   rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_padding_at_the_left_changes_nothing(model):
    ids, pad = some_ids(3, 20), [0, 3, 11]
    batch = some_ids(3, 20, seed=1)  # other padding in every row
    for row, n in enumerate(pad):
        batch[row, n:] = ids[row, : 20 - n]
    pad = torch.tensor(pad)
    logits, cache = model(batch, left_pad=pad)[0], model.new_cache()
    parts = [model(part, cache=cache, left_pad=pad)[0]
             for part in batch.split([13, 1, 6], dim=1)]
    for row, n in enumerate(pad.tolist()):
        alone = model(ids[row : row + 1, : 20 - n])[0][0]
        for padded in (logits, torch.cat(parts, 1)):
            torch.testing.assert_close(padded[row, n:], alone,
                                       rtol=1e-4, atol=1e-4)


def test_loss_is_the_mean_surprise(model):
    ids, targets = some_ids(2, 10), some_ids(2, 10, seed=1)
    targets[0, :4] = -100
    logits, loss = model(ids, targets)
    logp = logits.log_softmax(-1)
    own = [-logp[b, t, targets[b, t]] for b in range(2) for t in range(10)
           if targets[b, t] != -100]
    torch.testing.assert_close(loss, torch.stack(own).mean())
    assert model(ids)[1] is None


def test_hidden_states_lead_to_the_logits(model):
    ids = some_ids(2, 10)
    hidden = model(ids, hidden=True)
    assert hidden.shape == (2, 10, 48)
    torch.testing.assert_close(model.head(hidden), model(ids)[0])


def test_every_parameter_learns(model):
    model(some_ids(2, 30), some_ids(2, 30, seed=1))[1].backward()
    assert [n for n, p in model.named_parameters()
            if p.grad is None or not p.grad.any()
            # a bias of the keys moves all scores of a query alike
            and "k_proj.bias" not in n] == []


@settings(max_examples=25)
@given(data=st.data())
def test_any_shape_counts_and_runs(data):
    heads = data.draw(st.sampled_from([1, 2, 4, 6]))
    divisors = [n for n in (1, 2, 3, 4, 6) if heads % n == 0]
    config = lu.ModelConfig(
        vocab_size=data.draw(st.integers(2, 50)), context_length=16,
        n_layer=data.draw(st.integers(1, 3)), n_head=heads,
        n_kv_head=data.draw(st.sampled_from(divisors)),
        d_model=heads * 2 * data.draw(st.integers(1, 4)),
        d_ff=data.draw(st.integers(1, 40)), bias=data.draw(st.booleans()),
        qk_norm=data.draw(st.booleans()),
        tie_embeddings=data.draw(st.booleans()),
        norm=data.draw(st.sampled_from(["layernorm", "rmsnorm"])),
        position=data.draw(st.sampled_from(["learned", "rope", "none"])),
        activation=data.draw(st.sampled_from(
            ["gelu", "gelu_tanh", "swiglu", "relu2"])))
    model = lu.GPT(config)
    assert lu.count_parameters(model) == sum(
        lu.parameter_table(config).values())
    ids = torch.zeros(2, data.draw(st.integers(1, 16)), dtype=torch.long)
    logits, loss = model(ids, ids)
    assert logits.shape == (*ids.shape, config.vocab_size)
    assert torch.isfinite(loss)


# --- settings -----------------------------------------------------------------


@pytest.mark.parametrize("changes, words", [
    ({"d_model": 50}, "must divide"), ({"n_kv_head": 3}, "must divide"),
    ({"norm": "batch"}, "norm must be"), ({"n_layer": 0}, "from 1"),
    ({"vocab_size": 2.5}, "whole number"), ({"init": "xavier"}, "init must"),
    ({"d_model": 12}, "even")])
def test_settings_that_do_not_fit(changes, words):
    with pytest.raises(ValueError, match=words):
        modern(**changes)


def test_settings_survive_json():
    for config in CONFIGS.values():
        text = json.dumps(config.to_dict())
        assert lu.ModelConfig.from_dict(json.loads(text)) == config
    with pytest.raises(ValueError, match="unknown.*wings"):
        lu.ModelConfig.from_dict({"wings": 2})
    with pytest.raises(ValueError, match="no preset"):
        lu.ModelConfig.preset("gpt3")


def test_ids_longer_than_the_context(model):
    with pytest.raises(ValueError, match="65 ids are longer.*64"):
        model(some_ids(1, 65))
    cache = model.new_cache()
    model(some_ids(1, 60), cache=cache)
    with pytest.raises(ValueError, match="65 ids are longer"):
        model(some_ids(1, 5), cache=cache)
    assert cache[0].length == 60
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        model(some_ids(5))


# --- the start ----------------------------------------------------------------


def test_initialisation_is_local_and_repeatable():
    torch.manual_seed(1)
    first = lu.GPT(modern())
    torch.manual_seed(2)
    second = lu.GPT(modern())
    other = lu.GPT(modern(), torch.Generator().manual_seed(5))
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("init, factor", [
    ("plain", 1.0), ("scaled", 1 / math.sqrt(6)), ("zero", 0.0)])
def test_initialisation_has_the_sizes_it_promises(init, factor):
    config = classic(d_model=128, n_head=4, d_ff=256, init=init)
    for name, p in lu.GPT(config).named_parameters():
        if p.dim() == 1:
            assert (p == (0 if name.endswith("bias") else 1)).all()
        else:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            expected = 0.02 * (factor if writes else 1)
            assert p.std().item() == pytest.approx(expected, rel=0.05)


def test_tied_head_is_the_embedding():
    tied, untied = lu.GPT(modern()), lu.GPT(modern(tie_embeddings=False))
    assert tied.head.weight is tied.token_embedding.weight
    assert lu.count_parameters(untied) - lu.count_parameters(tied) == 97 * 48


# --- the price ----------------------------------------------------------------


def test_gpt2_has_its_124439808_parameters():
    with torch.device("meta"):
        ours = lu.count_parameters(
            lu.GPT(lu.ModelConfig.preset("gpt2-124m-classic")))
        modern = lu.count_parameters(
            lu.GPT(lu.ModelConfig.preset("gpt2-124m")))
    assert ours == 124_439_808
    assert abs(modern / ours - 1) < 0.02


@pytest.mark.parametrize("name", ["smoke", "pocket"])
def test_small_presets_are_of_the_planned_size(name):
    config = lu.ModelConfig.preset(name)
    low, high = {"smoke": (2e5, 6e5), "pocket": (2e6, 5e6)}[name]
    assert low <= lu.count_parameters(lu.GPT(config)) <= high
    assert config.d_head >= 32


def test_count_parameters_that_learn():
    model = lu.GPT(modern())
    model.requires_grad_(False)
    model.norm.requires_grad_(True)
    assert lu.count_parameters(model, trainable=True) == 48


@pytest.mark.parametrize("name", list(CONFIGS))
def test_flops_are_those_that_torch_counts(name):
    from torch.utils.flop_counter import FlopCounterMode

    config, ids = CONFIGS[name], some_ids(2, 32)
    with FlopCounterMode(display=False) as counter:
        with torch.autocast("cpu", torch.bfloat16):
            _, loss = lu.GPT(config)(ids, ids)
        forward = counter.get_total_flops()
        loss.backward()
    each = ids.numel()
    assert forward == each * lu.flops_per_token(config, 32, training=False)
    assert counter.get_total_flops() == each * lu.flops_per_token(config, 32)


def test_memory_is_what_a_step_holds():
    config = modern(d_model=128, d_ff=320)
    model, ids = lu.GPT(config), some_ids(4, 64)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(z):
        if z.untyped_storage().data_ptr() not in own:
            kept[z.untyped_storage().data_ptr()] = z
        return z

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda z: z):
        _, loss = model(ids, ids)
    observed = sum(z.untyped_storage().nbytes() for z in kept.values())
    predicted = lu.memory_bytes(config, 4, 64)
    assert observed == pytest.approx(predicted["activations"], rel=0.1)
    optimizer = torch.optim.AdamW(model.parameters())
    loss.backward()
    optimizer.step()
    assert predicted["gradients"] == sum(
        p.grad.nbytes for p in model.parameters())
    states = [z for s in optimizer.state.values() for z in s.values()]
    assert predicted["optimizer"] == sum(z.nbytes for z in states if z.dim())


def test_memory_of_the_cache():
    config, cache = modern(), []
    model = lu.GPT(config)
    cache = model.new_cache()
    model(some_ids(2, 64), cache=cache)
    assert lu.memory_bytes(config, 2, training=False)["cache"] == sum(
        c.kept.nbytes for c in cache)


# --- elsewhere ----------------------------------------------------------------

LAYOUTS = {
    "GPT2LMHeadModel": [classic(), classic(activation="gelu"),
                        classic(tie_embeddings=False, norm_eps=1e-3)],
    "Qwen3ForCausalLM": [modern(), modern(tie_embeddings=False, n_kv_head=1,
                                          norm_eps=1e-2)],
    "LlamaForCausalLM": [modern(qk_norm=False, rope_theta=500.0)],
}
EACH_LAYOUT = [(n, c) for n, configs in LAYOUTS.items() for c in configs]


@pytest.mark.parametrize("name, config", EACH_LAYOUT)
@torch.no_grad()
def test_logits_are_those_of_transformers(name, config, tmp_path):
    from transformers import AutoModelForCausalLM

    ours, ids = randomise(lu.GPT(config)), some_ids(3, 64)
    folder = lu.to_transformers(ours, None, tmp_path / "theirs")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == name
    torch.testing.assert_close(theirs(ids).logits, ours(ids)[0],
                               rtol=1e-4, atol=1e-4)
    theirs.save_pretrained(tmp_path / "again")  # as they write it
    for folder in ("theirs", "again"):
        back = lu.from_transformers(tmp_path / folder)
        assert back.config == config
        assert torch.equal(back(ids)[0], ours(ids)[0])


@torch.no_grad()
def test_a_transposed_square_matrix_is_noticed(tmp_path):
    """Shapes cannot tell; the logits of the test above can."""
    ours, ids = randomise(lu.GPT(classic())), some_ids(1, 30)
    folder = lu.to_transformers(ours, None, tmp_path / "theirs")
    tensors = load_file(folder / "model.safetensors")
    square, oblong = (f"transformer.h.1.{n}.weight"
                      for n in ("attn.c_proj", "mlp.c_proj"))
    save_file({**tensors, square: tensors[square].T.contiguous()},
              folder / "model.safetensors")
    wrong = lu.from_transformers(folder)
    assert (wrong(ids)[0] - ours(ids)[0]).abs().max() > 1e-2
    save_file({**tensors, oblong: tensors[oblong].T.contiguous()},
              folder / "model.safetensors")
    with pytest.raises(ValueError, match="another shape"):
        lu.from_transformers(folder)


def test_names_as_on_the_hub(tmp_path):
    """The first GPT-2 files have no prefix, and masks among the weights."""
    ours = randomise(lu.GPT(classic()))
    folder = lu.to_transformers(ours, None, tmp_path / "theirs")
    tensors = {n.removeprefix("transformer."): z for n, z in load_file(
        folder / "model.safetensors").items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    save_file(tensors, folder / "model.safetensors")
    back = lu.from_transformers(folder)
    assert torch.equal(back(some_ids(1, 9))[0], ours(some_ids(1, 9))[0])


def test_what_has_no_layout_says_so(tmp_path):
    for config in (modern(activation="relu2"), classic(norm_position="post"),
                   modern(position="none")):
        with pytest.raises(ValueError, match="no layout"):
            lu.to_transformers(lu.GPT(config), None, tmp_path / "theirs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change, words", [
    ({"model_type": "bert"}, "cannot load 'bert'"),
    ({"head_dim": 64}, "heads wider"), ({"attention_bias": True}, "biases"),
    ({"hidden_act": "gelu"}, "another activation"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "scaled RoPE")])
def test_what_cannot_be_loaded_says_so(change, words, tmp_path):
    folder = lu.to_transformers(lu.GPT(modern()), None, tmp_path / "theirs")
    values = lu.read_json(folder / "config.json")
    lu.write_json(folder / "config.json", values | change)
    with pytest.raises(ValueError, match=words):
        lu.from_transformers(folder)


def test_a_missing_tensor_is_named(tmp_path):
    folder = lu.to_transformers(lu.GPT(modern()), None, tmp_path / "theirs")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="no tensor model.norm.weight"):
        lu.from_transformers(folder)


# --- the folder ---------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return lu.BPETokenizer.train(["Odo gave Wren the loaf."] * 2, 270)


def with_tokenizer(tokenizer, **changes):
    return randomise(lu.GPT(modern(
        vocab_size=tokenizer.vocab_size, **changes)))


def test_folder_holds_all_that_is_needed(tokenizer, tmp_path):
    model = with_tokenizer(tokenizer)
    folder = lu.save_model(model, tmp_path / "base", tokenizer, {"steps": 7})
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "merges.txt", "model.safetensors", "tokenizer.json",
        "training.json", "vocab.json"]
    again, training = lu.load_model(folder)
    assert training["steps"] == 7 and not again.training
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_saving_again_replaces_the_whole_folder(tokenizer, tmp_path):
    lu.save_model(with_tokenizer(tokenizer), tmp_path / "base", tokenizer)
    other = with_tokenizer(tokenizer, n_layer=1)
    folder = lu.save_model(other, tmp_path / "base")
    assert not (folder / "vocab.json").exists()
    assert lu.load_model(folder)[0].config.n_layer == 1
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("spoil, words", [
    (lambda b: b[: len(b) // 2], "truncated or altered"),
    (lambda b: b[:-1] + bytes([b[-1] ^ 1]), "truncated or altered"),
    (lambda b: b"", "truncated or altered")])
def test_altered_weights_are_refused(spoil, words, tmp_path):
    folder = lu.save_model(randomise(lu.GPT(modern())), tmp_path / "base")
    weights = folder / "model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    with pytest.raises(ValueError, match=words):
        lu.load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json",
                                  "training.json"])
def test_a_missing_file_is_named(name, tmp_path):
    folder = lu.save_model(lu.GPT(modern()), tmp_path / "base")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        lu.load_model(folder)


def test_another_configuration_is_refused(tmp_path):
    folder = lu.save_model(lu.GPT(modern()), tmp_path / "base")
    values = lu.read_json(folder / "config.json")
    for change in ({"d_ff": 96}, {"n_layer": 2}, {"qk_norm": False}):
        lu.write_json(folder / "config.json", values | change)
        with pytest.raises(ValueError, match="does not fit"):
            lu.load_model(folder)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        lu.load_model(folder)


def test_a_strangers_tokenizer_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="do not belong together"):
        lu.save_model(lu.GPT(modern()), tmp_path / "base", tokenizer)
    assert list(tmp_path.iterdir()) == []
    folder = lu.save_model(lu.GPT(modern()), tmp_path / "base")
    tokenizer.save(folder)
    with pytest.raises(ValueError, match="do not belong together"):
        lu.load_model(folder)


def test_a_failed_save_leaves_nothing(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        lu.save_model(lu.GPT(modern()), tmp_path / "base",
                      training={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []

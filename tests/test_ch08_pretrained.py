"""Chapter 8: quantised weights on the disk, and the model of GPT-2's size."""

import copy
import importlib.util
import json
import os
import pickle
import subprocess

import pytest
import torch
from conftest import ROOT
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_ch08 import CLASSIC

import llm_utils as lu

SHAPE = dict(context_length=64, n_layer=2, n_head=4, n_kv_head=2, d_model=64)
KINDS = {
    "modern": {},
    "untied": dict(tie_embeddings=False),
    "classic": CLASSIC,
    "padded": dict(pad_vocab_to=64),
    "narrow": dict(d_model=96, d_ff=160),
}
CHAIN = ("base", "instruct", "dpo")


@pytest.fixture(scope="module")
def tokenizer():
    return lu.BPETokenizer([], lu.SPECIAL_TOKENS, lu.DIGIT_PATTERN)


def random_model(tokenizer, seed=0, **changes):
    """A small GPT, every parameter random."""
    shape = SHAPE | dict(vocab_size=tokenizer.vocab_size, d_ff=128) | changes
    model = lu.GPT(lu.ModelConfig(**shape))
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=dice))
            if p.ndim == 1:
                p.add_(1)
    return model.eval()


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model(tokenizer)


@pytest.fixture
def folder(tmp_path, model, tokenizer):
    """A model in three shards and more."""
    return lu.save_quantized(
        model, tmp_path / "m", tokenizer, shard_bytes=25_000
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory, tokenizer):
    """A folder as in models/: base, and two adapters on it."""
    return make_chain(tmp_path_factory.mktemp("models"), tokenizer)


def make_chain(place, tokenizer, seed=5):
    model = random_model(tokenizer, seed)
    base = lu.save_quantized(model, place / "base", tokenizer)
    model = lu.load_quantized(base)
    below = lu.read_json(base / "training.json")["sha256"]
    for part, rank in ("instruct", 4), ("dpo", 2):
        lu.add_lora(model, rank, targets=("q_proj", "down_proj"))
        dice = torch.Generator().manual_seed(seed + rank)
        for p in model.parameters():
            if p.requires_grad:
                p.data.normal_(0, 0.2, generator=dice)
        lu.save_lora(model, place / part, base_sha256=below)
        below = lu.read_json(place / part / "adapter.json")["sha256"]
        lu.merge_lora(model)
    return place


def ids_of(tokenizer, rows=2, length=30, seed=3):
    dice = torch.Generator().manual_seed(seed)
    return torch.randint(tokenizer.vocab_size, (rows, length), generator=dice)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


def bytes_of(folder):
    return {f.name: f.read_bytes() for f in folder.iterdir()}


# -- keeping ------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_round_trip_gives_every_bit_back(tmp_path, tokenizer, kind, bits):
    model = random_model(tokenizer, **KINDS[kind])
    folder = lu.save_quantized(model, tmp_path / "m", bits=bits)
    plan = lu.read_json(folder / "quantization.json")
    assert plan["bits"] == bits
    assert plan["group"] == (32 if kind == "narrow" else 64)
    small = lu.quantize(model, bits, plan["group"])
    packed = lu.load_quantized(folder, dequantized=False)
    assert same(small, packed)
    assert lu.model_bytes(small) == lu.model_bytes(packed)
    plain, ids = lu.load_quantized(folder), ids_of(tokenizer)
    expected = small(ids)[0]
    assert torch.equal(packed(ids)[0], expected)
    assert torch.equal(plain(ids)[0], expected)
    assert not plain.training and not packed.training


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_is_a_plain_model(tmp_path, tokenizer, kind):
    model = random_model(tokenizer, **KINDS[kind])
    plain = lu.load_quantized(lu.save_quantized(model, tmp_path / "m"))
    assert type(plain) is lu.GPT and plain.config == model.config
    named = {n: (p.shape, p.dtype) for n, p in model.named_parameters()}
    assert named == {n: (p.shape, p.dtype) for n, p in plain.named_parameters()}
    assert all(p.requires_grad for p in plain.parameters())
    tied = model.config.tie_embeddings
    assert (plain.head.weight is plain.token_embedding.weight) == tied
    again, _ = lu.load_model(lu.save_model(plain, tmp_path / "again"))
    assert same(plain, again)
    adapted = lu.add_lora(plain)
    adapted(ids_of(tokenizer), ids_of(tokenizer))[1].backward()
    assert adapted.blocks[0].attention.q_proj.lora_b.grad.any()


def test_it_leaves_by_both_doors(folder, model, tokenizer, tmp_path):
    plain = lu.load_quantized(folder)
    out = lu.export_transformers(plain, tokenizer, tmp_path / "theirs")
    assert same(lu.from_transformers(out), plain)
    assert lu.export_gguf(plain, tokenizer, tmp_path / "m.gguf").exists()


def test_a_model_in_16_bits_is_kept_in_32(tmp_path, model):
    half = copy.deepcopy(model).bfloat16()
    plain = lu.load_quantized(lu.save_quantized(half, tmp_path / "m"))
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert torch.equal(plain.norm.weight, half.norm.weight.float())


def test_the_loss_grows_as_bits_are_taken(tmp_path, model, tokenizer):
    """On text of the model's own, where its loss is its entropy."""
    ids = torch.full((16, 1), tokenizer.end_of_text)
    dice = torch.Generator().manual_seed(8)
    with torch.no_grad():
        while ids.shape[1] < 40:
            chances = model(ids)[0][:, -1].softmax(-1)
            new = torch.multinomial(chances, 1, generator=dice)
            ids = torch.cat((ids, new), 1)
        loss = {32: model(ids[:, :-1], ids[:, 1:])[1].item()}
        for bits in 8, 4, 2:
            kept = lu.save_quantized(model, tmp_path / str(bits), bits=bits)
            small = lu.load_quantized(kept)
            loss[bits] = small(ids[:, :-1], ids[:, 1:])[1].item()
    assert abs(loss[8] - loss[32]) < 0.02
    assert loss[32] + 0.02 < loss[4] < loss[2]


def test_shards_and_their_index(folder):
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 2
    names = [f"model-{i:05d}-of-{len(files):05d}.safetensors"
             for i in range(1, len(files) + 1)]  # fmt: skip
    assert [f.name for f in files] == names
    assert all(f.stat().st_size <= 25_000 for f in files)
    index = lu.read_json(folder / "model.safetensors.index.json")
    found, size = {}, 0
    for file in files:
        state = load_file(file)
        found |= dict.fromkeys(state, file.name)
        size += sum(t.nbytes for t in state.values())
    assert index == {"metadata": {"total_size": size}, "weight_map": found}
    plan = lu.read_json(folder / "quantization.json")
    assert plan["sha256"] == {f.name: lu.sha256_file(f) for f in files}


def test_every_shard_size_is_kept(tmp_path, model):
    """Headers count too; and what fits no shard is refused."""
    largest = max(
        t.nbytes for t in lu.quantize(model, 8, 64).state_dict().values()
    )
    for limit in range(largest + 400, largest + 5000, 460):
        kept = lu.save_quantized(model, tmp_path / "m", shard_bytes=limit)
        for file in kept.glob("*.safetensors"):
            assert file.stat().st_size <= limit
    before = bytes_of(tmp_path / "m")
    with pytest.raises(ValueError, match="alone has .* too small"):
        lu.save_quantized(model, tmp_path / "m", shard_bytes=largest)
    assert bytes_of(tmp_path / "m") == before


def test_only_safetensors_and_json(folder, monkeypatch):
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                assert opened.metadata() == {"format": "pt"}
        elif file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        else:
            assert file.name == "merges.txt"

    def forbidden(*args, **kwargs):
        raise AssertionError("a pickle was read")

    for owner, name in (
        (torch, "load"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
    ):
        monkeypatch.setattr(owner, name, forbidden)
    lu.load_quantized(folder)


def test_whole_or_not_at_all(folder, model, monkeypatch):
    before = bytes_of(folder)
    write = lu.write_json

    def full(path, obj):
        if path.name == "training.json":
            raise OSError("no space left on the disk")
        write(path, obj)

    monkeypatch.setattr(lu, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        lu.save_quantized(model, folder)
    assert bytes_of(folder) == before
    assert [f.name for f in folder.parent.iterdir()] == ["m"]


def test_only_plain_models_are_kept(tmp_path, model, tokenizer):
    for odd in lu.add_lora(copy.deepcopy(model)), lu.quantize(model):
        with pytest.raises(ValueError, match="a plain GPT is wanted"):
            lu.save_quantized(odd, tmp_path / "m")
    other = lu.BPETokenizer([], (*lu.SPECIAL_TOKENS, "<|more|>"))
    with pytest.raises(ValueError, match="the tokenizer has"):
        lu.save_quantized(model, tmp_path / "m", other)
    assert not list(tmp_path.iterdir())


# -- what must not be loaded --------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("keep", [0, 9, 1000, -1])
def test_a_truncated_shard_is_named(folder, which, keep):
    shard = sorted(folder.glob("*.safetensors"))[which]
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{shard.name} .* truncated or alt"):
        lu.load_quantized(folder)


def test_one_bit_is_noticed(folder):
    shard = sorted(folder.glob("*.safetensors"))[1]
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=shard.name):
        lu.load_quantized(folder)


def test_missing_files_are_named(folder):
    names = ["config.json", "quantization.json", "training.json"]
    names += [f.name for f in folder.glob("*.safetensors")]
    for name in names:
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            lu.load_quantized(folder)
        (folder / name).write_bytes(kept)
    lu.load_quantized(folder)


def test_other_weights_with_a_sum_that_fits(folder):
    """training.json still tells which weights these were."""
    shard = sorted(folder.glob("*.safetensors"))[0]
    save_file({n: t * 0 for n, t in load_file(shard).items()}, shard)
    plan = lu.read_json(folder / "quantization.json")
    plan["sha256"][shard.name] = lu.sha256_file(shard)
    lu.write_json(folder / "quantization.json", plan)
    with pytest.raises(ValueError, match="describe different weights"):
        lu.load_quantized(folder)


@pytest.mark.parametrize(
    "changes", [dict(d_ff=192), dict(n_layer=3), dict(n_layer=1)]
)
def test_another_config_does_not_fit(folder, changes):
    config = lu.read_json(folder / "config.json")
    lu.write_json(folder / "config.json", config | changes)
    with pytest.raises(ValueError, match="does not fit its config.json"):
        lu.load_quantized(folder)


def test_json_that_tells_too_little(folder):
    told = folder / "quantization.json"
    plan = lu.read_json(told)
    lu.write_json(told, {"bits": plan["bits"]})
    with pytest.raises(ValueError, match="has no group, sha256"):
        lu.load_quantized(folder)
    told.write_text('{"bits": 8,')
    with pytest.raises(ValueError, match="not JSON"):
        lu.load_quantized(folder)


def test_another_tokenizer_is_refused(folder):
    lu.BPETokenizer([], (*lu.SPECIAL_TOKENS, "<|more|>")).save(folder)
    with pytest.raises(ValueError, match="the tokenizer has"):
        lu.load_quantized(folder)


# -- GPT-2's size -------------------------------------------------------------


def shards_of_gpt2():
    """The bytes of each shard of the large model, without the model."""
    with torch.device("meta"):
        model = lu.GPT(lu.ModelConfig.preset("gpt2-124m"))
        state = lu.quantize(model, 8, 64).state_dict()
    state = {n: t for n, t in state.items() if not n.startswith("head.")}
    shards = lu._into_shards(state, 45_000_000)
    return [sum(t.nbytes for t in shard.values()) for shard in shards]


def test_gpt2s_size_takes_three_shards():
    sizes = shards_of_gpt2()
    assert len(sizes) == 3 and max(sizes) < 45_000_000
    assert sum(sizes) < 130_000_000


def test_gpt2s_size_with_a_tokenizer_of_its_size(real_data, tmp_path):
    lu.BPETokenizer.from_gpt2(real_data / "gpt2_bpe").save(tmp_path)
    files = sum(f.stat().st_size for f in tmp_path.iterdir())
    assert sum(shards_of_gpt2()) + files < 134_900_000  # and a little JSON


# -- load_pretrained ----------------------------------------------------------


def test_the_stages_stand_on_each_other(chain, tokenizer):
    expected = lu.load_quantized(chain / "base")
    told = []
    for stage in CHAIN:
        if stage != "base":
            lu.merge_lora(lu.load_lora(expected, chain / stage))
        model, found = lu.load_pretrained(stage=stage, folder=chain)
        assert type(model) is lu.GPT and same(model, expected)
        assert not model.training
        assert all(p.requires_grad for p in model.parameters())
        assert found.encode("Hob lives.") == tokenizer.encode("Hob lives.")
        told.append(model(ids_of(tokenizer))[0])
    assert not torch.allclose(told[0], told[1])
    assert not torch.allclose(told[1], told[2])
    last, _ = lu.load_pretrained(folder=chain)
    assert torch.equal(last(ids_of(tokenizer))[0], told[2])


def test_a_copy_without_weights_says_so(tmp_path, chain, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no weights of gpt2-9b"):
        lu.load_pretrained("gpt2-9b", folder=tmp_path)
    monkeypatch.setattr(lu, "project_root", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="models/gpt2-124m/base"):
        lu.load_pretrained()
    with pytest.raises(ValueError, match="no stage 'sft'"):
        lu.load_pretrained(stage="sft")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "gpt2-124m").symlink_to(chain)
    lu.load_pretrained()


@pytest.fixture
def own_chain(tmp_path, tokenizer):
    return make_chain(tmp_path / "one", tokenizer)


def test_links_of_another_chain_are_refused(own_chain, tmp_path, tokenizer):
    other = make_chain(tmp_path / "other", tokenizer, seed=6)
    (own_chain / "dpo").rename(own_chain / "kept")
    (other / "dpo").rename(own_chain / "dpo")
    lu.load_pretrained(stage="instruct", folder=own_chain)
    with pytest.raises(ValueError, match="dpo was made on other weights"):
        lu.load_pretrained(folder=own_chain)
    (own_chain / "dpo").rename(other / "dpo")
    (own_chain / "instruct").rename(own_chain / "dpo")
    (own_chain / "kept").rename(own_chain / "instruct")
    with pytest.raises(ValueError, match="instruct was made on other weights"):
        lu.load_pretrained(folder=own_chain)
    (other / "base").rename(tmp_path / "gone")
    (own_chain / "base").rename(other / "base")
    with pytest.raises(ValueError, match="instruct was made on other weights"):
        lu.load_pretrained(folder=other)


@pytest.mark.parametrize("part", CHAIN)
def test_an_altered_part_is_refused(own_chain, part):
    file = next((own_chain / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match="truncated or altered"):
        lu.load_pretrained(folder=own_chain)
    before = CHAIN[: CHAIN.index(part)]
    if before:
        lu.load_pretrained(stage=before[-1], folder=own_chain)


# -- talking with it ----------------------------------------------------------


def test_a_base_model_goes_on_with_the_text(chain, tokenizer):
    model, _ = lu.load_pretrained(stage="base", folder=chain)
    plain, limit = lu.PlainText(tokenizer), lu.SamplingParams(max_new_tokens=12)
    talk = [{"role": "user", "content": "The ferry"}]
    ids = plain.encode(talk, add_generation_prompt=True)
    assert ids == [tokenizer.end_of_text, *tokenizer.encode("The ferry")]
    whole = lu.generate(model, torch.tensor(ids), 12, stop=(plain.end,))
    new = [t for t in whole[len(ids) :].tolist() if t != plain.end]
    expected = lu.TextStream(tokenizer)
    expected = "".join(map(expected.push, new)) + expected.finish()
    text = "".join(lu.stream(model, tokenizer, talk, limit, plain))
    assert text == expected
    assert text != "".join(lu.stream(model, tokenizer, talk, limit))
    lines, said = iter(["The ferry", ""]), []
    lu.chat_in_terminal(
        model,
        tokenizer,
        limit,
        read=lambda prompt: next(lines),
        write=lambda piece, end, flush: said.append(piece),
        chat=plain,
    )
    assert "".join(said) == "model > " + expected
    engine = lu.Engine(model, tokenizer, max_batch=2)
    engine.chat = plain
    assert engine.answer([talk, talk], limit) == [expected, expected]


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location(
        "serve", ROOT / "ch08_inference" / "serve.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def book(tmp_path, chain, tokenizer, monkeypatch):
    """A book's folder with trained weights and an own instruct model."""
    monkeypatch.setattr(lu, "project_root", lambda: tmp_path)
    monkeypatch.setenv("LLM_PRESET", "smoke")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "gpt2-124m").symlink_to(chain)
    for name in "base", "instruct":
        lu.save_model(
            random_model(tokenizer),
            lu.artifact(name),
            tokenizer,
            {"data": "pocket_world tasks"},
        )
    return tmp_path


@pytest.mark.parametrize(
    "model, greeting",
    [
        (None, "Ask something about the valley;"),
        ("instruct", "Ask something about the valley;"),
        ("base", "Begin a text,"),
        ("gpt2-124m", "Ask something;"),
        ("gpt2-124m/instruct", "Ask something;"),
        ("gpt2-124m/base", "Begin a text,"),
    ],
)
def test_who_is_talked_with(book, serve, capsys, monkeypatch, model, greeting):
    lines = iter(["The ferry", ""])
    talked = []

    def chat(model, tokenizer, params, chat=None):
        talked.append((model, chat))
        lu.chat_in_terminal(
            model, tokenizer, params, read=lambda p: next(lines), chat=chat
        )

    monkeypatch.setattr(serve, "chat_in_terminal", chat)
    arguments = ["--chat"] + (["--model", model] if model else [])
    assert serve.main(arguments) == 0
    said = capsys.readouterr()
    assert said.out.startswith(greeting) and "model > " in said.out
    ((found, plain),) = talked
    assert (type(plain) is lu.PlainText) == (model or "").endswith("base")
    if model and model.startswith("gpt2-124m"):
        stage = model.partition("/")[2] or "dpo"
        chain = book / "models" / "gpt2-124m"
        expected, _ = lu.load_pretrained(stage=stage, folder=chain)
        assert same(found, lu.FastGPT(expected))


@pytest.mark.parametrize(
    "model, message",
    [
        ("gpt2-124m", "models/gpt2-124m/base is missing"),
        ("gpt2-124m/sft", "no stage 'sft'"),
        ("instruct", "run `make ch06` first"),
    ],
)
def test_what_is_not_there(
    serve, tmp_path, monkeypatch, capsys, model, message
):
    monkeypatch.setattr(lu, "project_root", lambda: tmp_path)
    assert serve.main(["--model", model]) == 1
    assert message in capsys.readouterr().err


def test_make_passes_the_model_on():
    told = {
        model: subprocess.run(
            ["make", "-n", "--no-print-directory", "chat", *model],
            env={k: v for k, v in os.environ.items() if "MAKE" not in k},
            cwd=ROOT,
            capture_output=True,
            text=True,
        ).stdout.rstrip()
        for model in [(), ("MODEL=gpt2-124m/base",)]
    }
    plain, chosen = told.values()
    assert plain.endswith("serve.py")
    assert chosen.endswith('serve.py --model "gpt2-124m/base"')

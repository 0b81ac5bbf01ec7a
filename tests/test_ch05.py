"""Chapter 5: the loss, the optimisers, the run, checkpoints, generation."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import llm_utils as lu

ROOT = Path(__file__).resolve().parent.parent
SHAPE = dict(n_layer=2, n_head=2, n_kv_head=1, d_model=32, d_ff=48,
             context_length=64, qk_norm=True)


@pytest.fixture(scope="module")
def tokenizer():
    return lu.BPETokenizer.train(["Hob lives at Low Bridge. The ferry is late."], 270)


@pytest.fixture(scope="module")
def shards(tokenizer, tmp_path_factory):
    """Sentences that count upwards, of known length, in shards of chapter 2."""
    folder, draw = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    for split, n in (("train", 300), ("validation", 40)):
        docs = []
        for _ in range(n):
            first, count = draw.integers(0, 20), draw.integers(1, 30)
            words = " ".join(str(first + i) for i in range(count))
            docs.append({"text": words, "nats": math.log(20 * 29)})
        lu.write_shards(docs, tokenizer, folder, split)
    return folder


@pytest.fixture(scope="module")
def data(shards):
    return lu.TokenDataset(shards, "train", 64)


@pytest.fixture(scope="module")
def validation(shards):
    return lu.TokenDataset(shards, "validation", 64)


def make_model(tokenizer, seed=0, **changes):
    """A tiny model; every parameter random, so that no mapping is hidden."""
    shape = {**SHAPE, "vocab_size": tokenizer.vocab_size, **changes}
    model, draw = lu.GPT(lu.ModelConfig(**shape)), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.uniform_(0.5, 1.5, generator=draw)
            else:
                p.normal_(0, 0.15, generator=draw)
    return model


@pytest.fixture
def model(tokenizer):
    return make_model(tokenizer)


CONFIG = lu.TrainConfig(steps=12, batch_size=8, context=64, warmup_steps=3,
                        precision="float32", checkpoint_every=4)


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


# -- optimisers and schedule ---------------------------------------------------


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon")
@pytest.mark.parametrize("scaling", [None, "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs(scaling, nesterov):
    draw = torch.Generator().manual_seed(1)
    ours = [torch.nn.Parameter(torch.randn(s, generator=draw))
            for s in [(40, 16), (16, 40), (40, 16), (24, 24)]]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    options = dict(lr=0.03, weight_decay=0.2, momentum=0.9, nesterov=nesterov,
                   adjust_lr_fn=scaling)
    a, b = lu.Muon(ours, dtype=torch.bfloat16, **options), torch.optim.Muon(theirs, **options)
    for _ in range(8):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn(p.shape, generator=draw)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs):  # one rounding of bfloat16 in each step
        assert (p - q).abs().max() < 2e-3


def test_newton_schulz_keeps_directions_and_evens_sizes():
    draw = torch.Generator().manual_seed(2)
    for shape in [(30, 12), (12, 30), (3, 20, 20)]:
        m = torch.randn(shape, generator=draw)
        u, _, vt = torch.linalg.svd(m, full_matrices=False)
        got = lu.newton_schulz(m, dtype=torch.float32)
        values = torch.linalg.svdvals(got)
        assert values.max() < 1.3 and values.median() > 0.6
        assert F.cosine_similarity(got.flatten(), (u @ vt).flatten(), dim=0) > 0.95


def test_muon_refuses_a_vector():
    with pytest.raises(ValueError, match="belongs to AdamW"):
        lu.Muon([torch.nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_each_parameter_has_one_optimiser(model, optimizer):
    optimizers = lu.make_optimizers(model, lu.TrainConfig(optimizer=optimizer))
    held = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted({id(p) for p in model.parameters()})
    table = id(model.token_embedding.weight)
    for o in optimizers:
        for group in o.param_groups:
            for p in group["params"]:
                if isinstance(o, lu.Muon):
                    assert p.ndim == 2 and id(p) != table and optimizer == "muon"
                assert (group["weight_decay"] == 0) == (p.ndim == 1)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [True, False])
def test_only_a_table_that_is_not_the_head_has_its_own_rate(tied, optimizer):
    model = lu.GPT(lu.ModelConfig.preset("smoke", tie_embeddings=tied))
    optimizers = lu.make_optimizers(model, lu.TrainConfig(
        optimizer=optimizer, learning_rate=0.1, embedding_learning_rate=0.7))
    groups = {id(p): g for o in optimizers for g in o.param_groups
              for p in g["params"]}
    table, head = groups[id(model.token_embedding.weight)], groups[
        id(model.head.weight)]
    assert (head["peak"], head["weight_decay"]) == (0.1, 0.1)
    assert (table["peak"], table["weight_decay"]) == (
        (0.1, 0.1) if tied else (0.7, 0.0))


def test_frozen_parameters_are_left_out(model):
    model.requires_grad_(False)
    model.blocks[0].requires_grad_(True)
    optimizers = lu.make_optimizers(model, lu.TrainConfig())
    held = {id(p) for o in optimizers for g in o.param_groups for p in g["params"]}
    assert held == {id(p) for p in model.blocks[0].parameters()}


@given(st.sampled_from(["wsd", "cosine", "constant"]), st.integers(0, 30),
       st.integers(31, 200), st.floats(0.1, 1.0), st.floats(0.0, 0.5))
def test_schedule_rises_once_and_never_rises_again(kind, warmup, steps, cooldown, low):
    config = lu.TrainConfig(schedule=kind, warmup_steps=warmup, steps=steps,
                            cooldown=cooldown, final_rate=low, learning_rate=0.5)
    rates = [lu.learning_rate(s, config) for s in range(steps)]
    assert all(0 < r <= 0.5 for r in rates)
    top = rates[max(0, warmup - 1)]
    assert all(a < b for a, b in zip(rates[:warmup], rates[1:warmup]))
    assert all(a >= b - 1e-12 for a, b in zip(rates[warmup:], rates[warmup + 1:]))
    if warmup:
        assert top == pytest.approx(0.5)
    assert kind == "constant" or rates[-1] >= 0.5 * low - 1e-12


@pytest.mark.parametrize("wrong", [
    dict(optimizer="sgd"), dict(schedule="linear"), dict(steps=0),
    dict(batch_size=10, accumulation=4), dict(learning_rate=0.0)])
def test_a_config_without_sense_is_refused(wrong):
    with pytest.raises(ValueError):
        lu.TrainConfig(**wrong)


def test_clipping_keeps_the_direction(model):
    config = lu.TrainConfig(optimizer="adamw", clip_norm=0.5, warmup_steps=0)
    for p in model.parameters():
        p.grad = torch.full_like(p, 2.0)
    seen = {}
    optimizers = lu.make_optimizers(model, config)
    optimizers[0].register_step_post_hook(lambda *_: seen.update(
        norm=math.sqrt(sum(p.grad.square().sum() for p in model.parameters()))))
    norm = lu.optimizer_step(model, optimizers, 0, config)
    assert norm == pytest.approx(2 * math.sqrt(lu.count_parameters(model)), rel=1e-4)
    assert seen["norm"] == pytest.approx(0.5, rel=1e-3)


# -- rows and batches ----------------------------------------------------------


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200))
def test_packing_keeps_all_and_overfills_none(lengths):
    rows = lu.pack_documents(lengths, 50)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in row) for row in rows]
    assert max(sums) <= 50
    assert len(rows) <= max(1, math.ceil(11 / 9 * sum(lengths) / 50) + 1) or min(lengths) > 16


def test_an_epoch_holds_every_token_once(data):
    batches = lu.Batches(data, 1, 64, seed=3)
    got, previous = [], 0
    while True:
        x, y = batches.next()
        if batches.epoch != previous:
            break
        got += y[y != -100].tolist()
        real = y[0] != -100
        assert torch.equal(x[0, 1:][real[1:]], y[0, :-1][real[1:]])
    assert sorted(got) == sorted(np.asarray(data.tokens).tolist())


def test_rows_begin_where_documents_begin(data):
    x, y = lu.Batches(data, 32, 64).next()
    end = int(data.tokens[data.starts[1].astype(int) - 1])
    ends = np.append(data.starts, len(data.tokens))[1:].astype(int)
    whole = (ends - data.starts.astype(int)).max() <= 64
    assert not whole or (x[:, 0] == end).all()
    firsts = {int(data.tokens[int(s)]) for s in data.starts}
    assert set(y[:, 0].tolist()) <= firsts or not whole


def test_position_survives_json(data):
    one = lu.Batches(data, 8, 64, seed=5)
    for _ in range(23):
        one.next()
    two = lu.Batches(data, 8, 64, seed=5)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for _ in range(40):  # over the end of the epoch
        for a, b in zip(one.next(), two.next()):
            assert torch.equal(a, b)


def test_a_corpus_shorter_than_one_context_is_refused(data):
    with pytest.raises(ValueError, match="fewer than one context"):
        lu.Batches(data, 1, len(data.tokens) + 1)


def test_stream_windows(data):
    x, y = lu.Batches(data, 4, 64, windows="stream").next()
    assert x.shape == (4, 64) and torch.equal(x[:, 1:], y[:, :-1])


# -- the loss, in pieces and whole ----------------------------------------------


def test_accumulation_is_one_big_batch(tokenizer, data):
    x, y = lu.Batches(data, 8, 64).next()
    y[:3, 5:] = -100
    gradients, losses = [], []
    for pieces in (1, 2, 8):
        model = make_model(tokenizer)
        config = replace(CONFIG, accumulation=pieces)
        losses.append(lu.batch_loss(model, x, y, config))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] == pytest.approx(losses[2], abs=1e-6)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert torch.allclose(gradients[0], gradients[2], atol=1e-6)
    expected = make_model(tokenizer)(x, y)[1].item()
    assert losses[0] == pytest.approx(expected, abs=1e-6)


def test_evaluate_is_brute_force_and_sees_whole_documents(model, validation):
    """Also for documents longer than the context: half of it, or more, is seen."""
    context, total, count = 64, 0.0, 0
    ends = np.append(validation.starts, len(validation.tokens))[1:].astype(int)
    starts = validation.starts.astype(int)
    assert (ends - starts).max() > context  # the test would be empty otherwise
    end_of_text = int(validation.tokens[ends[0] - 1])
    for start, end in zip(starts, ends):
        document = [end_of_text, *validation.tokens[start:end].tolist()]
        for t in range(1, len(document)):
            if t <= context:
                first = 0
            else:  # windows of 64 move by 32
                first = 32 * math.ceil((t - context) / 32)
            before = torch.tensor([document[first:t]])
            with torch.no_grad():
                logits, _ = model(before)
            total -= logits[0, -1].log_softmax(-1)[document[t]].item()
            count += 1
    scores = lu.evaluate(model, validation)
    assert scores["tokens"] == count == len(validation.tokens)
    assert scores["loss"] == pytest.approx(total / count, abs=1e-5)
    assert scores["floor"] == pytest.approx(40 * math.log(580) / count)
    assert scores["gap"] == pytest.approx(scores["loss"] - scores["floor"])
    size = validation.index["bytes"]
    assert scores["bits_per_byte"] == pytest.approx(total / math.log(2) / size, rel=1e-4)


def test_floor_is_unknown_for_found_text(model, tokenizer, tmp_path):
    lu.write_shards(["one two three"] * 30, tokenizer, tmp_path, "validation")
    scores = lu.evaluate(model, lu.TokenDataset(tmp_path, "validation", 16))
    assert scores["floor"] is None and scores["gap"] is None


def test_another_vocabulary_is_refused(tokenizer, data, validation):
    other = make_model(tokenizer, vocab_size=300)
    with pytest.raises(ValueError, match="do not belong together"):
        lu.evaluate(other, validation)
    with pytest.raises(ValueError, match="do not belong together"):
        lu.train(other, data, CONFIG, progress=None)


def test_a_context_longer_than_the_models_is_refused(model, data):
    with pytest.raises(ValueError, match="longer than the model's"):
        lu.train(model, data, replace(CONFIG, context=128), progress=None)


# -- runs, crashes, checkpoints ---------------------------------------------------


def test_training_lowers_the_loss(tokenizer, data, validation):
    model = lu.GPT(lu.ModelConfig(**SHAPE, vocab_size=tokenizer.vocab_size))
    before = lu.evaluate(model, validation)["loss"]
    history = lu.train(model, data, replace(CONFIG, steps=40), validation, progress=None)
    assert history.steps == 40 and len(history.losses) == 40
    assert history.last["loss"] < before - 1


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resume_is_exact_to_the_bit(tokenizer, data, validation, tmp_path,
                                    optimizer, dropout):
    config = replace(CONFIG, optimizer=optimizer, eval_every=3, eval_documents=4)

    class Crash(Exception):
        pass

    def crash(history):
        if history.steps == 9:
            raise Crash

    torch.manual_seed(5)
    whole = make_model(tokenizer, dropout=dropout)
    calm = lu.train(whole, data, config, validation, tmp_path / "calm", progress=None)
    torch.manual_seed(5)
    with pytest.raises(Crash):
        lu.train(make_model(tokenizer, dropout=dropout), data, config, validation,
                 tmp_path / "run", progress=crash)
    assert lu.latest_checkpoint(tmp_path / "run").name == "step-0000008"
    torch.manual_seed(99)  # must not matter
    resumed = make_model(tokenizer, seed=8, dropout=dropout)
    after = lu.train(resumed, data, config, validation, tmp_path / "run",
                     resume=True, progress=None)
    assert same_weights(whole, resumed)
    assert calm.records == after.records
    assert calm.evaluations == after.evaluations
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in log.splitlines()
            if "norm" in line] == list(range(1, 13))


def test_resume_with_other_settings_is_refused(tokenizer, data, tmp_path):
    lu.train(make_model(tokenizer), data, CONFIG, folder=tmp_path, progress=None)
    with pytest.raises(ValueError, match="learning_rate"):
        lu.train(make_model(tokenizer), data, replace(CONFIG, learning_rate=0.5),
                 folder=tmp_path, resume=True, progress=None)


def test_a_run_stops_on_time_and_goes_on(tokenizer, data, tmp_path):
    whole, parts = make_model(tokenizer), make_model(tokenizer)
    lu.train(whole, data, CONFIG, progress=None)
    short = replace(CONFIG, max_minutes=0.0)
    for steps in (1, 2, 3):
        history = lu.train(parts, data, short, folder=tmp_path, resume=True, progress=None)
        assert (history.steps, history.stopped) == (steps, "time")
    history = lu.train(parts, data, CONFIG, folder=tmp_path, resume=True, progress=None)
    assert history.stopped == "done" and same_weights(whole, parts)


def test_a_loss_that_is_not_finite_stops_the_run(tokenizer, data, validation,
                                                 tmp_path):
    model = make_model(tokenizer)

    def poison(history):
        if history.steps == 6:
            model.blocks[0].attention.q_proj.weight.data[0, 0] = math.inf

    config = replace(CONFIG, eval_every=1, eval_documents=1)
    with pytest.raises(FloatingPointError) as caught:
        lu.train(model, data, config, validation, tmp_path, progress=poison)
    said = str(caught.value)
    assert "at step 6" in said and "step-0000004" in said and said.count("\n") == 0
    fresh = make_model(tokenizer)
    lu.load_checkpoint(tmp_path, fresh)
    assert all(p.isfinite().all() for p in fresh.parameters())


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("fault", ["truncated", "altered", "gone"])
def test_a_damaged_checkpoint_is_refused_whole(tokenizer, data, tmp_path, name, fault):
    lu.train(make_model(tokenizer), data, CONFIG, folder=tmp_path, progress=None)
    path = lu.latest_checkpoint(tmp_path) / name
    content = path.read_bytes()
    if fault == "gone":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(content[:-7])
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    model = make_model(tokenizer, seed=3)
    with pytest.raises(ValueError, match="SHA-256") as caught:
        lu.load_checkpoint(tmp_path, model)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert same_weights(model, make_model(tokenizer, seed=3))


def test_a_checkpoint_of_another_model_is_refused(tokenizer, data, tmp_path):
    lu.train(make_model(tokenizer), data, CONFIG, folder=tmp_path, progress=None)
    with pytest.raises(ValueError, match="another model"):
        lu.load_checkpoint(tmp_path, make_model(tokenizer, d_ff=64))
    with pytest.raises(FileNotFoundError, match="no whole checkpoint"):
        lu.load_checkpoint(tmp_path / "nowhere", make_model(tokenizer))


def test_checkpoints_hold_no_pickle_and_old_ones_go(tokenizer, data, tmp_path):
    config = replace(CONFIG, checkpoint_every=1, keep_checkpoints=2, milestones=(3,))
    lu.train(make_model(tokenizer), data, config, folder=tmp_path, progress=None)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == [
        "step-0000003", "step-0000011", "step-0000012"]
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or path.suffix in (".safetensors", ".json", ".jsonl")


# -- sampling and generation -------------------------------------------------------


def test_samples_follow_the_probabilities():
    p = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])
    draw, n = torch.Generator().manual_seed(0), 40_000

    def shares(**options):
        got = lu.sample(p.log().expand(n, 5), generator=draw, **options)
        return torch.bincount(got, minlength=5) / n

    assert (shares(temperature=1.0) - p).abs().max() < 0.01
    hot = p.sqrt() / p.sqrt().sum()
    assert (shares(temperature=2.0) - hot).abs().max() < 0.01
    assert (shares(temperature=1.0, top_k=2) - torch.tensor(
        [0, 0.4, 0, 0.25, 0]) / 0.65).abs().max() < 0.01
    assert (shares(temperature=1.0, top_p=0.7) - torch.tensor(
        [0, 0.4, 0, 0.25, 0.2]) / 0.85).abs().max() < 0.01
    assert shares(temperature=1.0, top_p=0.01)[1] == 1.0
    assert shares()[1] == 1.0


@pytest.mark.parametrize("wrong", [dict(temperature=-1.0), dict(top_k=0),
                                   dict(top_p=0.0), dict(top_p=1.5)])
def test_sampling_values_without_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        lu.sample(torch.zeros(5), **wrong)


def test_cache_changes_no_token(model):
    ids = torch.randint(0, 200, (3, 9), generator=torch.Generator().manual_seed(1))
    for options in (dict(), dict(temperature=0.9, top_k=20)):
        rows = [lu.generate(model, ids, 40, use_cache=use, **options,
                            generator=torch.Generator().manual_seed(2))
                for use in (True, False)]
        assert torch.equal(*rows) and rows[0].shape == (3, 49)
        assert torch.equal(rows[0][:, :9], ids)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.integers(0, 50))
def test_batched_is_single(tokenizer, lengths, seed):
    model, draw = make_model(tokenizer), torch.Generator().manual_seed(seed)
    prompts = [torch.randint(0, 200, (n,), generator=draw).tolist() for n in lengths]
    stop = tuple(range(0, tokenizer.vocab_size, 9))
    together = lu.generate_batch(model, prompts, 12, stop, batch_size=4)
    for ids, new in zip(prompts, together):
        alone = lu.generate(model, torch.tensor(ids), 12, stop=stop)[len(ids):].tolist()
        assert new == alone
        assert not any(t in stop for t in new[:-1])


def test_generation_ends_at_the_context_and_refuses_an_empty_prompt(model):
    ids = torch.arange(60)
    assert len(lu.generate(model, ids, 50)) == 65  # 64 are read, one is foretold
    assert len(lu.generate(model, ids, 50, use_cache=False)) == 65
    with pytest.raises(ValueError, match="longer than the model's context"):
        lu.generate(model, torch.zeros(65, dtype=torch.long), 1)
    for call in (lambda: lu.generate(model, ids[:0], 3),
                 lambda: lu.generate_batch(model, [[1], []], 3)):
        with pytest.raises(ValueError, match="empty"):
            call()


def test_generation_leaves_the_mode_as_it_was(model):
    model.train()
    lu.generate(model, torch.arange(3), 2)
    assert model.training


def test_facts_are_scored_by_whole_words(tokenizer, monkeypatch):
    said = {"a": " Low Bridge. He", "b": " Low Bridges", "c": " High Bridge", "d": " 12 May,"}
    order = list(said)
    monkeypatch.setattr(lu, "generate_batch",
                        lambda *_, **__: [tokenizer.encode(said[k]) for k in order])
    facts = [("a", " Low Bridge"), ("b", " Low Bridge"), ("c", " Low Bridge"),
             ("d", " 12 May")]
    scores = lu.fact_accuracy(make_model(tokenizer), tokenizer, facts)
    assert (scores["right"], scores["total"]) == (2, 4)
    assert [w[0] for w in scores["wrong"]] == ["b", "c"]


# -- the script ---------------------------------------------------------------------


def script(tokenizer, shards, out, *more, before=()):
    tokenizer.save(out.parent / "tokenizer")
    return [*before, str(ROOT / "ch05_pretrain" / "train.py"), "--preset", "smoke",
            "--data", str(shards), "--tokenizer", str(out.parent / "tokenizer"),
            "--out", str(out), "--batch-size", "8", "--context", "32",
            "--steps", "24", "--checkpoint-every", "5", "--eval-every", "12",
            "--precision", "float32", *more]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def losses(folder):
    lines = (folder / "run" / "log.jsonl").read_text().splitlines()
    return {e["step"]: e["loss"] for e in map(json.loads, lines) if "norm" in e}


def test_shards_of_another_text_are_not_taken_for_this_one(tokenizer, tmp_path):
    for name in ("ferry", "bridge"):
        lu.write_lines(tmp_path / f"{name}.jsonl",
                       [{"text": f"The {name} is late."}] * 400)
    made = lu.prepare_shards(tmp_path / "ferry.jsonl", tokenizer, tmp_path / "shards")
    assert lu.prepare_shards(tmp_path / "ferry.jsonl", tokenizer, made) == made
    for changed in (dict(source=tmp_path / "bridge.jsonl"), dict(max_documents=9),
                    dict(held_out=0.1)):
        how = {"source": tmp_path / "ferry.jsonl", "folder": made, **changed}
        with pytest.raises(ValueError, match="were made from .*another folder"):
            lu.prepare_shards(how.pop("source"), tokenizer, **how)
    ids = lu.TokenDataset(made, "train", 16).tokens[:200].tolist()
    assert "ferry" in tokenizer.decode(ids)


@pytest.mark.parametrize("name, like", [
    ("NVIDIA L4", "L4"), ("NVIDIA L40S", "L40S"), ("NVIDIA H100 PCIe", "H100 PCIe"),
    ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA H100 80GB HBM3", "H100")])
def test_a_gpu_is_known_by_its_whole_name(name, like, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
    peak = lu.peak_flops.__wrapped__("cuda", "bfloat16")
    assert peak == lu._PEAK_FLOPS[like]


def test_the_script_says_what_is_wrong(tokenizer, tmp_path):
    command = script(tokenizer, tmp_path / "nothing", tmp_path / "out",
                     before=[sys.executable])
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode and "Traceback" not in done.stderr
    assert "nothing" in done.stderr


@pytest.mark.full
def test_killed_at_any_time_it_goes_on_to_the_bit(tokenizer, shards, tmp_path):
    calm = script(tokenizer, shards, tmp_path / "calm", before=[sys.executable])
    subprocess.run(calm, env=environment(), check=True, capture_output=True)
    out = tmp_path / "killed"
    command = script(tokenizer, shards, out, before=[sys.executable])
    for after in (2, 9, 17):
        run = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        log = out / "run" / "log.jsonl"
        give_up = time.time() + 120
        while run.poll() is None and time.time() < give_up:
            if log.exists() and len(log.read_text().splitlines()) >= after:
                break
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        run.wait()
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    assert losses(out) == losses(tmp_path / "calm")
    assert lu.sha256_file(out / "base" / "model.safetensors") == lu.sha256_file(
        tmp_path / "calm" / "base" / "model.safetensors")
    about = lu.read_json(out / "base" / "training.json")
    trained = [row["tokens"] for row in lu.read_lines(out / "run" / "log.jsonl")
               if "tokens" in row and "documents" not in row]
    assert about["tokens"] == trained[-1]  # and not those of an evaluation


@pytest.mark.full
def test_two_processes_learn_what_one_learns(tokenizer, shards, tmp_path):
    one = script(tokenizer, shards, tmp_path / "one", before=[sys.executable])
    two = script(tokenizer, shards, tmp_path / "two", before=[
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", "2"])
    for command in (one, two):
        subprocess.run(command, env=environment(), check=True, capture_output=True)
    a, b = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert a.keys() == b.keys()
    assert max(abs(a[s] - b[s]) for s in a) < 2e-2
    assert abs(a[1] - b[1]) < 1e-5 and abs(a[2] - b[2]) < 1e-4


@pytest.mark.full
def test_copies_of_the_model_have_one_processs_losses(tokenizer, shards, tmp_path):
    """Twenty steps of AdamW: Muon's rounds in bfloat16 would hide more."""
    told = {}
    for n in (1, 2, 4):
        out = tmp_path / str(n)
        command = script(tokenizer, shards, out, "--optimizer", "adamw",
                         "--log-every", "1", before=[
                             sys.executable, "-m", "torch.distributed.run",
                             "--standalone", "--nproc-per-node", str(n)])
        subprocess.run(command, env=environment(), check=True, capture_output=True)
        told[n] = losses(out)
    for n in (2, 4):
        assert told[n].keys() == told[1].keys() and len(told[1]) >= 20
        apart = {s: abs(told[n][s] - told[1][s]) for s in range(1, 21)}
        assert max(apart.values()) < 1e-5, apart

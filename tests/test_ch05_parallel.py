"""One run on several processes is the same run.

The processes run this very file as a script: `cases` trains small models by
several plans and leaves what came out for the tests to compare with chapter 5
on one process.
"""

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import llm_utils as lu

ROOT = Path(__file__).resolve().parent.parent
STEPS = 20


class Data(SimpleNamespace):
    """As much of a TokenDataset as training asks for."""

    def __len__(self):
        return len(self.starts)


def corpus():
    draw = np.random.default_rng(0)
    docs = [[*draw.integers(1, 97, n), 0] for n in draw.integers(2, 60, 200)]
    return Data(
        tokens=np.concatenate(docs).astype(np.uint16),
        starts=np.cumsum([0] + [len(d) for d in docs[:-1]]),
        nats=None,
        index={"bytes": 9, "tokens": 3, "documents": 200},
    )


def make_model(tied=False, classic=False, double=False, n_layer=2, pad=1):
    """Every parameter random; 97 ids, which nothing divides."""
    kind = (
        dict(
            norm="layernorm",
            activation="gelu",
            position="learned",
            bias=True,
            qk_norm=False,
        )
        if classic
        else {}
    )
    config = lu.ModelConfig(
        vocab_size=97,
        context_length=32,
        n_layer=n_layer,
        n_head=4,
        n_kv_head=2,
        d_model=32,
        d_ff=48,
        tie_embeddings=tied,
        pad_vocab_to=pad,
        **kind,
    )
    model, draw = lu.GPT(config), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(
                torch.randn(p.shape, generator=draw) / 8 + 0.5 * (p.dim() < 2)
            )
    return model.double() if double else model


def make_config(optimizer="adamw", pieces=1, **changes):
    """Clipped at every step, with one evaluation at the end."""
    return lu.TrainConfig(
        **{
            "steps": STEPS,
            "batch_size": 8,
            "accumulation": pieces,
            "context": 32,
            "optimizer": optimizer,
            "precision": "float32",
            "warmup_steps": 5,
            "learning_rate": 1e-2,
            "clip_norm": 0.2,
            "eval_documents": 9,
            **changes,
        }
    )


def trained(case, spread=None, folder=None, **more):
    """(model, History) of one case: {plan, model, config}."""
    torch.set_num_threads(1)
    model = make_model(**case.get("model", {}))
    config = make_config(**case.get("config", {}))
    if case.get("model", {}).get("double"):  # for Newton and Schulz too
        lu.fast_dtype = lambda device: torch.float64
    if spread:
        model = spread(model, config)
    data = corpus()
    history = lu.train(model, data, config, data, folder, progress=None, **more)
    return model, history


def cases(out, *given):
    """What each of the processes does."""
    lu.start_workers()
    for i, case in enumerate(json.loads(given[0])):
        spread = (
            lu.ZeroPlan(case["zero"])
            if "zero" in case
            else lu.Plan(**case["plan"])
        )
        model, history = trained(case, spread, case.get("folder"), resume=True)
        whole = model.gather()
        if lu.workers()[0] == 0:
            tensors = {
                n: p.detach().contiguous() for n, p in whole.named_parameters()
            }
            save_file(tensors, f"{out}/{i}.safetensors")
            lu.write_json(
                f"{out}/{i}.json",
                {
                    "losses": history.losses,
                    "score": history.last["loss"],
                    "norms": [r["norm"] for r in history.records],
                    "stopped": history.stopped,
                    "steps": history.steps,
                },
            )
    lu.stop_workers()


def fall(out, *_):
    """One process dies while the other waits for it."""
    lu.start_workers()
    if lu.workers()[0] == 1:
        raise SystemExit("I fall")
    torch.distributed.barrier()


def python_on(world):
    """The command that starts a script on so many processes."""
    if world == 1:
        return [sys.executable]
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(world),
        "--standalone",
    ]


def on_processes(world, out, what, *arguments, limit=600, script=__file__):
    """Run a function of a file on `world` processes; ended after `limit` s."""
    out.mkdir(exist_ok=True)
    common = {
        **os.environ,
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(lu._free_port()),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, script, what, str(out), *arguments]
    with contextlib.ExitStack() as stack:
        logs = [
            stack.enter_context(open(out / f"{r}.log", "w+"))
            for r in range(world)
        ]
        children = [
            subprocess.Popen(
                command,
                stderr=log,
                stdout=log,
                env={**common, "RANK": str(r), "LOCAL_RANK": str(r)},
            )
            for r, log in enumerate(logs)
        ]
        lu._wait(children, logs, time.monotonic() + limit)


def hold(world, out, listed):
    """Train all cases on `world` processes, and compare each with one process."""
    on_processes(world, out, "cases", json.dumps(listed))
    native = lu.fast_dtype
    for i, case in enumerate(listed):
        found = json.loads((out / f"{i}.json").read_text())
        model, history = trained(case)
        lu.fast_dtype = native
        name = case.get("plan", case.get("zero"))
        double = case.get("model", {}).get("double")
        assert (
            np.ptp(history.losses) > 1e-3
        )  # something was learnt, or unlearnt
        assert found["losses"] == pytest.approx(history.losses, abs=1e-5), name
        assert found["score"] == pytest.approx(
            history.last["loss"], abs=1e-5
        ), name
        norms = [r["norm"] for r in history.records]
        assert min(norms[:3]) > 0.2  # some were clipped
        assert found["norms"] == pytest.approx(norms, rel=1e-3), name
        weights = load_file(out / f"{i}.safetensors")
        for key, p in model.named_parameters():
            if double:  # in float32 a gradient of 0 is noise, and Adam its sign
                assert torch.allclose(weights[key].to(p), p, atol=1e-6), (
                    name,
                    key,
                )


def test_two_processes_in_shards(tmp_path):
    hold(2, tmp_path, [{"plan": {"fsdp": 2}, "model": {"tied": True}}])


@pytest.mark.full
def test_two_processes_by_every_way(tmp_path):
    hold(
        2,
        tmp_path,
        [
            {"plan": {"fsdp": 2}, "config": {"pieces": 2}},
            {"plan": {"data_parallel": 2}, "model": {"classic": True}},
            {"plan": {"tensor_parallel": 2}, "model": {"tied": True}},
            {"plan": {"tensor_parallel": 2}, "model": {"pad": 64}},
            {
                "plan": {"pipeline_parallel": 2},
                "model": {"tied": True},
                "config": {"pieces": 4},
            },
            {
                "plan": {"fsdp": 2},
                "model": {"tied": True},
                "config": {"loss_rows": 16, "checkpoint_activations": True},
            },
        ],
    )


@pytest.mark.full
def test_four_processes_by_every_way(tmp_path):
    hold(
        4,
        tmp_path,
        [
            {"plan": {"fsdp": 4}, "model": {"tied": True}},
            {"plan": {"data_parallel": 2, "fsdp": 2}},
            {
                "plan": {"fsdp": 2, "tensor_parallel": 2},
                "model": {"double": True},
            },
            {
                "plan": {"fsdp": 2, "pipeline_parallel": 2},
                "config": {"pieces": 2},
            },
            {
                "plan": {"pipeline_parallel": 4},
                "model": {"n_layer": 4},
                "config": {"pieces": 2},
            },
        ],
    )


@pytest.mark.full
def test_muon_in_shards_is_the_same_update(tmp_path):
    muon = {"model": {"double": True}, "config": {"optimizer": "muon"}}
    hold(
        2,
        tmp_path / "two",
        [
            {"plan": {name: 2}, **muon}
            for name in ("fsdp", "tensor_parallel", "pipeline_parallel")
        ],
    )
    hold(
        4,
        tmp_path / "four",
        [{"plan": {"fsdp": 2, "tensor_parallel": 2}, **muon}],
    )


@pytest.mark.full
def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path):
    """Two, four, and one process: stopped by the clock, and never noticed."""
    case = {
        "config": {"steps": 6, "optimizer": "muon", "pieces": 2},
        "model": {"double": True, "tied": True},
        "folder": str(tmp_path / "run"),
    }
    soon = {**case, "config": {**case["config"], "max_minutes": 0}}
    plans = [
        (2, soon, {"fsdp": 2}),
        (4, soon, {"fsdp": 2, "tensor_parallel": 2}),
        (2, soon, {"pipeline_parallel": 2}),
        (1, case, {}),
    ]
    for n, (world, how, plan) in enumerate(plans):
        on_processes(
            world,
            tmp_path / str(n),
            "cases",
            json.dumps([{**how, "plan": plan}]),
        )
        found = json.loads((tmp_path / str(n) / "0.json").read_text())
        assert found["steps"] == (6 if n == 3 else n + 1)
        assert found["stopped"] == ("done" if n == 3 else "time")
    native = lu.fast_dtype
    model, history = trained(case)
    lu.fast_dtype = native
    assert found["losses"] == pytest.approx(history.losses, abs=1e-6)
    weights = load_file(tmp_path / "3" / "0.safetensors")
    for key, p in model.named_parameters():
        assert torch.allclose(weights[key], p, atol=1e-6), key

    last = lu.latest_checkpoint(tmp_path / "run")
    assert not list(last.glob("*.pt")) and not (last / ".metadata").exists()
    with pytest.raises(ValueError, match="--fsdp 1"):  # chapter 5 alone cannot
        lu.load_checkpoint(last, make_model())
    shard = next(last.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(ValueError, match="SHA-256"):
        lu.load_checkpoint(last, make_model())


def test_bad_plans_get_one_sentence():
    shape = lu.ModelConfig.preset("gpt2-124m", n_head=12, n_kv_head=4)
    config = lu.TrainConfig(batch_size=8, accumulation=2)
    for sizes, world, said in (
        (dict(fsdp=3), 4, "3 processes, and there are 4"),
        (dict(fsdp=0), 4, "at least 1"),
        (dict(tensor_parallel=3), 3, "n_kv_head 4 does not divide"),
        (dict(tensor_parallel=5), 5, "n_head 12 does not divide"),
        (dict(pipeline_parallel=5), 5, "12 layers do not divide"),
        (dict(pipeline_parallel=24), 24, "too few"),
        (dict(pipeline_parallel=2, fsdp=8), 16, "8 rows do not divide"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            lu.Plan(**sizes).check(shape, config, world)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="dropout"):
        shape.dropout = 0.1
        lu.Plan(fsdp=2).check(shape, config, 2)
    lu.Plan(fsdp=2).check(lu.ModelConfig(), config, 2)


def script():
    """`train.py` as a module."""
    where = ROOT / "ch05_pretrain" / "train.py"
    spec = importlib.util.spec_from_file_location("train_script", where)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_flags_reach_the_recipe(monkeypatch):
    """Also those of two sides, and those that may be None."""
    train, given = script(), {}
    monkeypatch.setattr(
        lu, "pretrain", lambda *_, **more: given.update(more) or lu.History()
    )
    flags = (
        "--data d --tokenizer t --preset smoke --checkpoint-activations "
        "--no-compile --embedding-learning-rate 0.01 --context 32 --loss-rows 8"
    )
    monkeypatch.setattr(sys, "argv", ["train.py", *flags.split()])
    train.main()
    assert {k: v for k, v in given.items() if v or k == "compile"} == {
        "checkpoint_activations": True,
        "compile": False,
        "embedding_learning_rate": 0.01,
        "context": 32,
        "loss_rows": 8,
    }
    fields = {f.name for f in dataclasses.fields(lu.TrainConfig)}
    assert fields - {"betas", "milestones", "max_minutes"} == set(train.RECIPE)
    assert set(train.PLAN) == {f.name for f in dataclasses.fields(lu.Plan)}


@pytest.mark.parametrize("preset", lu.RECIPES)
def test_the_script_tells_what_a_preset_has(preset, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["train.py", "--preset", preset, "--help"])
    with pytest.raises(SystemExit, match="0"):
        script().arguments()
    steps = lu.RECIPES[preset].steps
    assert f"updates of the weights ({steps})" in capsys.readouterr().out


@pytest.mark.full
def test_nobody_waits_for_the_fallen(tmp_path):
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="I fall"):
        on_processes(2, tmp_path, "fall")
    assert time.monotonic() - began < 500
    with pytest.raises(TimeoutError, match="ended"):
        lu.launch(1, "try_plans", timeout=0, trials=[], shape={})


@pytest.mark.full
def test_the_script_spreads_a_run(tmp_path):
    """Two processes in shards, stopped; one goes on; the model is whole."""
    tokenizer = lu.BPETokenizer.train(["a valley and a mill " * 9] * 9, 300)
    tokenizer.save(tmp_path / "tokenizer")
    text = tmp_path / "text.jsonl"
    draw = np.random.default_rng(1)
    words = "a valley and the mill by a bridge".split()
    text.write_text(
        "".join(
            json.dumps({"text": " ".join(draw.choice(words, 40))}) + "\n"
            for _ in range(300)
        )
    )

    def run(world, out, *more):
        return subprocess.run(
            [
                *python_on(world),
                str(ROOT / "ch05_pretrain" / "train.py"),
                "--preset",
                "smoke",
                "--data",
                str(text),
                "--tokenizer",
                str(tmp_path / "tokenizer"),
                "--out",
                str(tmp_path / out),
                "--batch-size",
                "4",
                "--context",
                "32",
                "--steps",
                "4",
                "--precision",
                "float32",
                "--optimizer",
                "adamw",
                *more,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=600,
            capture_output=True,
            text=True,
        )

    def losses(out):
        lines = (tmp_path / out / "run" / "log.jsonl").read_text().splitlines()
        return [e["loss"] for e in map(json.loads, lines) if "norm" in e]

    bad = run(2, "bad", "--fsdp", "2", "--tensor-parallel", "2")
    assert bad.returncode
    assert re.search(
        "train.py: .* makes 4 processes, and there are 2", bad.stderr
    )
    alone = run(1, "alone")
    assert alone.returncode == 0, alone.stderr
    first = run(2, "spread", "--fsdp", "2", "--max-minutes", "0")
    assert "stopped; run it again" in first.stdout, first.stderr
    assert len(losses("spread")) == 1
    done = run(1, "spread", "--fsdp", "1")
    assert "done: 4 steps" in done.stdout, done.stderr
    assert losses("spread") == pytest.approx(losses("alone"), abs=1e-5)
    model, _ = lu.load_model(tmp_path / "spread" / "base")
    expected, _ = lu.load_model(tmp_path / "alone" / "base")
    ids = torch.arange(20)[None]
    assert torch.allclose(model(ids)[0], expected(ids)[0], atol=1e-2)
    assert math.isfinite(losses("spread")[-1])


if __name__ == "__main__":
    {"cases": cases, "fall": fall}[sys.argv[1]](*sys.argv[2:])

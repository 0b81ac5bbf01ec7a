"""A run that DeepSpeed spreads is the same run.

As in test_ch05_parallel.py, whose processes these are. The package is not
among the book's requirements; without it only the sentences are tested.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import test_ch05_parallel as parallel
import torch
from safetensors.torch import load_file

import llm_utils as lu

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="DeepSpeed is not installed: pip install deepspeed==0.19.8",
)


def zero(stage, **more):
    """DeepSpeed's settings; in stage 3 small weights are cut as well."""
    return {
        "zero_optimization": {
            "stage": stage,
            "stage3_param_persistence_threshold": 0,
            **more,
        }
    }


def test_bad_files_get_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(lu, "workers", lambda: (0, 2))
    shape = lu.ModelConfig.preset("smoke")
    good = lu.TrainConfig(optimizer="adamw")
    for settings, config, said in (
        ({}, good, "stage of 1, 2 or 3; it has None"),
        ({"zero_optimization": 2}, good, "it has None"),
        (zero(0), good, "it has 0"),
        (zero(1) | {"gradient_clipping": 0.3}, good, "--clip-norm decides"),
        (zero(1) | {"bf16": {"enabled": True}}, good, "--precision decides"),
        (zero(1), lu.TrainConfig(optimizer="muon"), "--optimizer adamw"),
        (zero(1), lu.TrainConfig(optimizer="adamw8bit"), "adamw8bit cannot"),
        (
            zero(1),
            lu.TrainConfig(optimizer="adamw", batch_size=9),
            "9 rows do not divide among 2 processes",
        ),
    ):
        with pytest.raises(ValueError, match=said) as error:
            lu.ZeroPlan(settings).check(shape, config)
        assert "\n" not in str(error.value)
    lu.ZeroPlan(zero(3) | {"train_batch_size": "auto"}).check(shape, good)
    shape.dropout = 0.1
    with pytest.raises(ValueError, match="dropout"):
        lu.ZeroPlan(zero(1)).check(shape, good)

    with pytest.raises(ValueError, match="is not there"):
        lu.ZeroPlan.read(tmp_path / "zero.json")
    for text, said in (("[1]", "no JSON object"), ("{", "not JSON")):
        (tmp_path / "zero.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            lu.ZeroPlan.read(tmp_path / "zero.json")
    (tmp_path / "zero.json").write_text(json.dumps(zero(2)))
    assert lu.ZeroPlan.read(tmp_path / "zero.json").settings == zero(2)


def test_without_the_package_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    config = parallel.make_config()
    with pytest.raises(ImportError, match=r"pip install deepspeed==\d"):
        lu.ZeroPlan(zero(1))(parallel.make_model(), config)


def test_the_script_knows_one_way_at_a_time():
    done = subprocess.run(
        [sys.executable, str(parallel.ROOT / "ch05_pretrain" / "train.py")]
        + "--data d --tokenizer t --deepspeed z.json --fsdp 2".split(),
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert done.stderr.strip() == (
        "train.py: --deepspeed spreads by itself: leave out --fsdp"
    )


@needs_deepspeed
def test_two_processes_give_the_same_losses(tmp_path):
    case = {"zero": zero(2), "model": {"tied": True}, "config": {"pieces": 2}}
    parallel.hold(2, tmp_path, [case])


@needs_deepspeed
@pytest.mark.full
def test_every_stage_gives_the_same_losses(tmp_path):
    switches = {"pieces": 2, "loss_rows": 16, "checkpoint_activations": True}
    parallel.hold(
        2,
        tmp_path,
        [
            {"zero": zero(1), "config": {"pieces": 2}},
            {"zero": zero(2), "model": {"pad": 64}},
            {"zero": zero(3), "model": {"tied": True}, "config": switches},
        ],
    )


@needs_deepspeed
@pytest.mark.full
def test_a_run_goes_on_in_other_stages_and_without(tmp_path):
    """Stages 1 and 3 on two processes, 2 on one, then chapter 5 alone."""
    case = {"config": {"steps": 6, "pieces": 2}, "model": {"tied": True}}
    soon = {**case, "config": {**case["config"], "max_minutes": 0}}
    folder = {"folder": str(tmp_path / "run")}
    own = {"folder": str(tmp_path / "own"), "zero": zero(3)}
    two, one = tmp_path / "two", tmp_path / "one"
    parts = [
        {**soon, **folder, "zero": zero(1)},
        {**soon, **folder, "zero": zero(3)},
        {**case, "zero": zero(3)},  # in one stage, straight on
        {**soon, **own},
        {**case, **own},
    ]
    parallel.on_processes(2, two, "cases", json.dumps(parts))
    last = [{**soon, **folder, "zero": zero(2)}]
    parallel.on_processes(1, one, "cases", json.dumps(last))
    for n, path in enumerate((two / "0.json", two / "1.json", one / "0.json")):
        found = json.loads(path.read_text())
        assert found["steps"] == n + 1 and found["stopped"] == "time"
    model, history = parallel.trained(case, None, **folder, resume=True)
    whole, straight = parallel.trained(case)
    assert history.steps == 6 and history.stopped == "done"
    assert history.losses == pytest.approx(straight.losses, abs=1e-5)
    for p, q in zip(model.parameters(), whole.parameters()):
        assert torch.allclose(p, q, atol=1e-5)
    straight, resumed = (load_file(two / f"{n}.safetensors") for n in (2, 4))
    assert all(torch.equal(straight[k], resumed[k]) for k in straight)


def hold_slices(out):
    """What each of the processes holds, and what a sick gradient does."""
    lu.start_workers()
    config, found = parallel.make_config(), {}
    ids = torch.randint(97, (8, 33), generator=torch.Generator().manual_seed(0))
    x, y = ids[:, :-1], ids[:, 1:]
    for stage in (1, 2, 3):
        model = lu.ZeroPlan(zero(stage))(parallel.make_model(), config)
        model.train()
        model.batch_loss(x, y, config)
        engine, states = model.engine, model.adamw.state
        held = {
            "weights": [getattr(p, "ds_tensor", p) for p in model.parameters()],
            "gradients": [
                t
                for part in engine.optimizer.averaged_gradients.values()
                for t in part or ()
            ],
            "copy": list(states),
            "means": [t for s in states.values() for t in s.values() if t.ndim],
        }
        found[stage] = {k: sum(t.numel() for t in v) for k, v in held.items()}
        before = model.gather()
        model.engine.backward(model.engine(x, y)[1] * float("inf"))
        with pytest.raises(FloatingPointError, match="gradient at step 7"):
            model.optimizer_step(7, config)
        after = model.gather()
        if before:
            assert all(
                map(torch.equal, before.parameters(), after.parameters())
            )
        engine.destroy()
    lu.write_json(f"{out}/{lu.workers()[0]}.json", found)
    lu.stop_workers()


@needs_deepspeed
@pytest.mark.full
def test_each_process_holds_its_slices(tmp_path):
    """The lab's formulas, and a gradient that is not finite moves nothing."""
    parallel.on_processes(2, tmp_path, "slices", script=__file__)
    N = lu.count_parameters(parallel.make_model())
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for stage, held in found.items():
            parts = 2 if stage == "3" else 1
            assert held["weights"] == pytest.approx(N / parts, rel=0.02)
            assert held["copy"] == pytest.approx(N / 2, rel=0.02)
            assert held["means"] == pytest.approx(2 * N / 2, rel=0.02)
        assert found["2"]["gradients"] == pytest.approx(N / 2, rel=0.02)


@needs_deepspeed
@pytest.mark.full
def test_the_script_takes_a_file(tmp_path):
    """Two processes by stage 2, stopped; one goes on; the model is whole."""
    tokenizer = lu.BPETokenizer.train(["a valley and a mill " * 9] * 9, 300)
    tokenizer.save(tmp_path / "tokenizer")
    lu.write_lines(
        tmp_path / "text.jsonl",
        ({"text": f"a mill by the valley {n} " * 9} for n in range(300)),
    )
    (tmp_path / "zero.json").write_text(json.dumps(zero(2)))

    def run(world, out, *more):
        options = (
            "--preset smoke --data text.jsonl --tokenizer tokenizer "
            "--batch-size 4 --context 32 --steps 4 --precision float32 "
            f"--optimizer adamw --out {out}"
        )
        script = parallel.ROOT / "ch05_pretrain" / "train.py"
        done = subprocess.run(
            [*parallel.python_on(world), str(script), *options.split(), *more],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            timeout=600,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def losses(out):
        lines = (tmp_path / out / "run" / "log.jsonl").read_text().splitlines()
        return [e["loss"] for e in map(json.loads, lines) if "norm" in e]

    by_file = ("--deepspeed", "zero.json")
    assert "done: 4 steps" in run(1, "alone")
    assert "run it again" in run(2, "zero", *by_file, "--max-minutes", "0")
    assert "done: 4 steps" in run(1, "zero", *by_file)
    assert losses("zero") == pytest.approx(losses("alone"), abs=1e-5)
    model, _ = lu.load_model(tmp_path / "zero" / "base")
    expected, _ = lu.load_model(tmp_path / "alone" / "base")
    ids = torch.arange(20)[None]
    assert torch.allclose(model(ids)[0], expected(ids)[0], atol=1e-2)


if __name__ == "__main__":
    hold_slices(sys.argv[2])

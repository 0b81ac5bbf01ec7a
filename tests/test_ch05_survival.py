"""Chapter 5: a run that is killed, cut short, starved of disk or fed a NaN."""

import json
import math
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import psutil
import pytest
import test_ch05
import torch
from test_ch05 import (
    CONFIG,
    environment,
    losses,
    make_model,
    same_weights,
    script,
)

import llm_utils as lu

# the fixtures of chapter 5
tokenizer, shards, data = test_ch05.tokenizer, test_ch05.shards, test_ch05.data

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
fork = multiprocessing.get_context("forkserver")
fork.set_forkserver_preload(["llm_utils"])  # a start costs no import


def run_script(argv, said):
    """`python argv… >said 2>&1`, in this process."""
    with open(said, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")


def started(command, said=os.devnull):
    """A process of its own that runs the script."""
    process = fork.Process(target=run_script, args=(command, str(said)))
    process.start()
    return process


def finish(command, said=os.devnull):
    process = started(command, said)
    process.join()
    assert process.exitcode == 0


def weights(out):
    return lu.sha256_file(out / "base" / "model.safetensors")


# -- SIGKILL ---------------------------------------------------------------------


def lines(out):
    """How many steps the log of a run holds."""
    try:
        return (out / "run" / "log.jsonl").read_text().count('"norm"')
    except FileNotFoundError:
        return 0


def kill(command, out, moment):
    """Run until `moment`, and kill; False if the run was done before it.

    moment: ("step", n, seconds): so long after n new steps; or ("write",
    seconds): so long after a checkpoint begins to be written.
    """
    kind, *count, wait = moment
    last = lu.latest_checkpoint(out / "run")
    before = int(last.name[-7:]) if last else 0
    process = started(command)
    while process.is_alive():
        if kind == "step":
            there = lines(out) >= before + count[0]
        else:
            there = any((out / "run").glob(".step-*"))
        if there:
            time.sleep(wait)
            break
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


@linux
@pytest.mark.full
def test_killed_at_twenty_moments_it_ends_with_the_same_weights(
    tokenizer, shards, tmp_path
):
    """SIGKILL between steps, in a step, and while a checkpoint is written."""
    more = ["--steps", "200", "--checkpoint-every", "3", "--eval-every", "0"]
    finish(script(tokenizer, shards, tmp_path / "calm", *more))
    out = tmp_path / "killed"
    command = script(tokenizer, shards, out, *more)
    draw, halves = np.random.default_rng(20), 0
    for life in range(20):
        moment = ("step", int(draw.integers(1, 9)), draw.uniform(0, 0.02))
        if life % 3 == 2:
            moment = ("write", draw.uniform(0, 0.006) * (life % 2))
        assert kill(command, out, moment), "the run was done too soon"
        half = len(list((out / "run").glob(".step-*")))
        halves += half > 0
        last = lu.latest_checkpoint(out / "run")
        print(life, *moment, "step", lines(out), "half written", half, last)
        if last:  # whatever was being written, this one is whole
            lu.load_checkpoint(
                last,
                lu.GPT(
                    lu.ModelConfig.preset(
                        "smoke", vocab_size=tokenizer.vocab_size
                    )
                ),
            )
    assert halves >= 3, "no kill fell into the writing of a checkpoint"
    finish(command)
    assert losses(out) == losses(tmp_path / "calm")
    assert len(losses(out)) == 200
    assert weights(out) == weights(tmp_path / "calm")
    assert not list((out / "run").glob(".*"))  # nothing half written is left


# -- many processes ----------------------------------------------------------------


def torchrun(tokenizer, shards, out, *more):
    return script(
        tokenizer,
        shards,
        out,
        *more,
        before=[
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--monitor-interval",  # no process has time to spare
            "0.001",
            "--nproc-per-node",
            "2",
        ],
    )


def worker(launcher, rank):
    """The process of a rank that torchrun started, once it is there."""
    while launcher.is_running():
        for child in launcher.children(recursive=True):
            try:
                if child.environ().get("RANK") == str(rank):
                    return child
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                pass
        time.sleep(0.05)


@linux
@pytest.mark.full
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_killed_ends_the_job_with_a_sentence_and_it_resumes(
    tokenizer, shards, tmp_path, rank
):
    more = ["--steps", "120", "--checkpoint-every", "5", "--eval-every", "0"]
    calm = torchrun(tokenizer, shards, tmp_path / "calm", *more)
    out = tmp_path / "killed"
    command = torchrun(tokenizer, shards, out, *more)
    run = subprocess.Popen(
        command,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    victim = worker(psutil.Process(run.pid), rank)
    while lines(out) < 12 and run.poll() is None:
        time.sleep(0.01)
    victim.kill()
    said, _ = run.communicate(timeout=600)
    assert run.returncode
    assert "another process of this run is gone" in said, said
    assert "last good checkpoint is" in said and "Signal 9" in said
    for each in (command, calm):
        subprocess.run(each, env=environment(), check=True, capture_output=True)
    assert losses(out) == losses(tmp_path / "calm") and len(losses(out)) == 120
    assert weights(out) == weights(tmp_path / "calm")


# -- time, and asked to stop ---------------------------------------------------------


@linux
@pytest.mark.full
def test_parts_of_so_many_minutes_make_the_same_run(
    tokenizer, shards, tmp_path
):
    more = ["--steps", "60", "--checkpoint-every", "7"]
    finish(script(tokenizer, shards, tmp_path / "calm", *more))
    out, stops = tmp_path / "parts", []
    command = script(tokenizer, shards, out, *more, "--max-minutes", "0.002")
    for part in range(60):
        finish(command, tmp_path / f"said-{part}")
        steps = lines(out)
        said = (tmp_path / f"said-{part}").read_text()
        if steps == 60:
            break
        assert "stopped; run it again to go on" in said
        assert lu.latest_checkpoint(out / "run").name == f"step-{steps:07d}"
        stops.append(steps)
    assert len(stops) >= 2 and len(set(stops)) == len(stops)
    assert "done: 60 steps" in said
    assert losses(out) == losses(tmp_path / "calm")
    assert weights(out) == weights(tmp_path / "calm")


@linux
@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_run_that_is_asked_to_stop_saves_itself_first(
    tokenizer, shards, tmp_path, number, code
):
    more = [
        "--steps",
        "2000",
        "--checkpoint-every",
        "1000",
        "--eval-every",
        "0",
    ]
    out, log = tmp_path / "out", tmp_path / "said"
    process = started(script(tokenizer, shards, out, *more), log)
    while process.is_alive() and lines(out) < 5:
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == code
    said, steps = log.read_text(), lines(out)
    assert 5 <= steps < 1000  # not one was lost
    assert lu.latest_checkpoint(out / "run").name == f"step-{steps:07d}"
    assert f"{number.name}: the run stops after step {steps}; the last" in said
    assert "Traceback" not in said


def test_signals_are_heard_again_after_a_run(tokenizer, data, tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def ask(history):
        if history.steps == 5:
            signal.raise_signal(signal.SIGINT)

    model = make_model(tokenizer)
    config = replace(CONFIG, eval_every=1, eval_documents=1)
    with pytest.raises(KeyboardInterrupt):
        lu.train(model, data, config, data, tmp_path, progress=ask)
    assert lu.latest_checkpoint(tmp_path).name == "step-0000006"
    assert before == [
        signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)
    ]
    goes_on_to_the_bit(tokenizer, data, replace(config, eval_every=0), tmp_path)


# -- what must not reach the weights --------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_nan_touches_no_weight(tokenizer, data, tmp_path, optimizer, what):
    model, seen = make_model(tokenizer), {}
    config = replace(CONFIG, optimizer=optimizer, checkpoint_every=4)
    poisoned = model.blocks[0].attention.q_proj.weight

    def poison(history):
        if history.steps == 6:
            seen.update({n: p.clone() for n, p in model.named_parameters()})
            if what == "loss":
                model.norm.register_forward_hook(lambda *_: _[-1] * math.nan)
            else:
                poisoned.register_hook(lambda g: g * math.inf)

    with pytest.raises(FloatingPointError) as caught:
        lu.train(
            model,
            data,
            replace(config, eval_every=1, eval_documents=1),
            data,
            tmp_path,
            progress=poison,
        )
    assert f"the {what} at step 6 is" in str(caught.value)
    assert "step-0000004" in str(caught.value)
    assert len(seen) and all(
        torch.equal(p, seen[n]) for n, p in model.named_parameters()
    )


# -- the disk --------------------------------------------------------------------------


@contextmanager
def small_disk(folder, size):
    """A disk of `size` bytes, mounted at `folder`; skips where one may not."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def file_limit(size):
    """No file may grow beyond `size` bytes, as by `ulimit -f`."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def goes_on_to_the_bit(tokenizer, data, config, folder):
    """Resume what stands in `folder`; compare with a run that was left alone."""
    whole, rest = make_model(tokenizer), make_model(tokenizer, seed=7)
    calm = lu.train(whole, data, config, progress=None)
    after = lu.train(
        rest, data, config, folder=folder, resume=True, progress=None
    )
    assert calm.records == after.records
    assert same_weights(whole, rest)


@linux
def test_a_file_that_may_not_grow_leaves_the_last_checkpoint(
    tokenizer, data, tmp_path
):
    """A real failure of a write in the middle of optimizer.safetensors."""
    config = replace(CONFIG, checkpoint_every=4, eval_every=1, eval_documents=1)
    sizes = {}

    def limit(history):
        if history.steps == 6:
            last = lu.latest_checkpoint(tmp_path)
            sizes.update({p.name: p.stat().st_size for p in last.iterdir()})
            limits.append(file_limit(sizes["optimizer.safetensors"] - 1000))
            limits[0].__enter__()

    limits = []
    with pytest.raises(OSError) as caught:
        try:
            lu.train(
                make_model(tokenizer),
                data,
                config,
                data,
                tmp_path,
                progress=limit,
            )
        finally:
            for each in limits:
                each.__exit__(None, None, None)
    said = str(caught.value)
    assert sizes["model.safetensors"] < sizes["optimizer.safetensors"] - 1000
    assert said.startswith("the checkpoint of step 8 could not be written")
    assert "File too large" in said and "step-0000004; make room" in said
    assert said.count("\n") == 0
    assert not list(tmp_path.glob(".*"))
    goes_on_to_the_bit(tokenizer, data, replace(config, eval_every=0), tmp_path)


@linux
@pytest.mark.parametrize("left", [0, 20_000, 60_000])
def test_a_disk_that_fills_leaves_the_last_checkpoint(
    tokenizer, data, tmp_path, left
):
    """With no room the log fails; with some, one of the checkpoint's files."""
    config = replace(CONFIG, checkpoint_every=4, eval_every=1, eval_documents=1)
    with small_disk(tmp_path / "disk", 4_000_000) as disk:

        def fill(history):
            if history.steps == 6:
                free = os.statvfs(disk)
                room = free.f_bavail * free.f_frsize - left // 4096 * 4096
                (disk / "film.mkv").write_bytes(bytes(room))

        with pytest.raises(OSError) as caught:
            lu.train(
                make_model(tokenizer),
                data,
                config,
                data,
                disk / "run",
                progress=fill,
            )
        said = str(caught.value)
        assert "could not be written (No space left on device" in said, said
        assert "step-0000004; make room" in said and said.count("\n") == 0
        lu.load_checkpoint(disk / "run", make_model(tokenizer))  # is whole
        assert not list((disk / "run").glob(".step-*"))
        with pytest.raises(OSError, match="No space left") as caught:
            lu.train(
                make_model(tokenizer),
                data,
                config,
                data,
                disk / "run",
                resume=True,
                progress=None,
            )  # still full: nothing is lost
        lu.load_checkpoint(disk / "run", make_model(tokenizer))
        (disk / "film.mkv").unlink()
        goes_on_to_the_bit(
            tokenizer, data, replace(config, eval_every=0), disk / "run"
        )


@pytest.mark.parametrize(
    "name, fault",
    [
        *(
            (name, fault)
            for name in ("model.safetensors", "optimizer.safetensors")
            for fault in ("truncated", "altered", "empty")
        ),
        ("checkpoint.json", "truncated"),
        ("checkpoint.json", "empty"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    tokenizer, data, tmp_path, name, fault
):
    config = replace(CONFIG, checkpoint_every=4, keep_checkpoints=2)
    lu.train(
        make_model(tokenizer),
        data,
        replace(config, max_minutes=None),
        folder=tmp_path,
        progress=None,
    )
    newest = lu.latest_checkpoint(tmp_path)
    path = newest / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "truncated": whole[:middle],
            "empty": b"",
            "altered": whole[:middle]
            + bytes([whole[middle] ^ 1])
            + whole[middle + 1 :],
        }[fault]
    )
    model = make_model(tokenizer, seed=3)
    with pytest.raises(ValueError, match="remove this folder") as caught:
        lu.train(
            model, data, config, folder=tmp_path, resume=True, progress=None
        )
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert same_weights(model, make_model(tokenizer, seed=3))
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    assert lu.latest_checkpoint(tmp_path).name == "step-0000008"
    goes_on_to_the_bit(tokenizer, data, config, tmp_path)


def test_what_a_killed_writer_left_is_swept(tokenizer, data, tmp_path):
    config = replace(CONFIG, max_minutes=0.0)
    lu.train(
        make_model(tokenizer), data, config, folder=tmp_path, progress=None
    )
    (tmp_path / ".step-0000002.abc").mkdir()
    (tmp_path / ".step-0000002.abc" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".log.jsonl.abc.part").write_text("half")
    (tmp_path / "log.jsonl").open("a").write('{"step": 1, "lo')
    lu.train(
        make_model(tokenizer),
        data,
        CONFIG,
        folder=tmp_path,
        resume=True,
        progress=None,
    )
    assert not list(tmp_path.glob(".*"))
    entries = [
        json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert [e["step"] for e in entries if "norm" in e] == list(range(1, 13))

"""Run copies of the chapters, in order, and only those that need it.

    python book/run.py                what changed, and what follows from it
    python book/run.py ch05 ch06      these, if they changed
    python book/run.py lab_quality    a lab; they run only when they are named
    python book/run.py --force ch05   this one in any case
    python book/run.py --plan         only tell what would run, and why

At the preset gpt2-124m the steps of gpt2_124m.py take the place of chapters 5
to 8, whose notebooks measure against the truth of Pocket World.

The executed copies stand under _build/<preset>/, the notebooks themselves
stay as they are. When only prose changed, a copy gets the new prose and keeps
its outputs. What makes a chapter run again is told in keys.py.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)

import export
import keys
from chapters import (
    CHAPTERS,
    ROOT,
    Chapter,
    Lab,
    existing,
    labs,
    maker,
    write_atomically,
)
from watch import Client, Meter, clock, heading_above

PRESETS = ("smoke", "pocket", "gpt2-124m")
# What is done instead of a chapter's notebook, by the program gpt2_124m.py.
STEPS = {
    "gpt2-124m": {
        "ch05": ("compare", "base", "pack"),
        "ch06": ("classify", "instruct"),
        "ch07": ("prefer",),
        "ch08": ("evaluate", "samples"),
    }
}


class Stop(Exception):
    """The run cannot go on; the message says why."""


def preset() -> str:
    name = os.environ.get("LLM_PRESET", "pocket")
    if name not in PRESETS:
        raise Stop(f"LLM_PRESET is {name!r}: choose {', '.join(PRESETS)}")
    return name


def copy_of(chapter: Chapter, preset: str) -> Path:
    """Where the executed copy of a chapter stands."""
    return ROOT / "_build" / preset / chapter.path


def kernel_environment(preset: str) -> dict[str, str]:
    """The environment of the kernels: the same for every reader."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    path = [str(ROOT), str(ROOT / "ch01_data"), os.environ.get("PYTHONPATH")]
    return {
        "OMP_NUM_THREADS": str(cores),
        # A thread that waits for the others should look about for a moment
        # before it goes to sleep: a step of training has a thousand small
        # parts, and to be woken for each costs up to a quarter of the time. (To
        # look for longer gains nothing, and beside a busy program it costs much.)
        "GOMP_SPINCOUNT": "10000",
        # glibc gives large blocks back after every step of training and asks
        # for them again, which costs a sixth of the time: it may keep 2 GiB.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
        **os.environ,
        "LLM_PRESET": preset,
        "PYTHONHASHSEED": "0",
        # no bars of libraries in the pages, and no question for the widgets
        # that would draw them
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore:IProgress not found",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "TOKENIZERS_PARALLELISM": "false",
    }


def read_copy(path: Path):
    """An executed copy and the key it was made with; None where none is."""
    try:
        notebook = nbformat.read(path, as_version=4)
        return notebook, notebook.metadata.pop("made_with")
    except (OSError, ValueError, KeyError):
        return None


def write_copy(path: Path, notebook, key: dict | None) -> None:
    notebook.metadata.pop("widgets", None)
    if key:
        notebook.metadata["made_with"] = key
    write_atomically(path, nbformat.writes(notebook) + "\n")


def carry_outputs(old, new) -> None:
    """Give the cells of `new` the outputs of the same code in `old`."""
    pairs = zip(
        [c for c in old.cells if c.cell_type == "code"],
        [c for c in new.cells if c.cell_type == "code"],
        strict=True,
    )
    for source, target in pairs:
        target.outputs = source.outputs
        target.execution_count = source.execution_count


def missing(preset: str, names) -> list[str]:
    """Which of these artifacts are not there."""
    folder = ROOT / "artifacts" / preset
    return [name for name in names if not (folder / name).exists()]


def show_failure(chapter: Chapter, client: Client, error) -> None:
    if cell := client.current:
        print(f"\n{chapter.path} failed in cell [{cell.get('id')}]")
        if heading := heading_above(client.nb, client.nb.cells.index(cell)):
            print(f"under “{heading}”")
        print(textwrap.indent(cell.source, "    | "))
    else:
        print(f"\n{chapter.path} failed before its first cell")
    text = getattr(error, "traceback", "") or str(error)
    if isinstance(error, DeadKernelError):
        text = "The kernel was stopped, or ran out of memory."
    print(text if sys.stdout.isatty() else strip_colours(text))


def strip_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def execute(chapter: Chapter, preset: str) -> tuple[object, dict]:
    """Run a copy of a chapter; its notebook and what it took."""
    notebook = nbformat.read(chapter.notebook, as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    filled = sum(bool(cell.source.strip()) for cell in code)
    meter = Meter(f"{chapter.name} {chapter.title}", filled)
    client = Client(notebook, meter, chapter.folder)
    meter.start()
    partial = copy_of(chapter, preset).with_suffix(".partial.ipynb")
    try:
        client.execute(env=kernel_environment(preset))
    except (CellExecutionError, CellTimeoutError, RuntimeError) as error:
        meter.stop()  # RuntimeError: the kernel is dead, or did not start
        write_copy(partial, notebook, None)
        show_failure(chapter, client, error)
        raise Stop(f"what ran so far: {partial.relative_to(ROOT)}") from None
    seconds = meter.stop()
    partial.unlink(missing_ok=True)
    took = {"seconds": round(seconds, 2), "peak_memory_bytes": meter.peak}
    return notebook, took


def record(chapter: Chapter, preset: str, took: dict) -> None:
    """Keep a chapter's last run in measured/run.json, and the totals."""
    path = ROOT / "artifacts" / preset / "measured" / "run.json"
    try:
        chapters = json.loads(path.read_text(encoding="utf-8"))["chapters"]
    except (OSError, ValueError, KeyError):
        chapters = {}
    chapters = dict(sorted({**chapters, chapter.name: took}.items()))
    totals = {
        "chapters": chapters,
        "seconds": round(sum(c["seconds"] for c in chapters.values()), 2),
        "peak_memory_bytes": max(
            c["peak_memory_bytes"] for c in chapters.values()
        ),
    }
    write_atomically(path, json.dumps(totals, indent=2) + "\n")
    report = path.parent.parent / "report.json"
    if report.exists():
        card = json.loads(report.read_text(encoding="utf-8"))
        card["seconds"] = totals["seconds"]
        card["peak_memory_bytes"] = totals["peak_memory_bytes"]
        write_atomically(
            report, json.dumps(card, indent=2, ensure_ascii=False) + "\n"
        )


def reason(old: dict | None, new: dict, lost: list[str], force: bool) -> str:
    """Why a chapter must run; empty if it need not."""
    if old is None:
        return "it has not run yet"
    if changed := keys.changes(old, new):
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{changed[0]}{more} changed"
    if lost:
        return f"{lost[0]} is missing"
    return "you asked for it" if force else ""


def refresh(
    chapter: Chapter,
    preset: str,
    exports: keys.Exports,
    force: bool,
    plan: bool,
) -> None:
    """Bring one chapter's copy up to date, or tell what that would take."""
    label = f"{chapter.name} {chapter.title}"
    absent = missing(preset, chapter.reads)
    if absent and not plan:
        raise Stop(
            f"{label}: artifacts/{preset}/{absent[0]} is missing: "
            f"run `make {maker(absent[0]).name}` first"
        )
    key = keys.key(chapter, preset, exports)
    path = copy_of(chapter, preset)
    copy = read_copy(path)
    promised = chapter.promised
    lost = [f"artifacts/{preset}/{name}" for name in missing(preset, promised)]
    why = reason(copy and copy[1], key, lost, force)
    print(f"{label}: {'runs, as ' + why if why else 'nothing changed'}")
    if plan:
        return
    if not why:
        notebook = nbformat.read(chapter.notebook, as_version=4)
        carry_outputs(copy[0], notebook)
        write_copy(path, notebook, key)
        return
    notebook, took = execute(chapter, preset)
    if unwritten := missing(preset, promised):
        raise Stop(
            f"{label} ran, but wrote no artifacts/{preset}/{unwritten[0]}"
        )
    write_copy(path, notebook, key)
    if not isinstance(chapter, Lab):
        record(chapter, preset, took)
    memory = took["peak_memory_bytes"] / 1e9
    print(
        f"{label}: done in {clock(took['seconds'])}, {memory:.1f} GB at most",
        flush=True,
    )


def program(steps: list[str], preset: str, *options: str) -> list[str]:
    """The command that takes steps of the 124M model."""
    path = ROOT / "book" / "gpt2_124m.py"
    out = ["--out", f"artifacts/{preset}", "--preset", preset]
    return [sys.executable, str(path), *steps, *out, *options]


def call(command: list[str], environment: dict) -> int:
    """Run a program to its end; its exit status.

    A signal to stop is left to the program, which first saves what it has.
    """
    child = subprocess.Popen(command, cwd=ROOT, env=environment)
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    stopped = None
    try:
        while child.returncode is None:
            try:
                child.wait()
            except KeyboardInterrupt as interrupt:
                stopped = interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
    if stopped:
        raise stopped
    return child.returncode


def take_steps(steps: list[str], preset: str, force: bool, plan: bool) -> bool:
    """Take steps of the 124M model; whether all of them were.

    Without the base there is nothing to go on with: Stop.
    """
    options = ["--force"] * force + ["--plan"] * plan
    environment = kernel_environment(preset)
    sys.stdout.flush()
    if call(program(steps, preset, *options), environment) == 0:
        return True
    told = subprocess.run(
        program(["base"], preset, "--plan"),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    ).stdout
    if not told.startswith("base: nothing changed"):
        raise Stop("the base model is not there yet: the same command goes on")
    return False


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Run the chapters that need it."
    )
    parser.add_argument(
        "chapters",
        nargs="*",
        help="ch01 … ch08 (all where none is named), lab_…",
    )
    parser.add_argument(
        "--force", action="store_true", help="run them in any case"
    )
    parser.add_argument(
        "--plan", action="store_true", help="only tell what would run"
    )
    options = parser.parse_args(arguments)
    known = [chapter.name for chapter in (*CHAPTERS, *labs())]
    if unknown := sorted(set(options.chapters) - set(known)):
        parser.error(f"{unknown[0]} is no chapter: {', '.join(known)}")
    if failed := export.main([]):
        return failed
    try:
        name = preset()
        exports = keys.Exports(export.TARGET.read_text(encoding="utf-8"))
        wanted = [
            chapter
            for chapter in existing()
            if not options.chapters or chapter.name in options.chapters
        ]
        wanted += [lab for lab in labs() if lab.name in options.chapters]
        steps = []
        for chapter in wanted:
            if chapter.name in STEPS.get(name, ()):
                steps += STEPS[name][chapter.name]
            else:
                refresh(chapter, name, exports, options.force, options.plan)
        if steps:
            whole = take_steps(steps, name, options.force, options.plan)
            if options.chapters and not whole:
                return 1
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

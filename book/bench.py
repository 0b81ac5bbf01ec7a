"""Measure parts of the book beside the tools that others use for the same.

    python book/bench.py data                 the whole family
    python book/bench.py data dedup shards    these; the others stay as recorded

A family's benchmarks are the files book/benches/<family>_<name>.py. Each has a
docstring whose first line says what is compared, PACKAGES, the packages whose
versions belong to the figures, and `measure()`, which returns a dict of numbers
and texts that JSON can hold. Each runs in a process of its own, so that one's
memory is not another's, and nothing else should run meanwhile. The figures go
to results/bench-<family>.json, each benchmark's with date, command, hardware
and versions. One that cannot be measured here says why in a sentence, and the
figures that stood before are kept.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chapters import ROOT, write_atomically
from run import Stop, kernel_environment

BENCHES = ROOT / "book" / "benches"


def real_data() -> Path:
    """The folder of real texts that LLM_REAL_DATA names."""
    named = os.environ.get("LLM_REAL_DATA")
    if not named or not Path(named).is_dir():
        raise Stop(
            "these figures need real text: put the path of a folder into "
            "LLM_REAL_DATA, with pretrain/*.jsonl.xz in it "
            f"({named or 'nothing'} is there now)"
        )
    return Path(named)


def real_texts(megabytes: float, skip: int = 0) -> list[str]:
    """Whole documents of real text, at least so many million bytes of UTF-8.

    skip: documents to pass over first, for texts that were not seen before.
    """
    import lzma

    texts, size = [], 0.0
    for shard in sorted((real_data() / "pretrain").glob("train-*.jsonl.xz")):
        with lzma.open(shard, "rt", encoding="utf-8") as file:
            for line in file:
                if skip:
                    skip -= 1
                    continue
                texts.append(json.loads(line)["text"])
                size += len(texts[-1].encode()) / 1e6
                if size >= megabytes:
                    return texts
    raise Stop(f"there are only {size:.0f} MB of real text, not {megabytes}")


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes, in seconds of the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def side_by_side(rounds: int = 3, **ways: Callable[[], object]) -> dict:
    """Time several ways of doing one thing, in turn, round after round.

    Returns the median seconds of each way ("<way>_seconds") and, for every
    way after the first, the median over rounds of first / this
    ("over_<way>": below 1 the first is the faster). A machine that is slow
    for a while is so for all ways of a round.
    """
    taken = [
        {name: seconds(way) for name, way in ways.items()}
        for _ in range(rounds)
    ]
    first, *others = ways
    out = {
        f"{name}_seconds": statistics.median(t[name] for t in taken)
        for name in ways
    }
    for name in others:
        out[f"over_{name}"] = statistics.median(
            t[first] / t[name] for t in taken
        )
    return out


def names(family: str) -> list[str]:
    """The benchmarks of a family, in order."""
    files = sorted(BENCHES.glob(f"{family}_*.py"))
    return [f.stem.removeprefix(f"{family}_") for f in files]


def peak_bytes() -> int:
    """The most memory this process has held, or one of its children."""
    unit = 1 if sys.platform == "darwin" else 1024
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return unit * max(resource.getrusage(w).ru_maxrss for w in whose)


def run_one(family: str, name: str, target: Path) -> None:
    """Measure in this process; the figures go to the file `target`."""
    bench = importlib.import_module(f"benches.{family}_{name}")
    began = time.perf_counter()
    figures = bench.measure()
    about = {
        "about": bench.__doc__.strip().partition("\n")[0],
        "command": f"make bench-{family}",
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "seconds": round(time.perf_counter() - began, 1),
        "peak_memory_bytes": peak_bytes(),
        "versions": {p: importlib.metadata.version(p) for p in bench.PACKAGES},
    }
    target.write_text(json.dumps(about | figures))


def hardware() -> dict:
    """What the figures were measured on."""
    import torch

    from llm_utils import has_tiles

    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "tiles": has_tiles(),
        "python": platform.python_version(),
    }


def show(figures: dict, indent: str = "  ") -> None:
    """Print what was measured, a line a figure."""
    for key, value in figures.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            show(value, indent + "  ")
        else:
            told = f"{value:,.4g}" if isinstance(value, float) else value
            print(f"{indent}{key}: {told}", flush=True)


def run_family(family: str, wanted: list[str]) -> bool:
    """Measure, one process after the other; False if one could not."""
    target = ROOT / "results" / f"bench-{family}.json"
    measures = json.loads(target.read_text()) if target.exists() else {}
    well = True
    for name in wanted:
        print(f"{family}: {name}", flush=True)
        with tempfile.TemporaryDirectory() as place:
            part = Path(place) / "figures.json"
            command = [
                sys.executable,
                __file__,
                family,
                name,
                "--into",
                str(part),
            ]
            environment = kernel_environment("pocket")
            if subprocess.run(command, env=environment).returncode:
                well = False
                continue
            figures = json.loads(part.read_text())
        show(figures)
        measures = dict(sorted((measures | {name: figures}).items()))
        write_atomically(target, json.dumps(measures, indent=1) + "\n")
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("family")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    there = names(asked.family)
    if not there:
        sys.exit(f"there are no benchmarks of {asked.family}")
    if unknown := sorted(set(asked.names) - set(there)):
        sys.exit(f"no benchmark {unknown}: choose of {', '.join(there)}")
    try:
        if asked.into:
            run_one(asked.family, asked.names[0], asked.into)
        elif not run_family(asked.family, asked.names or there):
            sys.exit(1)
    except Stop as stop:
        sys.exit(str(stop))


if __name__ == "__main__":
    main()

"""The memory that reading five gigabytes takes, streaming and not.

Each way of reading runs in a process of its own, which looks 50 times a second
at its own memory: `peak_own_bytes` is what it holds itself; what it maps from
files, which the system takes back when it needs the room, is counted only in
`peak_resident_bytes`. The bar is 1.5 GB for the first.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chapters import ROOT

PACKAGES = ("datasets", "pyarrow", "FastWARC")
GIGABYTES = 5.0
BAR_BYTES = 1.5e9


def peaks(stop, out: dict) -> None:
    """Watch this process until told to stop."""
    import psutil

    process = psutil.Process()
    while not stop.wait(0.02):
        memory = process.memory_info()
        own = memory.rss - getattr(memory, "shared", 0)
        out["own"] = max(out["own"], own)
        out["resident"] = max(out["resident"], memory.rss)


def read_all(path: str, way: str) -> None:
    """Read every text of a file, and print what it took as JSON."""
    import threading

    from llm_utils import load_corpus

    out, stop = {"own": 0, "resident": 0}, threading.Event()
    watcher = threading.Thread(target=peaks, args=(stop, out))
    watcher.start()
    began, texts, size = time.perf_counter(), 0, 0
    for row in load_corpus(path, streaming=way == "streaming"):
        texts, size = texts + 1, size + len(row["text"])
    stop.set()
    watcher.join()
    print(json.dumps({
        "texts": texts, "letters": size,
        "seconds": time.perf_counter() - began,
        "peak_own_bytes": out["own"], "peak_resident_bytes": out["resident"],
    }))  # fmt: skip


def write_lines(path: Path, n_bytes: float) -> None:
    """JSON Lines of invented texts of many lengths, cheaply made."""
    import numpy as np

    rng = np.random.default_rng(0)
    words = np.array(["ferry", "pear", "Zoë’s", "weir", "\n", "mended", "42"])
    lines = []
    for size in rng.lognormal(6, 1, 4000).astype(int) + 1:
        text = " ".join(rng.choice(words, size).tolist())
        lines.append(json.dumps({"text": text, "title": "A notice"}) + "\n")
    block = "".join(lines).encode()
    packer = None
    if path.suffix == ".zst":
        import zstandard

        packer = zstandard.ZstdCompressor(level=1)
    with open(path, "wb") as file:
        sink = packer.stream_writer(file, closefd=False) if packer else file
        for _ in range(int(n_bytes // len(block)) + 1):
            sink.write(block)
        if packer:
            sink.close()


def measure(gigabytes: float = GIGABYTES) -> dict:
    """`gigabytes`: the size of the files that are read, uncompressed."""
    out = {}
    with tempfile.TemporaryDirectory() as place:
        free = shutil.disk_usage(place).free
        if free < 3e9 * gigabytes:
            raise OSError(f"{free / 1e9:.0f} GB free in {place}: too few")
        for suffix, ways in (
            ("", ("streaming", "not streaming")),
            (".zst", ("streaming",)),
        ):
            path = Path(place) / f"rows.jsonl{suffix}"
            write_lines(path, gigabytes * 1e9)
            for way in ways:
                done = subprocess.run(
                    [sys.executable, "-m", __name__, str(path), way],
                    stdout=subprocess.PIPE, text=True, check=True,
                    cwd=ROOT / "book",
                )  # fmt: skip
                name = f"JSON Lines{suffix and ', ' + suffix}, {way}"
                figures = json.loads(done.stdout.splitlines()[-1])
                out[name] = {"gigabytes": gigabytes} | figures
            path.unlink()
    most = max(figures["peak_own_bytes"] for figures in out.values())
    return {"reading": out, "bar_bytes": BAR_BYTES, "within": most <= BAR_BYTES}


if __name__ == "__main__":
    read_all(*sys.argv[1:])

"""Runs a notebook and watches it: progress, time and memory."""

import shutil
import sys
import threading
import time
from pathlib import Path

import psutil
from nbclient import NotebookClient
from nbclient.util import run_sync


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def heading_above(notebook, index: int) -> str:
    """The last heading before a cell."""
    for cell in reversed(notebook.cells[:index]):
        if cell.cell_type == "markdown":
            for line in reversed(cell.source.split("\n")):
                if line.startswith("#"):
                    return line.lstrip("# ")
    return ""


class Meter(threading.Thread):
    """Watches a kernel while it works: its memory, and a line of progress."""

    def __init__(self, label: str, cells: int):
        super().__init__(daemon=True)
        self.label, self.cells = label, cells
        self.started = time.monotonic()
        self.cell, self.heading, self.said = 0, "", ""
        self.cell_started = self.started
        self.kernel: psutil.Process | None = None
        self.peak = 0
        self.done = threading.Event()
        self.tty = sys.stdout.isatty()
        self.last_log = self.started

    def run(self) -> None:
        while not self.done.wait(0.25):
            self.sample()
            if self.tty:
                self.paint()
            elif time.monotonic() - self.last_log > 60:
                self.log()

    def sample(self) -> None:
        """Memory of the kernel and of the processes it started, in bytes."""
        if self.kernel is None:
            return
        total = 0
        try:
            tree = [self.kernel, *self.kernel.children(recursive=True)]
        except psutil.Error:
            return
        for process in tree:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                pass
        self.peak = max(self.peak, total)

    def line(self) -> str:
        spent = clock(time.monotonic() - self.started)
        said = f" | {self.said}" if self.said else ""
        return (
            f"{self.label}  cell {self.cell}/{self.cells}  {spent}  "
            f"{self.heading}{said}"
        )

    def paint(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        print("\r\x1b[K" + self.line()[:width], end="", flush=True)

    def log(self) -> None:
        self.last_log = time.monotonic()
        print(self.line()[:200], flush=True)

    def cell_begins(self, heading: str) -> None:
        self.cell += 1
        self.heading, self.said = heading, ""
        self.cell_started = time.monotonic()

    def cell_ends(self) -> None:
        """In a log, a line for every cell that took a while."""
        if not self.tty and time.monotonic() - self.cell_started > 5:
            self.log()

    def stop(self) -> float:
        """End the watch; seconds since it began."""
        self.done.set()
        self.join()
        if self.tty:
            print("\r\x1b[K", end="", flush=True)
        return time.monotonic() - self.started


class Client(NotebookClient):
    """nbclient's client, which tells the meter what goes on."""

    def __init__(self, notebook, meter: Meter, folder: Path):
        super().__init__(
            notebook,
            kernel_name="python3",
            timeout=None,
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=40"],
            resources={"metadata": {"path": str(folder)}},
            on_cell_start=self.begins,
            on_cell_executed=self.ends,
        )
        self.meter, self.current = meter, None

    def begins(self, cell, cell_index) -> None:
        if self.meter.kernel is None:
            pid = self.km.provisioner.process.pid
            self.meter.kernel = psutil.Process(pid)
        self.current = cell
        if cell.cell_type == "code":
            self.meter.cell_begins(heading_above(self.nb, cell_index))

    def ends(self, cell, cell_index, execute_reply) -> None:
        self.meter.sample()
        self.meter.cell_ends()

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream":
            lines = msg["content"]["text"].replace("\r", "\n").split("\n")
            said = [line for line in lines if line.strip()]
            self.meter.said = said[-1].strip() if said else self.meter.said
        return super().process_message(msg, cell, cell_index)

    async def _async_cleanup_kernel(self) -> None:
        """Once is enough: the kernel may have been ended already."""
        if self.km is not None:
            await super()._async_cleanup_kernel()

    _cleanup_kernel = run_sync(_async_cleanup_kernel)  # at exit

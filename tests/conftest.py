"""What the tests share: the book's places, and an environment offline."""

import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings

import bench
from run import Stop, kernel_environment

ROOT = Path(__file__).resolve().parent.parent
if "PYTEST_XDIST_WORKER" in os.environ:  # every process has one core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("book", deadline=None, derandomize=True)
settings.load_profile("book")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job's
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items) -> None:
    """The notebooks first: they take one of two processes longest."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


def on_all_cores(check, items) -> None:
    """Call `check` on each item, on all cores; a failure is raised."""
    with ProcessPoolExecutor() as pool:
        list(pool.map(check, items, chunksize=20))


@pytest.fixture(scope="session")
def offline() -> dict[str, str]:
    """An environment whose Python reaches no other machine."""
    environment = kernel_environment("smoke")
    path = [str(ROOT / "book" / "offline"), environment["PYTHONPATH"]]
    programs = [str(Path(sys.executable).parent), environment["PATH"]]
    return environment | {
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": os.pathsep.join(programs),
        "PYTHONPATH": os.pathsep.join(path),
    }


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; without one the test is skipped."""
    try:
        return bench.real_data()
    except Stop as stop:
        pytest.skip(str(stop))

"""Every notebook runs, at the smoke preset, with the network cut off.

nbval runs the cells in order, fails on any error, and compares the output of
the cells marked `# NBVAL_CHECK_OUTPUT` with what was committed. The chapters
hand their artifacts on as they do for a reader, so their order matters here.
"""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

import chapters

EXISTING = chapters.existing()
NBVAL = [
    *(sys.executable, "-m", "pytest", "-q", "-x", "--color=no"),
    *("-p", "no:cacheprovider", "-o", "addopts=", "-o", "timeout=0"),
    *("--nbval-lax", "--nbval-current-env"),
    *("--nbval-cell-timeout", "600"),
    *("--nbval-sanitize-with", "book/nbval.cfg"),
]
REFUSED = "refused"


def run_notebook(path, environment) -> None:
    """Run a notebook through nbval; fail with its last lines."""
    done = subprocess.run(
        [*NBVAL, str(path.relative_to(ROOT))],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]


@pytest.mark.parametrize("chapter", EXISTING, ids=[c.name for c in EXISTING])
def test_chapter(chapter, offline):
    if chapter.number == 1:  # all that follows is made anew
        shutil.rmtree(ROOT / "artifacts" / "smoke", ignore_errors=True)
    run_notebook(chapter.notebook, offline)
    folder = ROOT / "artifacts" / "smoke"
    promised = (*chapter.writes, chapter.measured)
    assert [n for n in promised if not (folder / n).exists()] == []


SOLUTIONS = [c for c in EXISTING if (c.folder / "solutions.ipynb").exists()]


@pytest.mark.parametrize("chapter", SOLUTIONS, ids=[c.name for c in SOLUTIONS])
def test_solutions(chapter, offline):
    """The worked solutions, with all that the chapters made."""
    run_notebook(chapter.folder / "solutions.ipynb", offline)


def test_the_network_is_cut_off(offline):
    """The guard itself: other machines refused, this one reached."""
    code = """
import json, socket
def attempt(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except PermissionError:
        return "refused"
    except OSError:
        return "failed"
    return "reached"
with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    print(json.dumps([attempt("192.0.2.1", 80), attempt("example.org", 443),
                      attempt("localhost", port)]))
"""
    told = subprocess.check_output([sys.executable, "-c", code], env=offline)
    assert json.loads(told) == [REFUSED, REFUSED, "reached"]

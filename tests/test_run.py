"""What runs after what: tried on a book of three tiny chapters."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from small_book import FIRST, Book

DATA = "ch01_data/data.ipynb"
TOKENIZER = "ch02_tokenizer/tokenizer.ipynb"
WORLD = "ch01_data/pocket_world/__init__.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Book:
    """A book that has been run once."""
    book = Book(tmp_path_factory.mktemp("finished"))
    done = book.tool("run")
    assert done.returncode == 0, done.stdout
    return book


@pytest.fixture
def book(finished, tmp_path) -> Book:
    """A copy of the finished book, to change at will."""
    copy = object.__new__(Book)
    copy.folder = tmp_path / "book"
    shutil.copytree(finished.folder, copy.folder)
    return copy


def copied(book: Book, place: str):
    return nbformat.read(book.folder / "_build" / "smoke" / place, 4)


def printed(notebook) -> list[str]:
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    return [o.text for c in cells for o in c.outputs if "text" in o]


def test_copies_hold_outputs_and_notebooks_stay_clean(finished):
    assert printed(copied(finished, TOKENIZER)) == ["18\n"]
    notebook = nbformat.read(finished.folder / TOKENIZER, 4)
    assert printed(notebook) == []


def test_seconds_and_memory_are_kept(finished):
    path = finished.folder / "artifacts" / "smoke" / "measured" / "run.json"
    run = json.loads(path.read_text())
    assert list(run["chapters"]) == ["ch01", "ch02", "ch03"]
    assert run["seconds"] > 0.1
    assert 1e7 < run["peak_memory_bytes"] < 1e9


def test_nothing_changed_runs_nothing(book):
    assert book.would_run() == []


def test_prose_comments_and_docstrings_run_nothing(book):
    book.edit(DATA, "# Data", "# Data, told anew")
    book.edit(DATA, "for the chapters to come", "for later chapters")
    book.edit(DATA, "print(1 + 1)", "print(1 + 1)  # two")
    assert book.would_run() == []
    assert book.tool("run").returncode == 0
    copy = copied(book, DATA)
    assert copy.cells[0].source == "# Data, told anew"
    assert copy.cells[-1].source.endswith("# two")
    assert printed(copy) == ["2\n"]


def test_a_new_plot_runs_only_its_chapter(book):
    book.write(DATA, [*FIRST, "print('a new plot')"])
    assert book.would_run() == ["ch01"]
    done = book.tool("run")
    assert "ch02 Tokenizer: nothing changed" in done.stdout


def test_an_unused_export_runs_only_its_chapter(book):
    book.edit(DATA, "return -x", "return -2 * x")
    assert book.would_run() == ["ch01"]


def test_an_export_used_through_another_runs_its_users(book):
    book.edit(DATA, "return 3 * x", "return 5 * x")
    assert book.would_run() == ["ch01", "ch02"]
    assert book.tool("run").returncode == 0
    assert printed(copied(book, TOKENIZER)) == ["50\n"]
    assert book.would_run() == []


def test_a_new_import_of_the_module_runs_nothing_else(book):
    more = "#| export\nimport re\nfrom pathlib import PurePath\nA = 1"
    book.write(DATA, [*FIRST, more])
    assert book.would_run() == ["ch01"]


def test_an_artifact_with_another_content_runs_its_readers(book):
    (book.folder / "artifacts" / "smoke" / "corpus").write_text("other")
    assert book.would_run() == ["ch02"]


def test_a_lost_artifact_is_made_again(book):
    (book.folder / "artifacts" / "smoke" / "corpus").unlink()
    alone = book.tool("run", "ch02")
    assert alone.returncode == 1
    assert "corpus is missing: run `make ch01` first" in alone.stdout
    done = book.tool("run")
    assert "ch01 Data: runs" in done.stdout
    assert "ch02 Tokenizer: nothing changed" in done.stdout


def test_pocket_world_runs_those_who_use_it(book):
    book.edit(WORLD, "a valley", "a wide valley")
    assert book.would_run() == ["ch01"]
    done = book.tool("run")
    assert "ch02 Tokenizer: runs, as artifacts/smoke/corpus" in done.stdout
    assert "ch03 Attention: nothing changed" in done.stdout


def test_a_variable_runs_those_who_name_it(book, monkeypatch):
    book.write(DATA, [*FIRST, 'print(os.environ.get("LLM_CORPUS"))'])
    assert book.tool("run").returncode == 0
    assert book.would_run() == []
    monkeypatch.setenv("LLM_CORPUS", "letters.txt")
    assert book.would_run() == ["ch01"]


def test_a_failing_cell_is_shown_and_nothing_is_lost(book):
    before = copied(book, DATA)
    book.edit(DATA, "print(1 + 1)", "print(1 / 0)")
    done = book.tool("run")
    assert done.returncode == 1
    assert "ch01_data/data.ipynb failed in cell [cell-6]" in done.stdout
    assert "| print(1 / 0)" in done.stdout
    assert "ZeroDivisionError" in done.stdout
    assert "ch02" not in done.stdout
    assert copied(book, DATA) == before
    partial = copied(book, "ch01_data/data.partial.ipynb")
    assert partial.cells[-1].outputs[0].output_type == "error"


def test_a_kernel_that_does_not_start_is_told(book, tmp_path):
    before = copied(book, DATA)
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit(1)")
    book.edit(DATA, "print(1 + 1)", "print(2 + 1)")
    done = book.tool("run", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "ch01_data/data.ipynb failed before its first cell" in done.stdout
    assert copied(book, DATA) == before


def test_a_chapter_that_breaks_its_promise_fails(book):
    book.edit(TOKENIZER, 'save(\\"shards\\", 2)', "pass")
    (book.folder / "artifacts" / "smoke" / "shards").unlink()
    done = book.tool("run", "ch02")
    assert done.returncode == 1
    assert "wrote no artifacts/smoke/shards" in done.stdout


def test_an_unknown_chapter_and_preset_are_refused(book):
    assert "ch09 is no chapter" in book.tool("run", "ch09").stdout
    wrong = book.tool("run", LLM_PRESET="huge")
    assert wrong.returncode == 1 and "choose smoke, pocket" in wrong.stdout


def test_record_writes_outputs_back(book):
    book.tool("run", LLM_PRESET="pocket")
    book.write("ch01_data/solutions.ipynb", ["print('solved')"])
    done = book.tool("record")
    assert done.returncode == 0, done.stdout
    solved = nbformat.read(book.folder / "ch01_data/solutions.ipynb", 4)
    assert printed(solved) == ["solved\n"]
    notebook = nbformat.read(book.folder / DATA, 4)
    assert printed(notebook) == ["2\n"]
    assert [c.id for c in notebook.cells][0] == "cell-0"
    assert str(book.folder) not in (book.folder / DATA).read_text()
    book.edit(DATA, "print(1 + 1)", "print(1 + 2)")
    again = book.tool("record", "ch01")
    assert again.returncode == 1
    assert "run `make ch01` first" in again.stdout


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_no_kernel_and_the_old_copy(book, number):
    before = copied(book, DATA)
    sleep = r"import time\nopen('begun', 'w').close()\ntime.sleep(600)"
    book.edit(DATA, "print(1 + 1)", sleep)
    run = subprocess.Popen(
        [sys.executable, "book/run.py", "ch01"],
        cwd=book.folder,
        env={**os.environ, "LLM_PRESET": "smoke"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started = psutil.Process(run.pid)
    while not (kernels := started.children()):
        time.sleep(0.1)
    while not (book.folder / DATA).with_name("begun").exists():
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(number)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "stopped, or ran out of memory" in said
    assert psutil.wait_procs(kernels, timeout=10)[1] == []
    assert copied(book, DATA) == before
    assert book.would_run() == ["ch01"]

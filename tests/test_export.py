"""The module is what the notebooks say, and says so when it cannot be."""

import subprocess
import sys

import pytest
from conftest import ROOT
from small_book import FIRST, Book

DATA = "ch01_data/data.ipynb"


@pytest.fixture
def book(tmp_path) -> Book:
    return Book(tmp_path)


def module(book: Book) -> str:
    done = book.tool("export")
    assert done.returncode == 0, done.stdout
    return (book.folder / "llm_utils.py").read_text()


def test_committed_module_is_what_the_notebooks_say():
    check = [sys.executable, "book/export.py", "--check"]
    assert subprocess.run(check, cwd=ROOT).returncode == 0


def test_import_is_quick(offline):
    """A chapter starts at once: heavy imports wait in functions.

    In seconds of processor, so that a busy machine does not fail it.
    """
    code = "import time, llm_utils; print(time.process_time())"
    spent = [
        float(
            subprocess.check_output(
                [sys.executable, "-c", code], env=offline, cwd=ROOT
            )
        )
        for _ in range(2)  # the first may have to compile
    ]
    assert min(spent) <= 3.0


def test_no_notebook_gives_an_empty_module(book):
    for path in book.folder.glob("ch*/*.ipynb"):
        path.unlink()
    names = {}
    exec(module(book), names)
    assert names["__all__"] == []


def test_imports_stand_once_at_the_top(book):
    more = "#| export\nimport json\nfrom pathlib import Path, PurePath\n\nA = 1"
    book.write(DATA, [*FIRST, more])
    text = module(book)
    assert text.count("import json") == 1
    assert "from pathlib import Path, PurePath\n" in text
    assert text.index("import json") < text.index("__all__")
    assert '"A",' in text
    assert "# ch01_data/data.ipynb [cell-7]\nA = 1" in text


def test_labs_come_last_and_solutions_export_nothing(book):
    cell = "#| export\ndef from_{}():\n    pass"
    book.write("ch01_data/solutions.ipynb", [cell.format("solutions")])
    book.write("ch01_data/lab_one.ipynb", [cell.format("lab")])
    book.write("ch02_tokenizer/tokenizer.ipynb", [cell.format("chapter")])
    text = module(book)
    assert "from_solutions" not in text
    assert text.index("def from_chapter") < text.index("def from_lab")


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ("#| export\ndef triple(x):\n    pass", "triple is exported already"),
        ("# | export\nA = 1", "the first line must be"),
        ("A = 1\n#| export", "the first line must be"),
        ("#| export\nfrom llm_utils import save\nA = 1", "imports llm_utils"),
        ("#| export\nimport pandas\nA = 1", "imports pandas at the top"),
        ("#| export\nimport numpy as json\nA = 1", "imported as two things"),
        ("#| export\nfrom math import e as save", "which"),
        ("#| export\nimport re; A = 1", "shares its line"),
        ("#| export\nA = (", "was never closed"),
    ],
)
def test_an_error_names_the_cell(book, cell, complaint):
    book.write(DATA, [*FIRST, cell])
    done = book.tool("export")
    assert done.returncode == 1
    assert complaint in done.stdout
    assert "ch01_data/data.ipynb [cell-7]" in done.stdout
    assert not (book.folder / "llm_utils.py").exists()


def test_check_sees_a_stale_module(book):
    module(book)
    assert book.tool("export", "--check").returncode == 0
    book.edit(DATA, "return 3 * x", "return 4 * x")
    assert book.tool("export", "--check").returncode == 1
    assert "3 * x" in (book.folder / "llm_utils.py").read_text()

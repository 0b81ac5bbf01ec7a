"""A book of three tiny chapters, to try the tools of the real one on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent

FIRST = [
    "# Data",
    "#| export\nimport json\nimport os\nfrom pathlib import Path\n\n\n"
    "def save(name, value):\n"
    '    """Write a value for the chapters to come."""\n'
    '    path = Path("../artifacts", os.environ["LLM_PRESET"], name)\n'
    "    path.parent.mkdir(parents=True, exist_ok=True)\n"
    "    path.write_text(json.dumps(value))\n",
    "#| export\ndef triple(x):\n    return 3 * x\n",
    "#| export\ndef nine_times(x):\n    return triple(triple(x))\n",
    "#| export\ndef never_used(x):\n    return -x\n",
    'from pocket_world import VALLEY\nsave("corpus", VALLEY)\n'
    'save("measured/ch01.json", {})',
    "print(1 + 1)",
]
SECOND = [
    "# Tokenizer",
    "from llm_utils import nine_times, save\n\nprint(nine_times(2))",
    'save("tokenizer", 1)\nsave("shards", 2)\nsave("measured/ch02.json", {})',
]
THIRD = [
    "# Attention",
    'from llm_utils import save\n\nsave("measured/ch03.json", {})',
]


class Book:
    """The tools, copied beside three notebooks in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "book").mkdir()
        for tool in (ROOT / "book").glob("*.py"):
            shutil.copy(tool, folder / "book")
        world = folder / "ch01_data" / "pocket_world"
        world.mkdir(parents=True)
        (world / "__init__.py").write_text("VALLEY = 'a valley'\n")
        self.write("ch01_data/data.ipynb", FIRST)
        self.write("ch02_tokenizer/tokenizer.ipynb", SECOND)
        self.write("ch03_attention/attention.ipynb", THIRD)

    def write(self, place: str, cells: list[str]) -> None:
        """Write a notebook; a cell that begins with `# A` is prose."""
        notebook = new_notebook()
        for number, text in enumerate(cells):
            prose = text.startswith("# ") and text[2].isupper()
            make = new_markdown_cell if prose else new_code_cell
            notebook.cells.append(make(text, id=f"cell-{number}"))
        path = self.folder / place
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)

    def edit(self, place: str, old: str, new: str) -> None:
        """Replace a text in a file of the book."""
        path = self.folder / place
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def tool(self, name: str, *arguments: str, **environment: str):
        """Run a tool of this book; its exit status and what it says."""
        return subprocess.run(
            [sys.executable, f"book/{name}.py", *arguments],
            cwd=self.folder,
            env={**os.environ, "LLM_PRESET": "smoke", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def would_run(self) -> list[str]:
        """The chapters that a run would execute."""
        told = self.tool("run", "--plan")
        assert told.returncode == 0, told.stdout
        lines = told.stdout.splitlines()
        return [line[:4] for line in lines if ": runs, as" in line]

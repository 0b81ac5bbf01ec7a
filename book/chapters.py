"""The chapters and labs: where each stands, what it reads and what it writes.

Artifacts are folders (or files) under `artifacts/<preset>/`. A chapter may
look at an artifact of a later one when it happens to be there (chapter 3
draws a trained head): such an optional read is not listed, so it never makes
the chapter run again.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Chapter:
    """One chapter: its number, its notebook and the artifacts between."""

    number: int
    path: str
    title: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`ch03`, as in `make ch03`."""
        return f"ch{self.number:02d}"

    @property
    def notebook(self) -> Path:
        return ROOT / self.path

    @property
    def measured(self) -> str:
        """Where the chapter leaves its figures for the report card."""
        return f"measured/{self.name}.json"

    @property
    def promised(self) -> tuple[str, ...]:
        """All that must be there when the chapter has run."""
        return (*self.writes, self.measured)

    @property
    def folder(self) -> Path:
        return self.notebook.parent


class Lab(Chapter):
    """An experiment beside a chapter: run and recorded only when named."""

    @property
    def name(self) -> str:
        """`lab_quality`, as in `make lab_quality`."""
        return self.notebook.stem

    @property
    def promised(self) -> tuple[str, ...]:
        return ()


CHAPTERS = (
    Chapter(1, "ch01_data/data.ipynb", "Data", (), ("corpus",)),
    Chapter(
        2,
        "ch02_tokenizer/tokenizer.ipynb",
        "Tokenizer",
        ("corpus",),
        ("tokenizer", "shards"),
    ),
    Chapter(3, "ch03_attention/attention.ipynb", "Attention"),
    Chapter(4, "ch04_model/model.ipynb", "Model"),
    Chapter(
        5,
        "ch05_pretrain/pretrain.ipynb",
        "Pretraining",
        ("tokenizer", "shards"),
        ("base",),
    ),
    Chapter(
        6,
        "ch06_finetune/finetune.ipynb",
        "Fine-tuning",
        ("base", "shards"),
        ("classifier", "instruct"),
    ),
    Chapter(7, "ch07_dpo/dpo.ipynb", "Preferences", ("instruct",), ("dpo",)),
    Chapter(
        8,
        "ch08_inference/inference.ipynb",
        "Inference",
        ("base", "classifier", "instruct", "dpo")
        + tuple(f"measured/ch{number:02d}.json" for number in range(1, 8)),
        ("report.json",),
    ),
)


def existing() -> list[Chapter]:
    """The chapters whose notebook is there, in order."""
    return [chapter for chapter in CHAPTERS if chapter.notebook.exists()]


def labs() -> list[Lab]:
    """The labs of all chapters; each may read what chapters 1 and 2 made."""
    return [
        Lab(
            chapter.number,
            path.relative_to(ROOT).as_posix(),
            "Lab",
            ("corpus", "tokenizer", "shards"),
        )
        for chapter in existing()
        for path in sorted(chapter.folder.glob("lab_*.ipynb"))
    ]


def maker(artifact: str) -> Chapter:
    """The chapter that writes an artifact."""
    for chapter in CHAPTERS:
        if artifact in (*chapter.writes, chapter.measured):
            return chapter
    raise KeyError(f"no chapter writes {artifact}")


def code_cells(path: Path) -> list[dict]:
    """The code cells of a notebook, each `source` as one string."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        {**cell, "source": "".join(cell["source"])}
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all, and not when it says so already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)

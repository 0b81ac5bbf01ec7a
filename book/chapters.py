"""The eight chapters: where each stands, what it reads and what it writes.

Artifacts are folders (or files) under `artifacts/<preset>/`. A chapter may
look at an artifact of a later one when it happens to be there (chapter 3
draws a trained head): such an optional read is not listed, so it never makes
the chapter run again.
"""

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
    def folder(self) -> Path:
        return self.notebook.parent


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
        ("base",),
        ("classifier", "instruct"),
    ),
    Chapter(7, "ch07_dpo/dpo.ipynb", "Preferences", ("instruct",), ("dpo",)),
    Chapter(
        8,
        "ch08_inference/inference.ipynb",
        "Inference",
        ("base", "classifier", "instruct", "dpo"),
        ("report.json",),
    ),
)


def existing() -> list[Chapter]:
    """The chapters whose notebook is there, in order."""
    return [chapter for chapter in CHAPTERS if chapter.notebook.exists()]

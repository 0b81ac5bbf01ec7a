"""What a chapter's results depend on, as a key that can be compared.

A chapter is run again when one of these has changed: its own code; the code
of the exports it imports, and of what those use in turn; the artifacts it
reads, and the records in results/ that it draws; Pocket World, if it uses it;
the preset, and the other LLM_… variables that the code names; the versions of
the packages it imports. Prose, comments and docstrings change none of them, nor
does an export that the chapter does not use.
"""

import ast
import hashlib
import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from chapters import ROOT, Chapter, code_cells

WORLD = ROOT / "ch01_data" / "pocket_world"


def digest(*parts: str | bytes) -> str:
    """A short hash of texts or bytes, in order."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Hash of a file, or of all files of a folder with their names."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    files = sorted(
        p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")
    )
    return digest(
        *(f"{p.relative_to(path).as_posix()} {file_digest(p)}" for p in files)
    )


def parse(source: str) -> ast.Module | None:
    """A cell's syntax tree without docstrings; None if it is not Python."""
    lines = [
        "pass" if line.startswith(("%", "!")) else line
        for line in source.split("\n")
    ]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def normal(source: str) -> str:
    """Code without comments, docstrings and spacing."""
    tree = parse(source)
    magics = [s for s in source.split("\n") if s.startswith(("%", "!"))]
    return source if tree is None else ast.dump(tree) + "".join(magics)


@dataclass
class Uses:
    """What code names: our exports, other packages, variables, records."""

    exports: set[str] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    records: set[str] = field(default_factory=set)

    def add(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.packages |= {a.name.split(".")[0] for a in node.names}
                if any(a.name == "llm_utils" for a in node.names):
                    self.exports.add("*")
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.packages.add(node.module.split(".")[0])
                if node.module == "llm_utils":
                    self.exports |= {a.name for a in node.names}
            elif isinstance(node, ast.Constant):
                if re.fullmatch("LLM_[A-Z_]+", str(node.value)):
                    self.variables.add(node.value)
            elif isinstance(node, ast.BinOp):
                found = re.search(
                    r"/ 'results' / '([^']+)'$", ast.unparse(node)
                )
                self.records |= set(found.groups()) if found else set()


class Exports:
    """The definitions of llm_utils.py and what each of them uses."""

    def __init__(self, text: str):
        self.nodes: dict[str, list[ast.AST]] = {}
        self.always: list[ast.AST] = []
        for statement in parse(text).body:
            for node in self.singly(statement):
                for name in self.bound(node):
                    self.nodes.setdefault(name, []).append(node)
        self.nodes.pop("__all__", None)

    @staticmethod
    def singly(node: ast.stmt) -> list[ast.stmt]:
        """An import of several names as several imports."""
        if isinstance(node, ast.Import):
            return [ast.Import([alias]) for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            return [
                ast.ImportFrom(node.module, [alias], node.level)
                for alias in node.names
            ]
        return [node]

    def bound(self, node: ast.stmt) -> set[str]:
        """Names that a top-level statement defines."""
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ):
            return {node.name}
        if isinstance(node, ast.Import | ast.ImportFrom):
            return {(a.asname or a.name).split(".")[0] for a in node.names}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            return {
                n.id
                for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
        if not isinstance(getattr(node, "value", None), ast.Constant):
            self.always.append(node)
        return set()

    def reached(self, names: set[str]) -> list[ast.AST]:
        """The statements that `names` lead to, in order of the names."""
        if not names:
            return []
        todo = set(self.nodes) if "*" in names else set(names)
        todo |= {
            n.id
            for node in self.always
            for n in ast.walk(node)
            if isinstance(n, ast.Name)
        }
        seen: set[str] = set()
        while todo:
            name = todo.pop()
            if name in seen or name not in self.nodes:
                continue
            seen.add(name)
            for node in self.nodes[name]:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    continue
                todo |= {
                    n.id for n in ast.walk(node) if isinstance(n, ast.Name)
                }
        found = [n for name in sorted(seen) for n in self.nodes[name]]
        return found + self.always


@cache
def installed() -> dict[str, list[str]]:
    """Import name -> distributions that hold it."""
    return importlib.metadata.packages_distributions()


def versions(packages: set[str]) -> dict[str, str]:
    """Versions of the packages that are imported, and of Python."""
    names = {d for p in packages for d in installed().get(p, ())}
    names -= {"llm-utils"}
    found = {name: importlib.metadata.version(name) for name in sorted(names)}
    return {"python": platform.python_version()} | found


def key(chapter: Chapter, preset: str, exports: Exports) -> dict:
    """All that decides a chapter's results, part by part, for comparison."""
    cells = code_cells(chapter.notebook)
    uses = Uses()
    for cell in cells:
        if tree := parse(cell["source"]):
            uses.add(tree)
    used = exports.reached(uses.exports)
    for node in used:
        uses.add(node)
    folder = ROOT / "artifacts" / preset
    parts = {
        "its code": digest(
            *(
                normal(c["source"]) + str(c["metadata"].get("tags", ""))
                for c in cells
            )
        ),
        "the exports it uses": digest(*map(ast.dump, used)),
        "the preset": preset,
    }
    parts |= {
        f"the version of {name}": version
        for name, version in versions(uses.packages).items()
    }
    parts |= {
        f"the variable {name}": os.environ[name]
        for name in sorted(uses.variables - {"LLM_PRESET"})
        if name in os.environ
    }
    if "pocket_world" in uses.packages:
        parts["Pocket World"] = digest(
            *(
                path.name + normal(path.read_text(encoding="utf-8"))
                for path in sorted(WORLD.glob("*.py"))
            )
        )
    parts |= {
        f"results/{name}": file_digest(ROOT / "results" / name)
        for name in sorted(uses.records)
        if (ROOT / "results" / name).exists()
    }
    return parts | {
        f"artifacts/{preset}/{name}": file_digest(folder / name)
        for name in chapter.reads
        if (folder / name).exists()
    }


def changes(old: dict, new: dict) -> list[str]:
    """The parts in which two keys differ."""
    return [part for part in {**new, **old} if old.get(part) != new.get(part)]

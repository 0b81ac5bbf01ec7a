"""Collect `#| export` cells of chapters and labs, in order, in llm_utils.py.

    python book/export.py           write llm_utils.py
    python book/export.py --check   fail if it is not what the notebooks say

Imports are lifted to the top of the module, once each. A name belongs to one
notebook; a second export of it is an error. Labs come after all chapters: what
they export is for train.py and for other labs. Solutions export nothing.
"""

import ast
import re
import sys
from dataclasses import dataclass

from chapters import ROOT, code_cells, existing, labs, write_atomically

TARGET = ROOT / "llm_utils.py"
MARK = "#| export"
HEADER = '''"""What the chapters of the book export, in one module.

Generated from the notebooks by `python book/export.py`. Do not edit: change
the notebook cell named above each piece, then export again.
"""
'''
# Anything else is imported inside the function that needs it, so that
# `import llm_utils` stays quick.
ALLOWED = {*sys.stdlib_module_names, "numpy", "torch", "regex"}


class ExportError(Exception):
    """A cell that cannot go into the module; the message names it."""


@dataclass
class Piece:
    """One exported cell: where it stands, its imports, its code, its names."""

    where: str  # ch03_attention/attention.ipynb [cell-id]
    chapter: str  # ch03
    imports: list[tuple[str, str, str]]  # (module or "", name, bound name)
    code: str
    names: list[str]


def bound_names(tree: ast.Module) -> list[str]:
    """Names that the top level of a cell defines."""
    names = []
    for node in tree.body:
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = (
                node.targets if isinstance(node, ast.Assign) else [node.target]
            )
            names += [
                part.id
                for target in targets
                for part in ast.walk(target)
                if isinstance(part, ast.Name)
                and isinstance(part.ctx, ast.Store)
            ]
    return names


def split_imports(source: str, where: str):
    """Take the top-level imports out of a cell: (imports, remaining code)."""
    lines, imports = source.split("\n"), []
    tree = ast.parse(source)
    for node in reversed(tree.body):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module = "" if isinstance(node, ast.Import) else node.module or ""
        found = [
            (module, alias.name, alias.asname or "") for alias in node.names
        ]
        for top in {(module or name).split(".")[0] for _, name, _ in found}:
            if top not in ALLOWED:
                hint = (
                    "in the module all names live together: drop it"
                    if top == "llm_utils"
                    else "import it inside the function that needs it"
                )
                raise ExportError(f"{where} imports {top} at the top; {hint}")
        if any(
            other is not node
            and other.lineno <= node.end_lineno
            and node.lineno <= other.end_lineno
            for other in tree.body
        ):
            raise ExportError(f"{where}: an import shares its line with code")
        imports = found + imports
        del lines[node.lineno - 1 : node.end_lineno]
    return imports, "\n".join(lines).strip("\n")


def pieces_of(chapter) -> list[Piece]:
    """The exported cells of one chapter."""
    pieces = []
    for number, cell in enumerate(code_cells(chapter.notebook)):
        source = cell["source"]
        where = f"{chapter.path} [{cell.get('id', number)}]"
        first, _, rest = source.partition("\n")
        if first.strip() != MARK:
            if re.search(r"^\s*#\s*\|\s*export\b", source, re.MULTILINE):
                raise ExportError(f"{where}: the first line must be `{MARK}`")
            continue
        try:
            imports, code = split_imports(rest, where)
            names = bound_names(ast.parse(code))
        except SyntaxError as error:
            raise ExportError(f"{where}: {error}") from error
        pieces.append(Piece(where, chapter.name, imports, code, names))
    return pieces


def all_pieces() -> list[Piece]:
    """Every exported cell of the book, each name checked to be new."""
    notebooks = [*existing(), *labs()]
    pieces = [p for notebook in notebooks for p in pieces_of(notebook)]
    owner: dict[str, str] = {}
    for piece in pieces:
        for name in dict.fromkeys(piece.names):
            if name in owner:
                raise ExportError(
                    f"{piece.where}: {name} is exported already by "
                    f"{owner[name]}"
                )
            owner[name] = piece.where
    meaning: dict[str, tuple[str, str]] = {}
    for piece in pieces:
        for module, name, alias in piece.imports:
            bound = alias or (name if module else name.split(".")[0])
            origin = (module, name if alias or module else bound)
            if meaning.setdefault(bound, origin) != origin:
                raise ExportError(
                    f"{piece.where}: {bound} is imported as two things"
                )
            if bound in owner:
                raise ExportError(
                    f"{piece.where}: imports {bound}, which "
                    f"{owner[bound]} defines"
                )
    return pieces


def import_lines(pieces: list[Piece]) -> list[str]:
    """The imports of all pieces, merged: standard library first."""
    plain, members = set(), {}
    for piece in pieces:
        for module, name, alias in piece.imports:
            text = f"{name} as {alias}" if alias else name
            if module:
                members.setdefault(module, set()).add(text)
            else:
                plain.add(text)
    future = sorted(members.pop("__future__", ()))
    lines = [(text, f"import {text}") for text in plain] + [
        (module, f"from {module} import {', '.join(sorted(names))}")
        for module, names in members.items()
    ]
    first, second = [], []
    for module, line in sorted(
        lines, key=lambda pair: (pair[1][0] != "i", pair)
    ):
        top = module.split(".")[0].split(" ")[0]
        (first if top in sys.stdlib_module_names else second).append(line)
    head = [f"from __future__ import {', '.join(future)}", ""]
    gap = [""] if first and second else []
    return (head if future else []) + first + gap + second


def render(pieces: list[Piece]) -> str:
    """The text of llm_utils.py."""
    public = [
        name
        for piece in pieces
        for name in dict.fromkeys(piece.names)
        if not name.startswith("_")
    ]
    listing = "".join(f'    "{name}",\n' for name in public)
    parts = [HEADER]
    if lines := import_lines(pieces):
        parts.append("\n".join(lines) + "\n")
    parts.append(f"__all__ = [\n{listing}]\n" if public else "__all__ = []\n")
    head = "\n".join(parts)
    body = "".join(
        f"\n\n# {piece.where}\n{piece.code}\n" for piece in pieces if piece.code
    )
    return head + body


def main(arguments: list[str]) -> int:
    try:
        text = render(all_pieces())
        compile(text, str(TARGET), "exec")
    except (ExportError, SyntaxError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    if "--check" not in arguments:
        write_atomically(TARGET, text)
        print(f"{TARGET.name}: {text.count(chr(10))} lines")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print(
            "llm_utils.py is not what the notebooks say: run "
            "`python book/export.py`",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

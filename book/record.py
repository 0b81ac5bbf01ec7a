"""Write the outputs of the last pocket run into the committed notebooks.

    python book/record.py           all chapters
    python book/record.py ch03      this one

Only a chapter whose copy is up to date with its code is written. What differs
from machine to machine (timings of cells, versions, folders) is left out.
"""

import sys

import nbformat

import export
import keys
from chapters import ROOT, existing, write_atomically
from run import carry_outputs, copy_of, read_copy

PRESET = "pocket"


def scrub(value):
    """A nested value without the folder this book stands in."""
    if isinstance(value, str):
        return value.replace(f"{ROOT}/", "").replace(str(ROOT), ".")
    if isinstance(value, list):
        return [scrub(item) for item in value]
    if isinstance(value, dict):
        return {key: scrub(item) for key, item in value.items()}
    return value


def clean(notebook) -> None:
    """Keep of the metadata only what says how to show and run a cell."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        for noise in ("execution", "collapsed", "trusted", "ExecuteTime"):
            cell.metadata.pop(noise, None)
        if cell.cell_type == "code":
            cell.outputs = [
                nbformat.from_dict(scrub(out)) for out in cell.outputs
            ]


def main(arguments: list[str]) -> int:
    if failed := export.main([]):
        return failed
    exports = keys.Exports(export.TARGET.read_text(encoding="utf-8"))
    behind = []
    for chapter in existing():
        if arguments and chapter.name not in arguments:
            continue
        copy = read_copy(copy_of(chapter, PRESET))
        if copy is None or keys.changes(
            copy[1], keys.key(chapter, PRESET, exports)
        ):
            behind.append(chapter.name)
            continue
        notebook = nbformat.read(chapter.notebook, as_version=4)
        carry_outputs(copy[0], notebook)
        clean(notebook)
        write_atomically(chapter.notebook, nbformat.writes(notebook) + "\n")
        print(f"{chapter.path}: recorded")
    for name in behind:
        print(f"{name} has changed since it ran: run `make {name}` first")
    return 1 if behind else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

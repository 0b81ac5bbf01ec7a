"""Write the outputs of the last run into the committed notebooks.

    python book/record.py           all chapters
    python book/record.py ch03      this one
    python book/record.py lab_…     a lab; they are recorded only when named

Only a chapter whose copy is up to date with its code is written; its worked
solutions are run then, and recorded too. What differs from machine to machine
(timings of cells, versions, folders) is left out. The report card of the run
goes to results/<preset>.json, with the date and the command; at the default
preset the figures of README.md are renewed from it.
"""

import datetime
import json
import os
import sys

import nbformat

import export
import keys
import readme
from chapters import ROOT, Chapter, Lab, existing, labs, write_atomically
from run import Stop, carry_outputs, copy_of, execute, read_copy

PRESET = os.environ.get("LLM_PRESET", "pocket")


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


def write(path, notebook) -> None:
    clean(notebook)
    write_atomically(path, nbformat.writes(notebook) + "\n")
    print(f"{path.relative_to(ROOT)}: recorded", flush=True)


def record(chapter: Chapter, exports: keys.Exports) -> bool:
    """Record one chapter and run its solutions; False if it is not fresh."""
    copy = read_copy(copy_of(chapter, PRESET))
    key = keys.key(chapter, PRESET, exports)
    if copy is None or keys.changes(copy[1], key):
        print(f"{chapter.name} has changed: run `make {chapter.name}` first")
        return False
    notebook = nbformat.read(chapter.notebook, as_version=4)
    carry_outputs(copy[0], notebook)
    write(chapter.notebook, notebook)
    if isinstance(chapter, Lab):
        return True
    place = f"{chapter.folder.name}/solutions.ipynb"
    solutions = Chapter(chapter.number, place, "Solutions")
    if solutions.notebook.exists():
        write(solutions.notebook, execute(solutions, PRESET)[0])
    return True


def record_card() -> None:
    """Keep the report card of the run among the results."""
    folder = ROOT / "artifacts" / PRESET
    card, run = folder / "report.json", folder / "measured" / "run.json"
    if card.exists() and run.exists():
        measured = {
            "command": f"make book LLM_PRESET={PRESET}",
            "date": datetime.date.today().isoformat(),
            **json.loads(card.read_text(encoding="utf-8")),
            **json.loads(run.read_text(encoding="utf-8")),
        }
        write_atomically(
            ROOT / "results" / f"{PRESET}.json",
            json.dumps(scrub(measured), indent=1, ensure_ascii=False) + "\n",
        )
        if PRESET == "pocket":
            readme.main([])


def main(arguments: list[str]) -> int:
    if failed := export.main([]):
        return failed
    exports = keys.Exports(export.TARGET.read_text(encoding="utf-8"))
    wanted = [c for c in existing() if not arguments or c.name in arguments]
    wanted += [lab for lab in labs() if lab.name in arguments]
    try:
        whole = all([record(c, exports) for c in wanted])
        record_card()
        return 0 if whole else 1
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Build the book, as HTML or as PDF, from the chapters as last run.

    python book/build.py html      _build/html/index.html
    python book/build.py pdf       _build/pdf/book.pdf

A chapter that has not been run at this preset is taken as it was committed.
The sources are laid out under _build as they stand in the repository, so that
a link from a chapter works here and there. Every warning is an error.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import signs
from chapters import ROOT, Chapter, existing, write_atomically

BOOK = ROOT / "book"
# The pages that are no notebooks: the first, and the last.
FRONT, WORDS = "index", "glossary"
# Appendices stand in no toctree; the rest as in conf.py.
QUIET_IN_PDF = (
    "mystnb.unknown_mime_type,bibtex.duplicate_citation,"
    "bibtex.duplicate_label,toc.not_included"
)
# A line of code may stick out by this much before the build fails, in points.
OVERFULL = 12.0


class Failed(Exception):
    """The book could not be built; the message says why."""


def for_sphinx(path: Path) -> bytes:
    """What Sphinx is given of a file: a notebook's code is called Python."""
    if path.suffix != ".ipynb":
        return path.read_bytes()
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"] = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    return json.dumps(notebook, ensure_ascii=False, indent=1).encode()


def copy_if_changed(source: Path, target: Path) -> None:
    """Copy a file unless it is there: Sphinx then reads it only once."""
    data = for_sphinx(source)
    if not target.exists() or target.read_bytes() != data:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def page(name: str) -> str:
    """A page of `book/`, with its links as seen from the top of the source."""
    text = (BOOK / f"{name}.md").read_text(encoding="utf-8")
    return text.replace("](../", "](")


def toctree(caption: str, names: list[str], *options: str) -> str:
    if not names:
        return ""
    head = [":hidden:", *options]
    if caption:
        head.append(f":caption: {caption}")
    return "\n".join(["", "```{toctree}", *head, "", *names, "```", ""])


def lay_out(
    source: Path, pick: Callable[[Chapter], Path], appendices: bool
) -> list[str]:
    """Fill `source` with all that the book is made of.

    `pick` gives the notebook of a chapter. Labs, solutions and the glossary
    become parts of the contents, or are returned (as document names) to be
    appendices.
    """
    wanted: dict[Path, Path] = {}
    chapters, solutions, labs = [], [], []
    for chapter in existing():
        wanted[Path(chapter.path)] = pick(chapter)
        chapters.append(Path(chapter.path).with_suffix("").as_posix())
        for path in sorted(chapter.folder.iterdir()):
            place = path.relative_to(ROOT)
            if path.suffix == ".ipynb" and path != chapter.notebook:
                wanted[place] = path
                kind = solutions if path.stem == "solutions" else labs
                kind.append(place.with_suffix("").as_posix())
            elif path.suffix in (".py", ".html"):
                wanted[place] = path
    for path in [*BOOK.glob("map/*.png"), ROOT / "llm_utils.py"]:
        wanted[path.relative_to(ROOT)] = path
    for path in [*BOOK.glob("bib/*.bib"), *BOOK.glob("pictures/chat.png")]:
        wanted[path.relative_to(BOOK)] = path
    text = page(FRONT)
    text += toctree("" if appendices else "Chapters", chapters, ":numbered: 2")
    if not appendices:
        text += toctree("Labs", labs)
        text += toctree("Worked solutions", solutions)
        text += toctree("Glossary", [WORDS])
    pages = {Path(f"{FRONT}.md"): text, Path(f"{WORDS}.md"): page(WORDS)}
    for path in list(source.rglob("*")) if source.exists() else ():
        place = path.relative_to(source)
        if path.is_file() and not (place in wanted or place in pages):
            path.unlink()
    for place, path in wanted.items():
        copy_if_changed(path, source / place)
    for place, text in pages.items():
        write_atomically(source / place, text)
    return [*labs, *solutions, WORDS] if appendices else []


def sphinx(builder: str, source: Path, out: Path, *options: str) -> None:
    """Run Sphinx with every warning an error."""
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going"]
    command += ["-q", "-b", builder, "-c", str(BOOK), *options]
    command += ["-d", str(out.with_name(f"{out.name}-trees"))]
    if subprocess.run([*command, str(source), str(out)]).returncode:
        raise Failed("Sphinx found something wrong: see above")


def html(pick: Callable[[Chapter], Path], build: Path) -> Path:
    """Build the HTML book under `build`; the path of its first page."""
    source, out = build / "html-source", build / "html"
    lay_out(source, pick, appendices=False)
    sphinx("html", source, out)
    return out / "index.html"


def check_latex() -> None:
    """Say what to install where LaTeX or a part of it is missing."""
    needed = ["fncychap.sty", "newunicodechar.sty", "pzdr.tfm"]
    commands = all(map(shutil.which, ("xelatex", "latexmk", "kpsewhich")))
    parts = commands and all(
        subprocess.run(
            ["kpsewhich" if "." in name else "fc-list", name],
            capture_output=True,
        ).stdout
        for name in [*needed, "DejaVu Sans Mono", "Unifont Upper"]
    )
    if not parts:
        packages = (BOOK / "apt.txt").read_text(encoding="utf-8").split()
        raise Failed(
            "the PDF needs xelatex and latexmk; on Debian or Ubuntu:\n"
            "  apt-get install --no-install-recommends " + " ".join(packages)
        )


def check_log(log: str) -> None:
    """No sign may be missing, and no line may run off the page."""
    lost = sorted(set(re.findall(r"Missing character: .*", log)))
    if lost:
        raise Failed("the PDF lacks signs:\n" + "\n".join(lost[:10]))
    wide = re.findall(r"Overfull \\hbox \((\S+)pt too wide\)(.*\n.*)", log)
    for points, place in wide:
        if float(points) > OVERFULL:
            raise Failed(f"something runs {points} pt off the page{place}")


def pdf(pick: Callable[[Chapter], Path], build: Path) -> Path:
    """Build the PDF book under `build`; its path."""
    check_latex()
    source, out = build / "pdf-source", build / "pdf"
    appendices = lay_out(source, pick, appendices=True)
    options = ["-D", f"suppress_warnings={QUIET_IN_PDF}"]
    if appendices:
        options += ["-D", f"latex_appendices={','.join(appendices)}"]
    sphinx("latex", source, out, *options)
    tex = signs.printable((out / "book.tex").read_text(encoding="utf-8"))
    (out / "book.tex").write_text(tex, encoding="utf-8")
    (out / "signs.tex").write_text(signs.macros(tex), encoding="utf-8")
    command = ["latexmk", "-g", "-xelatex", "-silent", "-halt-on-error"]
    command += ["-interaction=nonstopmode", "book.tex"]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True)
    log = (out / "book.log").read_text(encoding="utf-8", errors="replace")
    if done.returncode:
        errors = [x for x in log.splitlines() if x.startswith(("!", "l."))]
        raise Failed("xelatex stopped:\n" + "\n".join(errors[:20]))
    check_log(log)
    return out / "book.pdf"


def as_last_run(chapter: Chapter) -> Path:
    """A chapter's executed copy, or the committed notebook without one."""
    preset = os.environ.get("LLM_PRESET", "pocket")
    copy = ROOT / "_build" / preset / chapter.path
    return copy if copy.exists() else chapter.notebook


def as_committed(chapter: Chapter) -> Path:
    return chapter.notebook


def main(arguments: list[str]) -> int:
    builders = {"html": html, "pdf": pdf}
    if len(arguments) != 1 or arguments[0] not in builders:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        path = builders[arguments[0]](as_last_run, ROOT / "_build")
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"the book: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What every chapter keeps to, read from the notebooks themselves."""

import ast
import re
import subprocess
import warnings

import nbformat
import pytest
from conftest import ROOT

import chapters
import export
import keys

EXISTING = chapters.existing()
each_chapter = pytest.mark.parametrize(
    "chapter", EXISTING, ids=[c.name for c in EXISTING]
)


def sources(chapter) -> list[str]:
    return [c["source"] for c in chapters.code_cells(chapter.notebook)]


def test_all_eight_are_there():
    assert [c.name for c in EXISTING] == [f"ch0{n}" for n in range(1, 9)]


@each_chapter
def test_imports_only_from_earlier_chapters(chapter):
    owner = {
        name: piece.chapter
        for piece in export.all_pieces()
        for name in piece.names
    }
    uses = keys.Uses()
    for source in sources(chapter):
        if tree := keys.parse(source):
            uses.add(tree)
    assert "*" not in uses.exports, "import the names, not the module"
    later = {n for n in uses.exports if owner.get(n, "none") >= chapter.name}
    assert later == set()


@each_chapter
def test_ten_cells_are_compared(chapter):
    """Those that nbval holds to the output that was committed."""
    mark = re.compile(r"^# NBVAL_CHECK_OUTPUT", re.MULTILINE)
    cells = [
        cell
        for cell in chapters.code_cells(chapter.notebook)
        if mark.search(cell["source"])
    ]
    assert len(cells) >= 10
    empty = [cell["id"] for cell in cells if not cell["outputs"]]
    assert empty == [], "run `make book` and `make record`"


@each_chapter
def test_outputs_are_recorded(chapter):
    """A reader on the web sees results, and the HTML finds its figures."""
    cells = chapters.code_cells(chapter.notebook)
    not_run = [
        cell.get("id")
        for cell in cells
        if cell["source"].strip() and not cell["execution_count"]
    ]
    assert not_run == [], "run `make book` and `make record`"
    kinds = {o["output_type"] for cell in cells for o in cell["outputs"]}
    assert "error" not in kinds


@each_chapter
def test_code_fits_the_page(chapter):
    wide = [
        line
        for source in sources(chapter)
        for line in source.split("\n")
        if len(line) > 80
    ]
    assert wide == []


@pytest.mark.parametrize(
    "notebook", sorted(ROOT.glob("ch0*/*.ipynb")), ids=lambda path: path.stem
)
def test_code_compiles_without_a_warning(notebook):
    """Labs and solutions too; a wrong escape in a text is only warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        warnings.simplefilter("error", DeprecationWarning)
        for cell in chapters.code_cells(notebook):
            if not cell["source"].startswith(("%", "!")):
                compile(cell["source"], cell["id"], "exec")


def titles(notebook, pattern: str) -> list[str]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [
        title
        for cell in cells
        if cell.cell_type == "markdown"
        for title in re.findall(pattern, cell.source, re.M)
    ]


@each_chapter
def test_every_exercise_has_a_solution_and_every_lab_an_exercise(chapter):
    exercise = r"\{exercise\} (.+)"
    asked = titles(chapter.notebook, exercise)
    for lab in chapter.folder.glob("lab_*.ipynb"):
        assert titles(lab, exercise), lab.name
        asked += titles(lab, exercise)
    solutions = chapter.folder / "solutions.ipynb"
    solved = titles(solutions, r"^## (.+?)(?: \(Lab on .+\))?$")
    assert len(asked) >= 4 and sorted(asked) == sorted(solved)


@each_chapter
def test_notebook_is_valid(chapter):
    notebook = nbformat.read(chapter.notebook, as_version=4)
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert notebook.cells[0].source.startswith("# ")


@each_chapter
def test_at_most_two_code_cells_without_a_sentence(chapter):
    notebook = nbformat.read(chapter.notebook, as_version=4)
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    places = [found.start() for found in re.finditer("ccc", kinds)]
    assert [notebook.cells[place].id for place in places] == []


@each_chapter
def test_exports_say_what_they_are_and_where_built(chapter):
    number = chapter.number
    silent = []
    for piece in export.pieces_of(chapter):
        for node in ast.parse(piece.code).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            text = " ".join((ast.get_docstring(node) or "").split())
            public = not node.name.startswith("_")
            if public and f"Built in chapter {number}" not in text:
                silent.append(node.name)
    assert silent == []


def test_no_file_names_a_machine():
    """No home folder, no work folder, no address of this machine."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode:
        pytest.skip("this is not a git checkout")
    places = re.compile(r"/(?:home|Users|root|work)/[a-z_.]", re.IGNORECASE)
    found = []
    for name in tracked.stdout.split("\0"):
        path = ROOT / name
        if not name or not path.is_file() or path == ROOT / __file__:
            continue
        text = path.read_bytes().decode("utf-8", "ignore")
        if str(ROOT) in text or places.search(text):
            found.append(name)
    assert found == []


def test_sizes_told_before_chapter_4_are_those_of_its_models():
    """Chapters 2 and 3 cannot import the presets, and so they repeat them."""
    from llm_utils import ModelConfig

    second, third = ("\n".join(sources(c)) for c in EXISTING[1:3])
    width = ast.literal_eval(re.search(r"^width = (\{.*\})", second, re.M)[1])
    assert width == {name: ModelConfig.preset(name).d_model for name in width}
    shape = ast.literal_eval(re.search(r'"pocket": (\(.*?\))', third)[1])
    c = ModelConfig.preset("pocket")
    assert shape == (
        c.n_layer,
        c.n_head,
        c.n_kv_head,
        c.d_model // c.n_head,
        c.context_length,
    )

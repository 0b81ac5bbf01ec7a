"""Every lab runs at the smoke preset, offline, and can be run by its name."""

import pytest
from test_notebooks import run_notebook

import chapters
import run

LABS = chapters.labs()


def test_labs_are_known_by_name():
    names = [lab.name for lab in LABS]
    assert "lab_quality" in names and len(set(names)) == len(names)
    assert all(lab.promised == () for lab in LABS)


def test_no_lab_runs_unless_named(capsys):
    assert run.main(["--plan"]) == 0
    assert "Lab" not in capsys.readouterr().out
    assert run.main(["--plan", "lab_quality"]) == 0
    assert capsys.readouterr().out.count("lab_quality") == 1


@pytest.mark.full
@pytest.mark.parametrize("lab", LABS, ids=[lab.name for lab in LABS])
def test_lab(lab, offline):
    """After the chapters: it takes the corpus and tokenizer they made."""
    folder = chapters.ROOT / "artifacts" / "smoke"
    if lost := [name for name in lab.reads if not (folder / name).exists()]:
        pytest.skip(f"run the chapters at smoke first: {lost[0]} is missing")
    run_notebook(lab.notebook, offline)

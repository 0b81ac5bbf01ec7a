"""The book itself: it builds without a warning, and asks the net for nothing.

Every link, anchor, figure, equation and citation that leads nowhere is a
warning, and every warning an error.
"""

import re
from html.parser import HTMLParser

import pytest

import build
import chapters
import readme
import signs

FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "embed": "src",
    "object": "data",
}
RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch"}


def remote(address: str | None) -> bool:
    return bool(address) and address.startswith(("http:", "https:", "//"))


class Requests(HTMLParser):
    """Collects what a browser would fetch from elsewhere for a page."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        address = attrs.get(FETCHED.get(tag, ""))
        if tag == "link" and RELATIONS & set(attrs.get("rel", "").split()):
            address = attrs.get("href")
        if remote(address):
            self.found.append(address)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The HTML of the notebooks as committed."""
    folder = tmp_path_factory.mktemp("build")
    return build.html(build.as_committed, folder).parent


def test_every_chapter_has_its_page(pages):
    missing = [
        chapter.name
        for chapter in chapters.existing()
        if not (pages / chapter.path).with_suffix(".html").exists()
    ]
    assert missing == []


def test_pages_fetch_nothing_from_elsewhere(pages):
    found = {}
    for path in pages.rglob("*.html"):
        page = Requests()
        page.feed(path.read_text(encoding="utf-8"))
        if page.found:
            found[path.name] = page.found
    assert found == {}


def test_styles_fetch_nothing_from_elsewhere(pages):
    call = re.compile(r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")]+)")
    found = {
        path.name: call.findall(path.read_text(encoding="utf-8"))
        for path in pages.rglob("*.css")
    }
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_equations_are_set_by_our_own_copy(pages):
    script = pages / "_static" / "mathjax" / "tex-chtml.js"
    assert script.stat().st_size > 100_000
    fonts = script.parent / "output" / "chtml" / "fonts"
    assert list(fonts.rglob("*.woff")), "MathJax without its fonts"


def test_marks_for_the_tools_are_not_shown(pages):
    for chapter in chapters.existing():
        page = (pages / chapter.path).with_suffix(".html")
        text = page.read_text(encoding="utf-8")
        assert "NBVAL_" not in text
        assert "#| export" not in text


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ("Missing character: There is no ж in font lmroman10", "lacks signs"),
        ("Overfull \\hbox (90.5pt too wide) in paragraph\n[]x", "90.5 pt off"),
    ],
)
def test_a_pdf_with_faults_is_refused(log, complaint):
    with pytest.raises(build.Failed, match=complaint):
        build.check_log(log)


def test_a_pdf_without_faults_is_taken():
    build.check_log("Overfull \\hbox (3.5pt too wide) in paragraph\n[]x")


def test_control_characters_do_not_reach_latex():
    kept = "a tab\tand a line\nwith é, → and 🦦"
    assert signs.printable(kept) == kept
    assert signs.printable(
        "Field\x1c oots\x00\x7f\x0c"
    ) == "Field\ufffd oots" + ("\ufffd" * 3)


def test_missing_latex_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(build.Failed, match="apt-get install .*texlive-xetex"):
        build.check_latex()


def test_the_readme_holds_the_recorded_figures(monkeypatch, tmp_path, capsys):
    assert readme.main(["--check"]) == 0
    told = readme.README.read_text(encoding="utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(told.replace("The book takes", "The book took"), "utf-8")
    monkeypatch.setattr(readme, "README", copy)
    assert readme.main(["--check"]) == 1
    assert "make record" in capsys.readouterr().out


def test_every_aim_but_the_minutes_is_met_without_bfloat16():
    from llm_utils import report_rows

    plain = readme.read(readme.PLAIN)
    assert plain["hardware"]["products_in"] == "float32"
    missed = [label for _, label, *_, met in report_rows(plain) if met is False]
    assert missed == ["minutes"]


def test_links_of_the_readme_lead_somewhere():
    text = readme.README.read_text(encoding="utf-8")
    places = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [p for p in places if not (chapters.ROOT / p).exists()] == []

"""Sphinx configuration of the book, for HTML and PDF.

The sources are not here: book/build.py lays them out under _build/src.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

project = "Language Models from the Ground Up"
author = "The makers of Pocket World"
copyright = "2026, the makers of Pocket World"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_exercise",
    "sphinxcontrib.bibtex",
    "book_ext",
]
root_doc = "index"
exclude_patterns = ["**.ipynb_checkpoints", "**.partial.ipynb"]

# --- notebooks: outputs come from book/run.py --------------------------------
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_text_lexer = "myst-ansi"
suppress_warnings = [
    "mystnb.unknown_mime_type",
    # Every chapter lists all it cites, so two may list the same paper.
    "bibtex.duplicate_citation",
    "bibtex.duplicate_label",
]
myst_enable_extensions = [
    "alert",
    "amsmath",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "strikethrough",
]
myst_dmath_double_inline = True
myst_heading_anchors = 3
numfig = True
numfig_format = {"figure": "Figure %s", "table": "Table %s"}
math_numfig = True
math_eqref_format = "({number})"

# --- references: one file a chapter ------------------------------------------
bibtex_bibfiles = sorted(f"bib/{p.name}" for p in HERE.glob("bib/*.bib"))
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# --- HTML --------------------------------------------------------------------
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = True
html_show_sourcelink = False
html_theme_options = {
    "home_page_in_toc": True,
    "logo": {"text": project},
    "navbar_persistent": [],  # otherwise a second search bar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": True,
}
mathjax3_config = {"tex": {"macros": {"R": r"\mathbb{R}"}}}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# --- PDF ---------------------------------------------------------------------
latex_engine = "xelatex"
latex_use_xindy = False
latex_documents = [("index", "book.tex", project, author, "manual")]
latex_show_urls = "footnote"
latex_toplevel_sectioning = "chapter"
latex_elements = {
    "papersize": "a4paper",
    "pointsize": "11pt",
    "extraclassoptions": "openany,oneside",
    "figure_align": "htbp",
    "fncychap": r"\usepackage[Bjornstrup]{fncychap}",
    # Code needs arrows, bars and box lines: DejaVu Sans Mono has them.
    "fontpkg": r"""
\setmonofont{DejaVuSansMono}[Scale=0.82, Extension=.ttf, BoldFont=*-Bold,
  ItalicFont=*-Oblique, BoldItalicFont=*-BoldOblique]
""",
    "sphinxsetup": ", ".join(
        [
            "verbatimwithframe=false",
            "verbatimforcewraps=true",
            "verbatimhintsturnover=false",
            "verbatimsep=5pt",
            "VerbatimColor={RGB}{246,247,249}",
            "InnerLinkColor={RGB}{30,80,160}",
            "OuterLinkColor={RGB}{30,80,160}",
            "TitleColor={RGB}{20,40,80}",
            "hmargin={25mm,25mm}",
            "vmargin={25mm,28mm}",
        ]
    ),
    "preamble": (HERE / "preamble.tex").read_text(encoding="utf-8"),
}

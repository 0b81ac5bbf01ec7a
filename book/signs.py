"""Signs that the fonts of the PDF lack, each given a font that has it.

Text is set in Latin Modern and code in DejaVu Sans Mono. A sign that one of
them lacks (an arrow in a sentence, an otter in a string) becomes a small TeX
macro that takes it from elsewhere, at the last from Unifont, which has all.
"""

import re
import subprocess
from functools import cache
from pathlib import Path

from fontTools.ttLib import TTFont
from matplotlib import get_data_path

TEXT = "lmroman10-regular.otf"
CODE = Path(get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf")
# In a sentence these look best as mathematics.
MATHS = {
    "→": r"\rightarrow",
    "←": r"\leftarrow",
    "↔": r"\leftrightarrow",
    "⇒": r"\Rightarrow",
    "≤": r"\leq",
    "≥": r"\geq",
    "≠": r"\neq",
    "≈": r"\approx",
    "−": "-",
    "√": r"\surd",
    "∞": r"\infty",
    "∈": r"\in",
    "∑": r"\sum",
    "·": r"\cdot",
    "α": r"\alpha",
    "β": r"\beta",
    "ε": r"\varepsilon",
    "θ": r"\theta",
    "λ": r"\lambda",
    "π": r"\pi",
    "σ": r"\sigma",
}


@cache
def has(font: str) -> frozenset[int]:
    """Code points of a font file."""
    return frozenset(TTFont(font).getBestCmap())


def fallback(point: int) -> str:
    """The sign from Unifont: its upper planes are a font of their own."""
    family = "bookupper" if point > 0xFFFF else "bookunifont"
    return rf'{{\{family}\char"{point:X}}}'


def printable(tex: str) -> str:
    """TeX without control characters: a fresh model's output may have any."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", tex)


def macros(tex: str) -> str:
    """A line of TeX for each sign of `tex` that needs one."""
    found = subprocess.run(
        ["kpsewhich", TEXT], capture_output=True, text=True, check=True
    )
    text_font, code_font = has(found.stdout.strip()), has(str(CODE))
    lines = []
    for sign in sorted({c for c in tex if ord(c) > 0x7F}):
        point = ord(sign)
        plain = rf'\char"{point:X}\relax'
        if point in text_font and point in code_font:
            continue
        in_code = plain if point in code_font else fallback(point)
        if sign in MATHS:
            in_text = rf"\ensuremath{{{MATHS[sign]}}}"
        elif point in text_font:
            in_text = plain
        else:
            in_text = rf"{{\ttfamily {in_code}}}"
        lines.append(
            rf"\newunicodechar{{{sign}}}{{\booksign{{{in_code}}}{{{in_text}}}}}"
        )
    return "\n".join(lines) + "\n"

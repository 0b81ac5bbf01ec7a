"""Draw the road of the book, once for each chapter.

    python book/map.py      write book/map/ch01.png … ch08.png

The reader's chapter stands out; below each chapter is what it hands on. The
background is clear and the colours hold on light pages and on dark ones.
"""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.patches import Polygon  # noqa: E402

from chapters import CHAPTERS, ROOT  # noqa: E402

HANDS_ON = (
    "clean text",
    "tokens",
    "heads",
    "a model",
    "trained weights",
    "an assistant",
    "a better one",
    "a chat",
)
BEFORE, HERE, AHEAD = "#7FA6C9", "#C25E00", "#B9BEC4"
WIDTH, NOTCH, GAP = 1.0, 0.13, 0.03


def draw(here: int):
    """The map with chapter `here` (1 to 8) marked."""
    figure = plt.figure(figsize=(6.3, 0.8), dpi=200)
    axes = figure.add_axes((0, 0, 1, 1))
    for chapter, result in zip(CHAPTERS, HANDS_ON, strict=True):
        left = (chapter.number - 1) * WIDTH
        right = left + WIDTH - GAP
        now = chapter.number == here
        colour = HERE if now else BEFORE if chapter.number < here else AHEAD
        corners = [
            (left, 0.35),
            (right, 0.35),
            (right + NOTCH, 0.68),
            (right, 1.0),
            (left, 1.0),
            (left + NOTCH, 0.68),
        ]
        axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="none"))
        middle = (left + right + NOTCH) / 2
        ink = "white" if now else "#1D2733"
        axes.text(
            middle,
            0.81,
            str(chapter.number),
            ha="center",
            va="center",
            size=8,
            weight="bold",
            color=ink,
        )
        axes.text(
            middle,
            0.55,
            chapter.title,
            ha="center",
            va="center",
            size=6.6,
            weight="bold" if now else "normal",
            color=ink,
        )
        axes.text(
            middle,
            0.17,
            result,
            ha="center",
            va="center",
            size=6.4,
            color=HERE if now else "#858B92",
            weight="bold" if now else "normal",
        )
    axes.set_xlim(-0.02, len(CHAPTERS) * WIDTH + NOTCH)
    axes.set_ylim(0, 1.02)
    axes.axis("off")
    return figure


def main() -> None:
    folder = ROOT / "book" / "map"
    folder.mkdir(exist_ok=True)
    for chapter in CHAPTERS:
        figure = draw(chapter.number)
        figure.savefig(
            folder / f"{chapter.name}.png",
            transparent=True,
            metadata={"Software": None},
            pil_kwargs={"optimize": True},
        )
        plt.close(figure)


if __name__ == "__main__":
    main()

"""The figures in README.md, from the recorded run at the default preset.

    python book/readme.py          write them
    python book/readme.py --check  fail if they are not those of the record

What stands between the two marks is made from results/pocket.json.
"""

import json
import sys

from chapters import ROOT, Chapter, existing, write_atomically
from watch import clock

README = ROOT / "README.md"
RESULTS = ROOT / "results" / "pocket.json"
BEGIN, END = "<!-- figures: make record -->", "<!-- end of figures -->"


def question(chapter: Chapter) -> str:
    """What a chapter asks: its heading, behind the name and the colon."""
    cells = json.loads(chapter.notebook.read_text(encoding="utf-8"))["cells"]
    heading = "".join(cells[0]["source"]).split("\n")[0]
    asked = heading.split(": ", 1)[1]
    return asked[0].upper() + asked[1:]


def results(card: dict) -> dict[int, str]:
    """What each chapter reached, in a few words."""
    gap = card["base.loss_nats"] - card["base.floor_nats"]
    tiles = (
        card["attention.largest_equation_bytes"]
        / card["attention.largest_tiles_bytes"]
    )
    cached = (
        card["inference.tokens_per_second"]
        / card["inference.tokens_per_second_no_cache"]
    )
    return {
        1: f"text from pages: F1 {card['data.extract_f1']:.3f}; near-duplicates: "
        f"recall {card['data.duplicates_recall']:.3f}",
        2: f"{card['tokenizer.bytes_per_token']:.2f} bytes a token, "
        f"{card['tokenizer.share_of_ceiling']:.0%} of what words allow",
        3: f"equal to PyTorch's; in tiles, 1/{tiles:.0f} of the memory",
        4: f"{card['base.parameters'] / 1e6:.1f} million parameters, "
        "equal to `transformers`",
        5: f"{gap:.3f} nats a token above the entropy of the text; "
        f"{card['base.facts']:.1%} of the facts",
        6: f"{card['instruct.exact']:.1%} of held-out tasks exactly right; letters "
        f"sorted: {card['classify.accuracy']:.1%} "
        f"(counting words: {card['classify.bag_of_words']:.1%})",
        7: f"{card['dpo.preference_accuracy']:.1%} of held-out pairs in order; "
        f"score {card['dpo.score_before']:.2f} → {card['dpo.score_after']:.2f}",
        8: f"{cached:.1f} times as fast with a cache, token for token the same",
    }


def figures(card: dict) -> str:
    """The part of README.md between the marks."""
    reached = results(card)
    lines = [
        f"It takes {card['seconds'] / 60:.0f} minutes on "
        f"{card['hardware']['cores']} cores that multiply in "
        f"{card['hardware']['products_in']}, and "
        f"{card['peak_memory_bytes'] / 1e9:.1f} GB of memory at most.",
        "",
        "| | notebook | asks | min:s | and reaches |",
        "|---|---|---|---|---|",
    ]
    for chapter in existing():
        took = round(card["chapters"][chapter.name]["seconds"])
        lines.append(
            f"| {chapter.number} | [{chapter.title}]({chapter.path}) "
            f"| {question(chapter)} | {clock(took)} "
            f"| {reached[chapter.number]} |"
        )
    return "\n".join(lines)


def renewed(readme: str, card: dict) -> str:
    """README.md with the figures of this card."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{figures(card)}\n{END}{after}"


def main(arguments: list[str]) -> int:
    if not RESULTS.exists():
        print("no run at the preset pocket is recorded: `make book record`")
        return 1
    old = README.read_text(encoding="utf-8")
    new = renewed(old, json.loads(RESULTS.read_text(encoding="utf-8")))
    if "--check" in arguments:
        if new != old:
            print("README.md does not hold the recorded figures: `make record`")
        return int(new != old)
    write_atomically(README, new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

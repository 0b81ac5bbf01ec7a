"""The figures in README.md, from the recorded runs.

    python book/readme.py          write them
    python book/readme.py --check  fail if they are not those of the record

What stands between two marks is made from a record: the table of the chapters
from results/pocket.json, with a word on results/pocket-avx2.json above it, that of
the 124M model from results/gpt2-124m, and what such a run costs from there and from
results/bench-data.json.
"""

import json
import sys

from chapters import ROOT, Chapter, existing, write_atomically
from watch import clock

README = ROOT / "README.md"
RESULTS = ROOT / "results" / "pocket.json"
PLAIN = ROOT / "results" / "pocket-avx2.json"  # without bfloat16
LARGE = ROOT / "results" / "gpt2-124m"
BEGIN, END = "<!-- figures: make record -->", "<!-- end of figures -->"
BEGIN_LARGE = "<!-- figures: the recorded run of gpt2-124m -->"
TASKS = {
    "hellaswag": "HellaSwag",
    "arc_easy": "ARC-easy",
    "piqa": "PIQA",
    "lambada_openai": "LAMBADA",
}
BENCH = ROOT / "results" / "bench-data.json"
COSTS, END_COSTS = "<!-- costs: make record -->", "<!-- end of costs -->"
PRICE = 3.5  # dollars an hour of the GPU: an assumption, chapter 5's
TEXT_BYTES = 12e9  # of FineWeb-Edu, as chapter 1 takes them


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
        f"(counting words: {card['classify.bag_of_words']:.1%}, and pairs of "
        f"words: {card['classify.pairs_of_words']:.1%})",
        7: f"held-out pairs in order: {card['dpo.preference_accuracy_before']:.1%}"
        f" → {card['dpo.prefers_after']:.1%}; score "
        f"{card['dpo.score_before']:.2f} → {card['dpo.score_after']:.2f}; "
        f"exactly right: {card['dpo.exact_before']:.1%} → "
        f"{card['dpo.exact_after']:.1%}",
        8: f"{cached:.1f} times as fast with a cache, token for token the same",
    }


def figures(card: dict, plain: dict) -> str:
    """The part of README.md between the marks.

    card: the recorded run; plain: one without bfloat16.
    """
    reached = results(card)
    tiles = (
        ", with a unit for tiles (AMX)," if card["hardware"]["tiles"] else ","
    )
    lines = [
        f"The book takes {card['seconds'] / 60:.0f} minutes on "
        f"{card['hardware']['cores']} cores that multiply in "
        f"{card['hardware']['products_in']}{tiles} and "
        f"{card['peak_memory_bytes'] / 1e9:.1f} GB of memory at most; the same "
        f"cores without these, in {plain['hardware']['products_in']} by "
        f"{plain['hardware']['vectors']} alone, took "
        f"{plain['seconds'] / 60:.0f}, and had {plain['instruct.exact']:.1%} of "
        "chapter 6's tasks right.",
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


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def costs(run: dict, steps: dict, bench: dict, tokens: int) -> str:
    """What the 124M model takes, from what its recorded run took.

    run: run.json; steps: the seconds of the steps around the base; bench:
    bench-data.json; tokens: what the recipe reads.
    """
    clean = (
        TEXT_BYTES
        / 1e6
        / bench["clean"]["million_characters_per_second"]["clean"]
    )
    shards = bench["shards"]
    cut = TEXT_BYTES / 1e6 / shards["megabytes"] * shards["ours_seconds"]
    large = bench["bpe_large"]
    memory = (
        TEXT_BYTES / 1e6 / large["megabytes"] * large["memory_for_texts_bytes"]
    )
    base = tokens / run["tokens_per_second"]
    around = sum(steps.values())

    def dollars(seconds):
        return f"${seconds / 3600 * PRICE:.2f}"

    return "\n".join(
        [
            f"| on one {run['hardware']['device']} | time | at ${PRICE:.2f} an hour |",
            "|---|---|---|",
            f"| the base, foretold: {tokens / 1e9:.2f} billion tokens at the "
            f"recorded {run['tokens_per_second']:,.0f} a second "
            f"| {base / 60:.0f} minutes | {dollars(base)} |",
            f"| {', '.join(steps)}, on the data of the recorded run "
            f"| {around / 60:.0f} minutes | {dollars(around)} |",
            "",
            f"The base takes {run['peak_memory_bytes'] / 1e9:.0f} GB of the GPU's "
            f"memory. Before that, chapters 1 and 2 fetch {TEXT_BYTES / 1e9:.0f} GB "
            "of text, which needs no GPU: cleaning it takes "
            f"{clean / 3600:.1f} hours and cutting it into tokens {cut / 3600:.1f} "
            "on one core, with the download, the counting and the vocabulary on "
            f"top, and about {memory / 1e9:.0f} GB of memory, since chapter 2 "
            "holds the text whole.",
        ]
    )


def costs_on_record() -> str:
    """`costs` from the files that hold the recorded run."""
    from llm_utils import RECIPES  # torch is slow

    recipe = RECIPES["gpt2-124m"]
    steps = {
        path.stem: read(path)["seconds"]
        for path in sorted(LARGE.glob("*.json"))
        if path.stem != "run" and "seconds" in read(path)
    }
    tokens = recipe.steps * recipe.batch_size * recipe.context
    return costs(read(LARGE / "run.json"), steps, read(BENCH), tokens)


def large_results(run, compare, pack, classify, instruct, evaluate) -> dict:
    """What the recorded 124M run reached, line by line."""
    text, guess = evaluate["base"], evaluate["chance"]
    right, loss = classify["test"], instruct["answer_loss"]
    modern, classic = compare["modern"], compare["classic"]
    kept = instruct["base_loss"]
    return {
        "read": f"{run['tokens'] / 1e6:.0f} million tokens in "
        f"{run['seconds'] / 60:.1f} minutes on one {run['hardware']['device']}",
        "speed": f"{run['tokens_per_second']:,.0f} tokens a second, "
        f"{run['utilisation']:.0%} of the peak",
        "held-out text": f"{run['validation']['loss']:.3f} nats a token, "
        f"{run['validation']['bits_per_byte']:.3f} bits a byte",
        f"{modern['tokens'] / 1e6:.0f} million tokens by the modern and by "
        f"the classic recipe": f"{modern['loss']:.2f} and "
        f"{classic['loss']:.2f} nats a token",
        "in 8 bits": f"{pack['bytes'] / 1e6:.0f} MB, "
        f"{pack['cost']:+.4f} nats a token",
        "right answers (by guessing)": ", ".join(
            f"{name} {text[task]['acc']:.0%} ({guess[task]:.0%})"
            for task, name in TASKS.items()
        ),
        "spam in text messages": f"{right['in full']['accuracy']:.1%} right "
        f"(counting words: {right['bag of words']['accuracy']:.1%})",
        "held-out answers of people": f"{loss['base']:.2f} → "
        f"{loss['in full']:.2f} nats a token in full, {loss['LoRA']:.2f} by "
        "LoRA",
        "and documents after it": f"{kept['base']:.3f} → "
        f"{kept['in full']:.3f} and {kept['LoRA']:.3f} nats a token",
    }


def large_figures(folder) -> str:
    """The table of the recorded 124M run."""
    parts = "run", "compare", "pack", "classify", "instruct", "evaluate"
    reached = large_results(*(read(folder / f"{name}.json") for name in parts))
    lines = ["| | reached |", "|---|---|"]
    return "\n".join(lines + [f"| {k} | {v} |" for k, v in reached.items()])


def put(readme: str, begin: str, text: str, end: str = END) -> str:
    """README.md with this text between a mark and the next end."""
    before, rest = readme.split(begin)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}\n{text}\n{end}{after}"


def renewed(readme: str, card: dict) -> str:
    """README.md with the figures of this card, and of the 124M run, and its costs."""
    readme = put(readme, BEGIN, figures(card, read(PLAIN)))
    readme = put(readme, BEGIN_LARGE, large_figures(LARGE))
    return put(readme, COSTS, costs_on_record(), END_COSTS)


def main(arguments: list[str]) -> int:
    if not RESULTS.exists():
        print("no run at the preset pocket is recorded: `make book record`")
        return 1
    old = README.read_text(encoding="utf-8")
    new = renewed(old, read(RESULTS))
    if "--check" in arguments:
        if new != old:
            print("README.md does not hold the recorded figures: `make record`")
        return int(new != old)
    write_atomically(README, new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

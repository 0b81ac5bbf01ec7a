"""Print the report card of the last run, and where the book lies.

python book/card.py      artifacts/<preset>/report.json, as a table

Of the 124M model, what its steps measured. Fails where one has not been taken.
"""

import json
import os
import sys

from chapters import ROOT
from readme import TASKS
from run import STEPS


def base_lines(base: dict) -> list[str]:
    return [
        f"tokens read           {base['tokens'] / 1e6:,.0f} million, "
        f"{base['tokens_per_second']:,.0f} a second",
        f"held-out text         {base['validation']['bits_per_byte']:.4f} "
        "bits a byte",
    ]


def compare_lines(compare: dict) -> list[str]:
    modern, classic = (compare[k]["loss"] for k in ("modern", "classic"))
    return [
        f"after {compare['modern']['steps']} steps       {modern:.3f} nats "
        f"a token; by GPT-2's recipe {classic:.3f}"
    ]


def pack_lines(pack: dict) -> list[str]:
    return [
        f"in 8 bits             {pack['bytes'] / 1e6:.0f} MB, "
        f"{pack['cost']:+.5f} nats a token"
    ]


def classify_lines(classify: dict) -> list[str]:
    ours, words = (classify["test"][k] for k in ("in full", "bag of words"))
    return [
        f"spam                  {ours['accuracy']:.1%} right "
        f"(counting words: {words['accuracy']:.1%})"
    ]


def instruct_lines(instruct: dict) -> list[str]:
    loss, ended = instruct["answer_loss"], instruct["stopped"]
    return [
        f"held-out answers      {loss['base']:.3f} → {loss['LoRA']:.3f} nats "
        f"a token; {ended['LoRA']:.0%} end by themselves"
    ]


def prefer_lines(prefer: dict) -> list[str]:
    before, after = (prefer[k]["all"] for k in ("before", "after"))
    return [
        f"held-out preferences  {before['accuracy']:.1%} → "
        f"{after['accuracy']:.1%} of {after['pairs']:,} pairs in order"
    ]


def evaluate_lines(found: dict) -> list[str]:
    """The benchmarks, a line each: chance, and the models that there are."""
    models = [m for m in ("base", "instruct", "dpo") if m in found]
    lines = [f"{'':22}{'chance':>9}" + "".join(f"{m:>10}" for m in models)]
    for name, title in TASKS.items():
        if name in found["chance"]:
            shares = [found[m][name]["acc"] for m in models]
            lines.append(
                f"{title:22}{found['chance'][name]:9.1%}"
                + "".join(f"{share:10.1%}" for share in shares)
            )
    return lines


TELL = {
    "base": base_lines,
    "compare": compare_lines,
    "pack": pack_lines,
    "classify": classify_lines,
    "instruct": instruct_lines,
    "prefer": prefer_lines,
    "evaluate": evaluate_lines,
    "samples": lambda samples: [],  # to be read, not counted
}


def card_of_steps(measured) -> tuple[list[str], list[str]]:
    """The lines of a card from a folder of figures, and the steps without."""
    lines, missing = [], []
    for name, tell in TELL.items():
        path = measured / f"{name}.json"
        if not path.exists():
            missing.append(name)
            continue
        figures = json.loads(path.read_text(encoding="utf-8"))
        lines += tell(figures)
        missing += figures.get("missing", [])
    return lines, missing


def main() -> int:
    preset = os.environ.get("LLM_PRESET", "pocket")
    page = ROOT / "_build" / "html" / "index.html"
    if preset in STEPS:
        lines, missing = card_of_steps(ROOT / "artifacts" / preset / "measured")
        print("\n" + "\n".join(lines) + f"\n\nThe book: {page}")
        if missing:
            print(
                f"not measured: {', '.join(missing)} (the same command tries "
                "again)"
            )
        return int(bool(missing))
    path = ROOT / "artifacts" / preset / "report.json"
    if not path.exists():
        print(f"no report card yet: artifacts/{preset}/report.json is missing")
        return 0
    from llm_utils import print_report  # after the check: torch is slow

    print()
    print_report(path)
    print(f"\nThe book: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

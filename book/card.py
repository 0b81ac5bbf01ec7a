"""Print the report card of the last run.

python book/card.py      artifacts/<preset>/report.json, as a table
"""

import json
import os
import sys

from chapters import ROOT
from watch import clock


def rows(card: dict, prefix: str = "") -> list[tuple[str, object]]:
    """(dotted key, value) of every figure, nested ones written out."""
    found = []
    for key, value in card.items():
        if isinstance(value, dict):
            found += rows(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def shown(key: str, value) -> str:
    """A figure as a reader would write it."""
    if key.endswith("bytes") and isinstance(value, int | float):
        return f"{value / 1e9:.2f} GB"
    if key.endswith("seconds") and isinstance(value, int | float):
        return f"{clock(value)} min"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def table(card: dict) -> str:
    """The whole card as text, a gap between its parts."""
    lines, before = [], ""
    for key, value in rows(card):
        part = key.rpartition(".")[0].split(".")[0]
        lines += [""] if part != before else []
        lines.append(f"  {key:<44} {shown(key, value):>16}")
        before = part
    return "\n".join(lines)


def main() -> int:
    preset = os.environ.get("LLM_PRESET", "pocket")
    path = ROOT / "artifacts" / preset / "report.json"
    if not path.exists():
        print(f"no report card yet: artifacts/{preset}/report.json is missing")
        return 0
    card = json.loads(path.read_text(encoding="utf-8"))
    print(f"\nThe report card, at the preset {preset}:")
    print(table(card))
    print(f"\nThe book: {ROOT / '_build' / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Print the report card of the last run, and where the book lies.

python book/card.py      artifacts/<preset>/report.json, as a table
"""

import os
import sys

from chapters import ROOT


def main() -> int:
    preset = os.environ.get("LLM_PRESET", "pocket")
    path = ROOT / "artifacts" / preset / "report.json"
    if not path.exists():
        print(f"no report card yet: artifacts/{preset}/report.json is missing")
        return 0
    from llm_utils import print_report  # after the check: torch is slow

    print()
    print_report(path)
    print(f"\nThe book: {ROOT / '_build' / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

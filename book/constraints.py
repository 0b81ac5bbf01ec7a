"""Pin what requirements.txt draws in, at the versions installed here.

    python book/constraints.py      write book/constraints.txt

Run it with the .venv's Python after changing requirements.txt, and read the
difference before committing it.
"""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
HEADER = """\
# What requirements.txt draws in, so that an environment made later is the
# same one. Written by `python book/constraints.py`; torch stands without its
# build (+cpu, +cu128), which differs from machine to machine.
"""


def requirements(path: Path) -> list[Requirement]:
    """The lines of a requirements file that name packages."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if re.match(r"\w", line)]


def closure(wanted: list[Requirement]) -> dict[str, str]:
    """Versions of all installed packages that `wanted` leads to."""
    found, seen, todo = {}, set(), list(wanted)
    while todo:
        need = todo.pop()
        key = (canonicalize_name(need.name), tuple(sorted(need.extras)))
        if key in seen:
            continue
        seen.add(key)
        try:
            package = distribution(need.name)
        except PackageNotFoundError:
            continue  # needed on another platform only
        found[key[0]] = package.version.partition("+")[0]
        for line in package.requires or ():
            child = Requirement(line)
            places = [{"extra": extra} for extra in ("", *need.extras)]
            if not child.marker or any(map(child.marker.evaluate, places)):
                todo.append(child)
    return found


def main() -> None:
    versions = closure(requirements(HERE.parent / "requirements.txt"))
    lines = [f"{name}=={versions[name]}\n" for name in sorted(versions)]
    target = HERE / "constraints.txt"
    target.write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{target.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()

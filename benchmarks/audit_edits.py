"""Change exported audit bundles at random, and count the changes that the verifier does not find.

    python benchmarks/audit_edits.py [--edits 10000] [--seed 1] [--format json]

Two parties have trained together and exported their bundles. Seven of ten changes are made in the bundle of one party
by somebody without a key: leaves edited, deleted, inserted, exchanged, cut off or replaced from one leaf on, another
head, one bit of any file but README.txt and verifier.py. Half of them are checked with the peer's bundle, half without.
The other changes are made by the party itself, which signs everything anew, and are checked with the peer's bundle.
`leaf` counts the changes of which the bundle itself shows which leaf is the first bad one, `named` those where the
first line of the output names it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "federations"))

from audited_parties import after_a_job
from bundle_edits import problems_of, rewritten, tampered

STEPS = 10


def measure(edits: int, seed: int) -> dict[str, dict[str, int]]:
    """By the name of an edit: how many were made, found, should name a leaf, named it."""
    bank, clinic = after_a_job(STEPS)
    files, peers_files, random = bank.export(), clinic.export(), Random(seed)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(edits):
            is_own = number % 10 >= 7
            edit = rewritten(bank, random) if is_own else tampered(bank, files, random)
            peers = [peers_files] if is_own or random.random() < 0.5 else []
            problems = problems_of(Path(folder) / "bundles", edit.files, *peers)
            count = counts.setdefault(edit.name, Counter(edits=0, found=0, has_leaf=0, named=0))
            count.update(edits=1, found=bool(problems))
            if edit.first_bad_leaf is not None:
                first = next((problem.leaf for problem in problems if problem.leaf is not None), None)
                count.update(has_leaf=1, named=first == edit.first_bad_leaf)
    return {name: dict(count) for name, count in sorted(counts.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    start = time.monotonic()
    rows = measure(arguments.edits, arguments.seed)
    total = {key: sum(row[key] for row in rows.values()) for key in ("edits", "found", "has_leaf", "named")}
    if arguments.format == "json":
        print(json.dumps({"total": total, "seconds": time.monotonic() - start, "edits": rows}))
        return
    print(f"{'edit':34}{'edits':>8}{'found':>8}{'leaf':>8}{'named':>8}")
    for name, row in {**rows, "total": total}.items():
        print(f"{name:34}{row['edits']:8}{row['found']:8}{row['has_leaf']:8}{row['named']:8}")
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

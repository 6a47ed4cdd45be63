"""What a whole encrypted training spends its time on: the start of its workers, steps, and the scores of held-out rows.

    python benchmarks/whole_job.py [--rows 16384] [--epochs 10] [--top linear mlp] [--format json]

Two servers on this machine, 16 columns of the feature party and 8 of the label party, made-up rows. Seconds are those
between the label party's events: from the start of the job until its workers compute (the first step ends one step
later; the mean of the others is taken for it), then the steps, the scores of the held-out rows, and the end at both
sides. `share` is what start and scores take of all four.
"""

import argparse
import json
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from prediction import COLUMNS, FEATURE, LABEL, TOPS, done, tables

from api.demo.folder import PartyFolder, write_party
from api.demo.servers import Servers, free_ports

SPEC = """
job = {{ name = "whole", task = "binary", seed = 0 }}
roster = {{ label = "bank", features = ["telco"] }}
model = {{ top = {top} }}
train = {{ epochs = {epochs}, batch_rows = 2048 }}
[data]
bank = {{ dataset = "known", columns = {a}, label = "y" }}
telco = {{ dataset = "known", columns = {b} }}
"""
KINDS = ("started", "step", "trained", "done")
SCORING = "evaluating on the held-out rows"


def measured(servers: Servers, top: str, rows: int, epochs: int) -> dict[str, Any]:
    columns = {"a": json.dumps(COLUMNS[LABEL]), "b": json.dumps(COLUMNS[FEATURE])}
    ended = done(servers, SPEC.format(top=TOPS[top], epochs=epochs, **columns))
    events = servers.client(LABEL).events(ended["id"])["events"]
    times = {kind: [datetime.fromisoformat(e["time"]) for e in events if e["kind"] == kind] for kind in KINDS}
    (scoring,) = (datetime.fromisoformat(each["time"]) for each in events if each["text"] == SCORING)
    steps = (times["step"][-1] - times["step"][0]).total_seconds() * len(times["step"]) / (len(times["step"]) - 1)
    seconds = {
        "start": (times["step"][-1] - times["started"][0]).total_seconds() - steps,
        "steps": steps,
        "scores": (times["trained"][0] - scoring).total_seconds(),
        "end": (times["done"][0] - times["trained"][0]).total_seconds(),
    }
    return {
        "top": top,
        "rows": rows,
        "held_out": ended["plan"].get("test_rows"),
        "epochs": epochs,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "share": round((seconds["start"] + seconds["scores"]) / sum(seconds.values()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--top", choices=tuple(TOPS), nargs="+", default=list(TOPS))
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args()
    ports, lines = free_ports((LABEL, FEATURE)), []
    with tempfile.TemporaryDirectory() as name:
        for party, peer in ((LABEL, FEATURE), (FEATURE, LABEL)):
            made = tables(party, {"known": options.rows})
            rules = {"datasets": list(made), "schemes": ["ckks"], "fixed_seed": True}
            write_party(Path(name), PartyFolder(party, (peer,), made, "id", rules), 0, ports)
        with Servers(Path(name), ports, LABEL) as servers:
            for top in options.top:
                lines.append(measured(servers, top, options.rows, options.epochs))
                if options.format == "text":
                    print(lines[-1], flush=True)
    if options.format == "json":
        print(json.dumps(lines))


if __name__ == "__main__":
    main()

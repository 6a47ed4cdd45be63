"""How long two servers take to score new rows with a trained model, and how many bytes travel between them.

    python benchmarks/prediction.py [--rows 1 200 2000 20000] [--top linear|mlp] [--scheme ckks|none] [--format json]
    python benchmarks/prediction.py --session [--requests 200] [--batches 5]

The model has 16 columns of the feature party and 8 of the label party, and is trained for one epoch on made-up rows.
Seconds are from the submit to the end at the label party, the start of two workers included; `scoring` are those
between the first and the last block.

With --session one session stays open, and is asked by one client, a request after the other: for one row that was not
scored before (`p50`, `p99`), for one that was (`again_p50`), and for 1,000 rows (`rows_per_second`). Times are those of
the client, HTTP included.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from api.client_problems import RequestRefused
from api.demo.folder import PartyFolder, write_party
from api.demo.servers import Servers, free_ports

LABEL, FEATURE = "bank", "telco"
COLUMNS = {LABEL: [f"a{at}" for at in range(8)], FEATURE: [f"b{at}" for at in range(16)]}
TRAINED_ROWS = 4096
BATCH_ROWS, OPENING_SECONDS = 1000, 120
TRAINING = """
job = {{ name = "train", task = "binary", seed = 0 }}
roster = {{ label = "bank", features = ["telco"] }}
model = {{ top = {top} }}
train = {{ epochs = 1, batch_rows = 2048 }}
encryption = {{ scheme = "{scheme}" }}
[data]
bank = {{ dataset = "known", columns = {a}, label = "y" }}
telco = {{ dataset = "known", columns = {b} }}
"""
PREDICTION = """
job = {{ name = "score", protocol = "prediction" }}
roster = {{ label = "bank", features = ["telco"] }}
model = {{ training = "{model}" }}
[data]
bank = {{ dataset = "new-{rows}" }}
telco = {{ dataset = "new-{rows}" }}
"""
TOPS = {"linear": '{ kind = "linear" }', "mlp": '{ kind = "mlp", hidden = [8] }'}


def tables(party: str, of_sets: dict[str, int]) -> dict[str, pl.DataFrame]:
    """Made-up rows by the name of the data set; `known` has a label at the label party."""
    draws = np.random.default_rng(len(party))
    made = {}
    for name, rows in of_sets.items():
        columns = {column: draws.normal(size=rows) for column in COLUMNS[party]}
        label = {"y": draws.integers(0, 2, rows)} if (party, name) == (LABEL, "known") else {}
        made[name] = pl.DataFrame({"id": [f"row-{row}" for row in range(rows)]} | columns | label)
    return made


def done(servers: Servers, spec: str) -> dict[str, Any]:
    servers.grant(spec)
    client = servers.client(LABEL)
    began = time.monotonic()
    job = client.submit(spec)["id"]
    for _ in client.follow(job):
        servers.check()
    seconds = time.monotonic() - began
    for _ in servers.client(FEATURE).follow(job):  # which must hold its half before it can grant the next job
        servers.check()
    ended = client.job(job)
    if ended["state"] != "done":
        raise RuntimeError(f"the job is {ended['state']}: {ended['error']}")
    return ended | {"elapsed": seconds}


def line(ended: dict[str, Any], rows: int) -> dict[str, Any]:
    size = sum(each["payload_bytes"] for each in ended["traffic"])
    scoring = ended["seconds"]["training"]
    return {
        "rows": rows,
        "seconds": round(ended["elapsed"], 2),
        "scoring": round(scoring, 2),
        "rows_per_second": round(rows / scoring),
        "bytes_per_row": round(size / rows),
    }


def session(servers: Servers, model: str, rows: int, single: int) -> dict[str, Any]:
    spec = PREDICTION.format(model=model, rows=rows).replace("[data]", "session = { minutes = 30 }\n[data]")
    servers.grant(spec)
    client = servers.client(LABEL)
    job = client.submit(spec)["id"]
    opening = time.monotonic()
    while True:
        try:
            client.predict(model, {"ids": ["row-0"]})
            break
        except RequestRefused as refused:
            if refused.code != "no_session" or time.monotonic() - opening > OPENING_SECONDS:
                raise
            time.sleep(0.1)

    def seconds(ids: list[str]) -> float:
        began = time.monotonic()
        answer = client.predict(model, {"ids": ids})
        took = time.monotonic() - began
        if any(row["state"] != "scored" for row in answer["rows"]):
            raise RuntimeError(f"not every row was scored: {answer}")
        return took

    new = [seconds([f"row-{row}"]) for row in range(1, single)]
    again = [seconds([f"row-{row}"]) for row in range(1, single)]
    starts = range(single, rows, BATCH_ROWS)
    batches = [seconds([f"row-{row}" for row in range(start, start + BATCH_ROWS)]) for start in starts]
    client.order(job, "end")
    for _ in client.follow(job):
        servers.check()
    ended = client.job(job)
    if ended["state"] != "done":
        raise RuntimeError(f"the job is {ended['state']}: {ended['error']}")
    return {
        "requests": len(new),
        "p50": round(float(np.quantile(new, 0.5)), 4),
        "p99": round(float(np.quantile(new, 0.99)), 4),
        "again_p50": round(float(np.quantile(again, 0.5)), 4),
        "rows_per_second": round(BATCH_ROWS * len(batches) / sum(batches)),
        "bytes": sum(each["payload_bytes"] for each in ended["traffic"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 200, 2000, 20_000])
    parser.add_argument("--top", choices=tuple(TOPS), default="linear")
    parser.add_argument("--scheme", choices=("ckks", "none"), default="ckks")
    parser.add_argument("--session", action="store_true")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args()
    ports, lines = free_ports((LABEL, FEATURE)), []
    if options.session:
        options.rows = [options.requests + BATCH_ROWS * options.batches]
    with tempfile.TemporaryDirectory() as name:
        for party, peer in ((LABEL, FEATURE), (FEATURE, LABEL)):
            made = tables(party, {"known": TRAINED_ROWS} | {f"new-{rows}": rows for rows in options.rows})
            rules = {"datasets": list(made), "schemes": ["ckks", "none", "scores"], "fixed_seed": True}
            write_party(Path(name), PartyFolder(party, (peer,), made, "id", rules), 0, ports)
        with Servers(Path(name), ports, LABEL) as servers:
            columns = {"a": json.dumps(COLUMNS[LABEL]), "b": json.dumps(COLUMNS[FEATURE])}
            training = TRAINING.format(top=TOPS[options.top], scheme=options.scheme, **columns)
            model = done(servers, training)["id"]
            if options.session:
                print(json.dumps(session(servers, model, options.rows[0], options.requests)))
            for rows in () if options.session else options.rows:
                lines.append(line(done(servers, PREDICTION.format(model=model, rows=rows)), rows))
                if options.format == "text":
                    print(lines[-1], flush=True)
    if options.format == "json" and not options.session:
        print(json.dumps(lines))


if __name__ == "__main__":
    main()

"""What signatures, TLS, the audit log and budgets cost a training, as a ratio, in one run.

    python benchmarks/trust.py [--runs 5] [--epochs 10]

The job of `vfl demo` between two servers, alternating: as the product is, and with all of it passed through
(benchmarks/pass_through). The numbers are seconds of training as the label party's record has them, and their medians.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from api.client import FINAL_STATES
from api.demo.folder import write_parties
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import agree
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY, breast_cancer

PASS_THROUGH = Path(__file__).with_name("pass_through")


def training_seconds(epochs: int, *, scheme: str) -> float:
    """One whole job in a folder of its own."""
    table = breast_cancer()
    agreement = agree(table, scheme=scheme, epochs=epochs, seed=0)
    ports = free_ports((LABEL_PARTY, FEATURE_PARTY))
    with tempfile.TemporaryDirectory() as name:
        write_parties(Path(name), table, agreement, 0, ports)
        with Servers(Path(name), ports, LABEL_PARTY) as servers:
            servers.grant(agreement.text)
            client = servers.client(LABEL_PARTY)
            job = client.submit(agreement.text)["id"]
            for _ in client.follow(job):
                pass
            ended: dict[str, Any] = client.job(job)
    if ended["state"] not in FINAL_STATES or ended["state"] != "done":
        raise RuntimeError(f"the job is {ended['state']}: {ended['error']}")
    return float(ended["seconds"]["training"])


def measured(runs: int, epochs: int, scheme: str) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"as it is": [], "passed through": []}
    for _ in range(runs):
        for way, times in seconds.items():
            if way == "passed through":
                os.environ["PYTHONPATH"] = str(PASS_THROUGH)
            times.append(training_seconds(epochs, scheme=scheme))
            os.environ.pop("PYTHONPATH", None)
    medians = {way: round(statistics.median(times), 3) for way, times in seconds.items()}
    return {
        "scheme": scheme,
        "seconds": seconds,
        "median": medians,
        "ratio": round(medians["as it is"] / medians["passed through"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    for scheme in ("ckks", "none"):
        print(json.dumps(measured(options.runs, options.epochs, scheme)))
        sys.stdout.flush()


if __name__ == "__main__":
    main()

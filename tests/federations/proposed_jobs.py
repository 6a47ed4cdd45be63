"""Jobs as the owner of data is asked for them: a bank proposes, and a telco has the columns."""

from typing import Any

import rounds_federation

from parties.trust.request import Request, data_used
from vfl.kinds import kind_of, read_spec
from vfl.spec.job import JobSpec

BANK, TELCO = "bank", "telco"
DIGEST = "ab" * 32
ROWS = 2000
NOW = 1_800_000_000
"""Unix seconds."""


def specification(**changes: Any) -> JobSpec:
    terms: dict[str, Any] = {
        "epochs": 10,
        "batch_rows": 400,
        "scheme": "ckks",
        "columns": ["a", "b"],
        "dataset": "calls",
        "purpose": "credit scores",
        "model": "",
        "test": 0.2,
    } | changes
    spec = read_spec(f"""
job = {{name = "scores", task = "binary", purpose = "{terms["purpose"]}"}}
roster = {{label = "{BANK}", features = ["{TELCO}"]}}
train = {{epochs = {terms["epochs"]}, batch_rows = {terms["batch_rows"]}}}
split = {{test = {terms["test"]}}}
encryption = {{scheme = "{terms["scheme"]}"}}
{terms["model"]}
[data]
{BANK} = {{dataset = "loans", label = "default", columns = ["income"]}}
{TELCO} = {{dataset = "{terms["dataset"]}", columns = {terms["columns"]}}}
""")
    resolved: JobSpec = kind_of(spec).resolve(spec)
    return resolved


def request(spec: JobSpec | None = None, me: str = TELCO, *, digest: str = DIGEST, rows: int = ROWS) -> Request:
    spec = spec or specification()
    uses = spec.tables_of(me)
    columns = {name: use.columns or ("pixel_0", "pixel_1") for name, use in uses.items()}
    data = data_used(spec, me, columns, dict.fromkeys(uses, digest))
    return Request(spec, me, kind_of(spec).plan(spec, me, rows), data, NOW)


def round_request(me: str = "c0", **options: Any) -> Request:
    """Of a client, or of the aggregator."""
    return request(rounds_federation.spec(**options), me)

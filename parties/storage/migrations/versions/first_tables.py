"""All tables of the first release."""

import sqlalchemy as sql
from alembic import op

revision, down_revision = "0001", None
NUMBER = sql.BigInteger().with_variant(sql.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "approvals",
        sql.Column("job", sql.String, primary_key=True),
        sql.Column("decision", sql.String, nullable=False),
        sql.Column("by", sql.String, nullable=False),
        sql.Column("time", sql.String, nullable=False),
        sql.Column("grants", sql.JSON, nullable=False),
        sql.Column("reason", sql.String, nullable=False),
    )
    op.create_table(
        "asked",
        sql.Column("job", sql.String, primary_key=True),
        sql.Column("parties", sql.String, nullable=False),
        sql.Column("asked", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit_heads",
        sql.Column("size", NUMBER, primary_key=True, autoincrement=False),
        sql.Column("note", sql.String, nullable=False),
    )
    op.create_table(
        "audit_leaves",
        sql.Column("number", NUMBER, primary_key=True, autoincrement=False),
        sql.Column("leaf", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit_subtrees",
        sql.Column("level", NUMBER, primary_key=True, autoincrement=False),
        sql.Column("number", NUMBER, primary_key=True, autoincrement=False),
        sql.Column("hash", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "budgets",
        sql.Column("job", sql.String, primary_key=True),
        sql.Column("peer", sql.String, primary_key=True),
        sql.Column("message", sql.String, primary_key=True),
        sql.Column("line", sql.LargeBinary, nullable=False),
        sql.Column("spent", NUMBER, nullable=False),
        sql.Column("opened", NUMBER, nullable=False),
    )
    op.create_table(
        "contracts",
        sql.Column("job", sql.String, primary_key=True),
        sql.Column("party", sql.String, primary_key=True),
        sql.Column("key", sql.LargeBinary, nullable=False),
        sql.Column("signature", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "cosigned_heads",
        sql.Column("origin", sql.String, primary_key=True),
        sql.Column("note", sql.String, nullable=False),
    )
    op.create_table(
        "datasets",
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("record", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "grants",
        sql.Column("id", sql.String, primary_key=True),
        sql.Column("encoded", sql.LargeBinary, nullable=False),
        sql.Column("signature", sql.LargeBinary, nullable=False),
        sql.Column("created", NUMBER, nullable=False),
        sql.Column("used", NUMBER, nullable=False),
        sql.Column("revoked", NUMBER),
    )
    op.create_table(
        "id_runs",
        sql.Column("job", sql.String, primary_key=True),
        sql.Column("peer", sql.String, primary_key=True),
        sql.Column("dataset", sql.String, primary_key=True),
        sql.Column("time", NUMBER, nullable=False),
        sql.Column("sketch", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "invitations",
        sql.Column("id", sql.String, primary_key=True),
        sql.Column("peer", sql.String, nullable=False),
        sql.Column("packed", sql.LargeBinary, nullable=False),
        sql.Column("expires_at", NUMBER, nullable=False),
    )
    op.create_table(
        "jobs",
        sql.Column("id", sql.String, primary_key=True),
        sql.Column("name", sql.String, nullable=False),
        sql.Column("state", sql.String, nullable=False),
        sql.Column("role", sql.String, nullable=False),
        sql.Column("party", sql.String, nullable=False),
        sql.Column("peers", sql.JSON, nullable=False),
        sql.Column("spec", sql.LargeBinary, nullable=False),
        sql.Column("spec_digest", sql.String, nullable=False),
        sql.Column("agreement", sql.LargeBinary),
        sql.Column("attempt", NUMBER, nullable=False),
        sql.Column("created_at", sql.String, nullable=False),
        sql.Column("started_at", sql.String),
        sql.Column("trained_at", sql.String),
        sql.Column("finished_at", sql.String),
        sql.Column("step", NUMBER, nullable=False),
        sql.Column("steps", NUMBER, nullable=False),
        sql.Column("epoch", NUMBER, nullable=False),
        sql.Column("epochs", NUMBER, nullable=False),
        sql.Column("worker_pid", NUMBER),
        sql.Column("error", sql.JSON(none_as_null=True)),
        sql.Column("metrics", sql.JSON, nullable=False),
        sql.Column("operations", sql.JSON, nullable=False),
        sql.Column("series", sql.JSON, nullable=False),
        sql.Column("classes", sql.JSON, nullable=False),
        sql.Column("notices", sql.JSON, nullable=False),
        sql.Column("reveals", sql.JSON, nullable=False),
        sql.Column("plan", sql.JSON, nullable=False),
        sql.Column("model_digest", sql.String),
        sql.Column("result_digest", sql.String),
        sql.Column("manifest_digest", sql.String),
        sql.Column("relaxed_limits", sql.JSON, nullable=False),
        sql.Column("waits_for", sql.String, nullable=False),
        sql.Column("idempotency_key", sql.String, unique=True),
        sql.Column("idempotency_digest", sql.String),
    )
    op.create_table("last_change", sql.Column("mark", sql.String, nullable=False))
    op.execute("INSERT INTO last_change (mark) VALUES ('none')")
    op.create_table(
        "owner",
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("restored", NUMBER),
    )
    op.create_table(
        "peers",
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("address", sql.String, nullable=False),
        sql.Column("key", sql.LargeBinary, nullable=False),
        sql.Column("cosigning_key", sql.LargeBinary, nullable=False),
        sql.Column("state", sql.String, nullable=False),
        sql.Column("words", sql.String, nullable=False),
        sql.Column("added_at", sql.String, nullable=False),
    )
    op.create_table(
        "pinned_keys",
        sql.Column("peer", sql.String, primary_key=True),
        sql.Column("key", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "receipts",
        sql.Column("job", sql.String, primary_key=True),
        sql.Column("receiver", sql.String, primary_key=True),
        sql.Column("attempt", NUMBER, primary_key=True, autoincrement=False),
        sql.Column("next", NUMBER, nullable=False),
        sql.Column("last", sql.LargeBinary, nullable=False),
        sql.Column("signature", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "rotations",
        sql.Column("party", sql.String, primary_key=True),
        sql.Column("key", sql.LargeBinary, primary_key=True),
        sql.Column("cosigning_key", sql.LargeBinary, nullable=False),
        sql.Column("until", sql.Float, nullable=False),
        sql.Column("encoded", sql.LargeBinary, nullable=False),
        sql.Column("by_old", sql.LargeBinary, nullable=False),
        sql.Column("by_new", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "scored_rows",
        sql.Column("job", sql.String, primary_key=True),
        sql.Column("peer", sql.String, nullable=False),
        sql.Column("time", NUMBER, nullable=False),
        sql.Column("marks", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "events",
        sql.Column("job", sql.String, sql.ForeignKey("jobs.id"), primary_key=True),
        sql.Column("number", NUMBER, primary_key=True, autoincrement=False),
        sql.Column("time", sql.String, nullable=False),
        sql.Column("kind", sql.String, nullable=False),
        sql.Column("text", sql.String, nullable=False),
        sql.Column("data", sql.JSON, nullable=False),
    )
    op.create_table(
        "negotiated",
        sql.Column("number", NUMBER, primary_key=True),
        sql.Column("job", sql.String, sql.ForeignKey("jobs.id"), nullable=False, index=True),
        sql.Column("direction", sql.String, nullable=False),
        sql.Column("peer", sql.String, nullable=False),
        sql.Column("envelope", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "traffic",
        sql.Column("job", sql.String, sql.ForeignKey("jobs.id"), primary_key=True),
        sql.Column("direction", sql.String, primary_key=True),
        sql.Column("peer", sql.String, primary_key=True),
        sql.Column("kind", sql.String, primary_key=True),
        sql.Column("messages", NUMBER, nullable=False),
        sql.Column("payload_bytes", NUMBER, nullable=False),
        sql.Column("last", sql.LargeBinary, nullable=False),
    )
    op.create_table(
        "words",
        sql.Column("job", sql.String, sql.ForeignKey("jobs.id"), primary_key=True),
        sql.Column("peer", sql.String, primary_key=True),
        sql.Column("envelope", sql.LargeBinary, nullable=False),
        sql.Column("since", sql.Float, nullable=False),
    )

"""What Alembic runs for each command: in the connection, and the transaction, of whoever calls it."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

"""How the tables of a party's database came to be, step by step; Alembic reads this folder."""

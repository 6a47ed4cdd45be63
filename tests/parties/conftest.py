"""What is stored is stored in the same way in both kinds of database."""

import pytest


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Of an empty database; of SQLite it lies in the folder, and has none."""
    if request.param == "SQLite":
        return ""
    url: str = request.getfixturevalue("postgresql").new_schema()
    return url

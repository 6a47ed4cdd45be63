"""The list of notices is closed: what the code can tell and what docs/notices.md explains are the same set."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "notices.md").read_text("utf-8")


def made() -> dict[str, set[str]]:
    """Kinds by code, of every Notice the packages make."""
    found = defaultdict[str, set[str]](set)
    for package in ("api", "parties", "vfl"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Notice":
                    kind, code = node.args[:2]
                    assert isinstance(code, ast.Constant), f"{path.name}: a code is a literal"
                    found[str(code.value)] |= {str(c.value) for c in ast.walk(kind) if isinstance(c, ast.Constant)}
    return dict(found)


def test_the_page_explains_every_notice_with_its_kind_and_no_other() -> None:
    explained = {
        code: set(kinds.split(", "))
        for code, kinds in re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]+) \|", PAGE, re.MULTILINE)
    }
    assert explained == made()
    assert list(explained) == sorted(explained)

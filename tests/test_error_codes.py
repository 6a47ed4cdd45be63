"""The list of error codes is closed: what the code can raise and what docs/errors.md explains are the same set."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
TREES = [
    ast.parse(path.read_text("utf-8"))
    for package in ("api", "parties", "vfl")
    for path in sorted((ROOT / package).rglob("*.py"))
]
NODES = [node for tree in TREES for node in ast.walk(tree)]
CODE = re.compile(r"[a-z]+(_[a-z]+)+")


def exceptions() -> dict[str, ast.ClassDef]:
    """Our exception classes by name, however deep their inheritance."""
    classes = [node for node in NODES if isinstance(node, ast.ClassDef)]
    found: dict[str, ast.ClassDef] = {}
    while True:
        more = {
            cls.name: cls
            for cls in classes
            if any(isinstance(b, ast.Name) and (b.id in found or b.id == "Exception") for b in cls.bases)
        }
        if more.keys() == found.keys():
            return found
        found = more


def codes_of_classes() -> Iterator[str]:
    """Class attributes named `code`."""
    for cls in exceptions().values():
        for line in cls.body:
            target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
            value = getattr(line, "value", None)
            if isinstance(target, ast.Name) and target.id == "code" and isinstance(value, ast.Constant):
                yield str(value.value)


def codes_of_calls() -> Iterator[str]:
    """Literals handed to our exceptions as their code: the first or the second argument."""
    known = exceptions()
    for node in NODES:
        for argument in node.args[:2] if isinstance(node, ast.Call) and getattr(node.func, "id", "") in known else []:
            if isinstance(argument, ast.Constant) and CODE.fullmatch(str(argument.value)):
                yield str(argument.value)
            if isinstance(argument, ast.JoinedStr) and "job_{" in ast.unparse(argument):
                yield from ("job_failed", "job_cancelled")


def codes_of_http() -> Iterator[str]:
    """What the edge answers when HTTP itself refuses a request."""
    for node in NODES:
        if isinstance(node, ast.AsyncFunctionDef) and node.name == "answer_http_error":
            texts = {str(inner.value) for inner in ast.walk(node) if isinstance(inner, ast.Constant)}
            yield from (text for text in texts if CODE.fullmatch(text))


def explained() -> list[str]:
    """The codes in the first column of the page's tables."""
    cells = re.findall(r"^\| (<a id=.*?) \|", PAGE, re.MULTILINE)
    return [code for cell in cells for code in re.findall(r"`([a-z_]+)`", cell)]


def test_the_page_explains_every_code_and_no_other() -> None:
    assert set(explained()) == {*codes_of_classes(), *codes_of_calls(), *codes_of_http()}


def test_a_code_is_explained_once_and_can_be_linked_to() -> None:
    assert re.findall(r'<a id="([a-z_]+)"></a>', PAGE) == explained()
    assert len(set(explained())) == len(explained())

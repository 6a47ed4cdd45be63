"""The shape of the house: which way the arrows point, what is never imported, and what no file may be called."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from vfl.kind import Kind
from vfl.kinds import KINDS, all_kinds, kind_named
from vfl.message import MESSAGES, Message

ROOT = Path(__file__).parent.parent
PACKAGES = ("api", "parties", "vfl", "crypto")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
EVERYTHING_WRITTEN = [
    *SOURCES,
    *(p for name in ("tests", "benchmarks", "examples") for p in (ROOT / name).rglob("*.py")),
]

LONGEST_FILE = 400
STANDS_ALONE = {ROOT / "parties" / "trust" / "verifier.py": 630}
"""An auditor reads this file and runs it without any other of ours."""
NAMES_WITHOUT_A_NOUN = {"utils", "util", "common", "base", "manager", "helper", "helpers"}
NAMES_OF_WHAT_HAPPENED = {"found", "kept", "given", "known", "told"}
"""A variable says what it holds, and each of these words fits anything."""
HEAVY = ("torch", "tenseal")
PROCESS_SECONDS = 120


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False)


def loaded_by(module: str) -> set[str]:
    """Top-level names in `sys.modules` of a fresh interpreter that has imported `module` and nothing else of ours."""
    script = f"import sys, {module}; print(*sorted(sys.modules))"
    done = run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_import_contracts_hold() -> None:
    done = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "vfl",
        "vfl.routes",
        "vfl.protocols",
        "crypto",
        "crypto.ckks_parameters",
        *(f"vfl.kinds.{name}" for name in KINDS),
    ],
)
def test_what_a_server_plans_with_loads_neither_tensors_nor_ciphertexts(module: str) -> None:
    assert loaded_by(module).isdisjoint(HEAVY)


def test_the_server_process_loads_neither_tensors_nor_ciphertexts_nor_roles() -> None:
    loaded = loaded_by("api.server")
    assert loaded.isdisjoint(HEAVY)
    assert not {name for name in loaded if name.startswith("vfl.protocols.")}
    assert "crypto.ckks" not in loaded


def test_neither_users_nor_developers_install_anything_under_the_gpl_unasked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    under_gpl = {re.split(r"[^\w-]", line)[0] for line in extras["paillier"]}
    assert "phe" in under_gpl
    unasked = {re.split(r"[^\w-]", line)[0] for line in (*project["dependencies"], *extras["dev"])}
    assert not unasked & under_gpl
    rules = (ROOT / "Makefile").read_text().split("\n\n")
    of_setup = [rule for rule in rules if rule.startswith(".venv/.ready:")]
    assert [re.findall(r"--editable '(.*)'", rule) for rule in of_setup] == [[".[dev]"]]


def test_what_needs_the_extra_paillier_is_tested_in_an_environment_of_its_own_by_ci() -> None:
    assert (ROOT / ".ci" / "run").read_text().split("set -euo pipefail")[1].split("\n")[-3:-1] == [
        "make check",
        "make test-paillier",
    ]
    command = re.search(
        r"^test-paillier:.*\n\t.venv-paillier/bin/pytest -q (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert command is not None
    rooms = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("paillier") if path.is_dir()}
    assert set(command[1].split()) == rooms


def test_the_command_line_loads_neither_tensors_nor_ciphertexts() -> None:
    assert loaded_by("api.cli.main").isdisjoint(HEAVY)


def test_the_worker_process_has_no_network_and_no_database() -> None:
    assert loaded_by("parties.worker.main").isdisjoint({"httpx", "fastapi", "uvicorn", "sqlalchemy", "sqlite3"})


def test_the_rules_of_a_job_need_no_server_no_clock_and_no_database() -> None:
    loaded = loaded_by("parties.jobs.coordinator") | loaded_by("parties.jobs.participant")
    unwanted = {"httpx", "fastapi", "sqlalchemy", "sqlite3", "parties.jobs.supervisor", "parties.wire.outbox"}
    assert loaded.isdisjoint(unwanted)
    for name in ("coordinator", "participant", "actions", "standing", "state_table"):
        written = (ROOT / "parties" / "jobs" / f"{name}.py").read_text("utf-8")
        assert not re.search(r"^(import|from) (threading|time|datetime)\b", written, re.MULTILINE), name


@pytest.mark.parametrize("call", [r"(lane|outgoing|\))\.seal\(", r"(recorder|ledger)\.(sent|received)\("])
def test_every_envelope_is_made_and_recorded_at_one_door(call: str) -> None:
    places = [path.name for path in (ROOT / "parties").rglob("*.py") if re.search(call, path.read_text("utf-8"))]
    assert places == ["door.py"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_through_others(package: str) -> None:
    """Whatever is imported inside a function or only for types counts too. Rooms: the contracts in pyproject.toml."""
    sources = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
    }
    imports = {
        module: imported_by(path) & sources.keys()
        for module, path in sources.items()
        if module.startswith(f"{package}.")
    }
    assert tuple(TopologicalSorter(imports).static_order())  # raises CycleError, which names the circle


def test_the_contracts_place_every_room_of_every_package() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    placed = {package for each in contracts if each.get("exhaustive") for package in each["containers"]}
    assert placed == set(PACKAGES)


def imported_by(path: Path) -> set[str]:
    """Every module a file names in an import, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def test_a_party_does_not_know_what_kind_of_job_it_runs() -> None:
    """CONTRIBUTING.md: the test of the abstraction. A simulation is of rounds, and no party runs it."""
    for path in (ROOT / "parties").rglob("*.py"):
        assert not re.search("vertical|horizontal", path.read_text("utf-8"), re.IGNORECASE), path
        of_one_kind = {module for module in imported_by(path) if re.match(r"vfl\..*\b(training|rounds)\b", module)}
        assert not of_one_kind or path.parent.name == "simulation", path


def test_every_message_says_what_it_reveals() -> None:
    assert all(kind.specification for kind in all_kinds())  # which loads their messages
    assert MESSAGES
    assert all(message.reveals.learns for message in MESSAGES.values())
    with pytest.raises(TypeError, match="does not say what it reveals"):
        type("Secretive", (Message,), {})
    assert "Secretive" not in MESSAGES


def test_tests_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("path", EVERYTHING_WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_noun_and_fits_in_a_head(path: Path) -> None:
    assert path.stem not in NAMES_WITHOUT_A_NOUN
    assert len(path.read_text(encoding="utf-8").splitlines()) <= STANDS_ALONE.get(path, LONGEST_FILE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    first = path.read_text(encoding="utf-8").lstrip()
    assert first.startswith(('"""', 'r"""'))


def test_neither_make_setup_nor_the_image_installs_the_extra_under_the_gpl() -> None:
    installs = [
        line
        for name in ("Makefile", "docker/Dockerfile")
        for line in (ROOT / name).read_text("utf-8").splitlines()
        if "pip install" in line and not line.startswith("\t.venv-paillier/")
    ]
    assert len(installs) == 2
    assert not [line for line in installs if "paillier" in line]


def test_make_setup_installs_nothing_under_the_gpl() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    under_gpl, extras = {"phe", "gmpy2"}, project["optional-dependencies"]
    (extra,) = re.findall(r"\.venv/bin/pip install .*'\.\[(.*)\]'", (ROOT / "Makefile").read_text())
    names = {re.split(r"[<>=!~\[; ]", line)[0] for line in (*project["dependencies"], *extras[extra])}
    assert {"torch", "pytest"} <= names
    assert not names & under_gpl


def test_the_registry_names_the_module_of_every_kind_and_nothing_else() -> None:
    modules = {path.stem for path in (ROOT / "vfl" / "kinds").glob("*.py")} - {"__init__"}
    assert set(KINDS) == modules
    assert len(KINDS) == len(modules)
    for name in KINDS:
        assert isinstance(kind_named(name), Kind)
    assert loaded_by("vfl.kinds").isdisjoint(f"vfl.kinds.{name}" for name in KINDS)  # they are imported on demand


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_variable_is_named_after_what_it_holds(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    assert names.isdisjoint(NAMES_OF_WHAT_HAPPENED)

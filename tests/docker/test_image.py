"""The Dockerfile, read instruction by instruction: no image is built here."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import run, serving

DOCKER = Path(__file__).parents[2] / "docker"
SECONDS = 60
OTHER_MACHINES = '[operator]\nhost = "0.0.0.0"\nallow = ["10.0.0.0/8"]'


class Instruction(NamedTuple):
    name: str
    value: str


def stages(dockerfile: str) -> list[list[Instruction]]:
    """The instructions of each build stage, continuation lines joined, comments gone. Each stage begins with FROM."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, value = line.strip().partition(" ")
            if name == "FROM":
                found.append([])
            found[-1].append(Instruction(name, " ".join(value.split())))
    return found


@pytest.fixture
def dockerfile() -> list[list[Instruction]]:
    return stages((DOCKER / "Dockerfile").read_text(encoding="utf-8"))


def values(stage: list[Instruction], name: str) -> list[str]:
    return [instruction.value for instruction in stage if instruction.name == name]


def test_every_instruction_is_one_docker_knows(dockerfile: list[list[Instruction]]) -> None:
    known = {
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "RUN",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    }
    assert {instruction.name for stage in dockerfile for instruction in stage} <= known


def test_every_stage_starts_from_a_slim_python_of_a_pinned_version(dockerfile: list[list[Instruction]]) -> None:
    for stage in dockerfile:
        (base,) = values(stage, "FROM")
        assert re.fullmatch(r"python:3\.1[1-9]\.\d+-slim-[a-z]+( AS [a-z]+)?", base)


def test_what_runs_is_not_root(dockerfile: list[list[Instruction]]) -> None:
    final = dockerfile[-1]
    (user,) = values(final, "USER")
    numbers = re.fullmatch(r"(\d+):(\d+)", user)
    assert numbers is not None
    assert "0" not in numbers.groups()
    assert [i.name for i in final].index("USER") < [i.name for i in final].index("ENTRYPOINT")


def test_every_installation_is_constrained_and_takes_no_extras(dockerfile: list[list[Instruction]]) -> None:
    installations = [value for stage in dockerfile for value in values(stage, "RUN") if "pip install" in value]
    assert installations
    for installation in installations:
        arguments = shlex.split(installation)
        assert arguments[arguments.index("--constraint") + 1] == "constraints.txt"
        assert arguments[-1] == "."


def test_a_second_index_is_a_build_argument_without_a_default(dockerfile: list[list[Instruction]]) -> None:
    assert 'PIP_EXTRA_INDEX_URL=""' in values(dockerfile[0], "ARG")
    assert not values(dockerfile[-1], "ARG")
    assert not re.search(r"https?://(?!127\.0\.0\.1)", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))


def test_nothing_secret_and_nothing_by_wildcard_enters_the_image(dockerfile: list[list[Instruction]]) -> None:
    for stage in dockerfile:
        for copied in values(stage, "COPY"):
            assert not re.search(r"token|secret|\.env|\.pem|\.key|\*", copied)
            assert "." not in shlex.split(copied)[:-1]
        for setting in (*values(stage, "ENV"), *values(stage, "ARG")):
            assert not re.search(r"token|secret|password|seed", setting, re.IGNORECASE)
        assert not values(stage, "ADD")


def test_what_the_image_copies_exists_and_passes_the_ignore_file(dockerfile: list[list[Instruction]]) -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in ignore if line.startswith("!")}
    assert "*" in ignore
    sources = [
        source.removeprefix("./")
        for stage in dockerfile
        for copied in values(stage, "COPY")
        if "--from" not in copied
        for source in [part for part in shlex.split(copied) if not part.startswith("--")][:-1]
    ]
    assert set(sources) == kept
    for source in sources:
        assert (DOCKER.parent / source).exists()


@pytest.mark.parametrize("operator", ["", OTHER_MACHINES], ids=["this machine alone", "others"])
def test_the_health_check_finds_the_operator_port_where_party_toml_lets_it_answer(
    dockerfile: list[list[Instruction]], tmp_path: Path, operator: str
) -> None:
    (check,) = values(dockerfile[-1], "HEALTHCHECK")
    program, *arguments = json.loads(check[check.index("[") :])
    assert program == "python"
    assert "--timeout=" in check
    run(tmp_path, "party", "init", "bank", "--name", "bank")
    settings = tmp_path / "bank" / "party.toml"
    settings.write_text(f"{settings.read_text()}\n{operator}\n")

    def code() -> int:
        environment = os.environ | {"PARTY_FOLDER": str(tmp_path / "bank")}
        return subprocess.run([sys.executable, *arguments], env=environment, timeout=SECONDS, check=False).returncode

    with serving(tmp_path, "bank"):
        assert code() == 0
    assert code() == 1


def test_a_party_writes_only_to_its_volume_and_to_scratch(dockerfile: list[list[Instruction]]) -> None:
    final = dockerfile[-1]
    assert values(final, "VOLUME") == ["/party"]
    assert values(final, "WORKDIR") == ["/party"]
    (environment,) = values(final, "ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert "MPLCONFIGDIR=/tmp/" in environment

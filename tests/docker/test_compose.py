"""compose.yaml: two parties that can reach each other and nobody else. Read, not run."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

DOCKER = Path(__file__).parents[2] / "docker"
SERVICES = ("label-party", "feature-party")


def read_yaml(text: str) -> Any:
    """The part of YAML that compose.yaml keeps to: mappings and lists by indentation, plain or quoted scalars.

    Whatever lies outside (tabs, anchors, flow style, a key twice, odd indentation) raises ValueError.
    """
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.rstrip()
        if line.strip() and not line.lstrip().startswith("#"):
            if "\t" in line or re.search(r"(^|\s)[&*!|>{\[]|\s#", line):
                raise ValueError(f"line {number} is not plain: {line}")
            lines.append((len(line) - len(line.lstrip()), line.strip()))
    value, rest = _block(lines, 0)
    if rest:
        raise ValueError(f"indentation does not fit at {rest[0][1]!r}")
    return value


Lines = list[tuple[int, str]]


def _block(lines: Lines, indent: int) -> tuple[Any, Lines]:
    if lines and lines[0][1].startswith("- "):
        items = []
        while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
            items.append(_scalar(lines[0][1][2:]))
            lines = lines[1:]
        return items, lines
    mapping: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        match = re.fullmatch(r"([A-Za-z_][\w-]*):(?: (.+))?", lines[0][1])
        if match is None or match[1] in mapping:
            raise ValueError(f"not a new key: {lines[0][1]!r}")
        lines = lines[1:]
        if match[2]:
            mapping[match[1]] = _scalar(match[2])
        elif lines and lines[0][0] > indent:
            if lines[0][0] != indent + 2:
                raise ValueError(f"indentation does not fit at {lines[0][1]!r}")
            mapping[match[1]], lines = _block(lines, indent + 2)
        else:
            mapping[match[1]] = None
    return mapping, lines


def _scalar(text: str) -> Any:
    quoted = re.fullmatch(r'"([^"\\]*)"', text)
    if quoted:
        return quoted[1]
    if ": " in text or text.endswith(":") or text[0] in "\"'%@`":
        raise ValueError(f"not a plain scalar: {text!r}")
    return {"true": True, "false": False}.get(text, text)


@pytest.fixture
def compose() -> dict[str, Any]:
    document: dict[str, Any] = read_yaml((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("text", ["a: {b: c}", "a: 1\na: 2", "a:\n   b: 1", "a: *b", "a:\n\tb: 1", "a: b: c"])
def test_the_reader_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(ValueError, match=r"line|key|fit|plain"):
        read_yaml(text)


def test_there_are_two_parties_of_one_image(compose: dict[str, Any]) -> None:
    assert set(compose) == {"name", "services", "networks", "volumes"}
    assert tuple(compose["services"]) == SERVICES
    assert len({service["image"] for service in compose["services"].values()}) == 1
    build = compose["services"]["label-party"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).is_file()


def test_the_two_meet_on_one_link_and_each_has_a_network_of_its_own(compose: dict[str, Any]) -> None:
    label, feature = (set(compose["services"][party]["networks"]) for party in SERVICES)
    assert label & feature == {"link"}
    assert len(label) == len(feature) == 2
    assert set(compose["networks"]) == label | feature
    assert all(network == {"internal": True} for network in compose["networks"].values())


def test_no_port_is_published_and_no_network_namespace_is_shared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert not {"ports", "network_mode", "links", "extra_hosts"} & set(service)


@pytest.mark.parametrize("party", SERVICES)
def test_a_party_runs_without_privileges_on_a_read_only_root(compose: dict[str, Any], party: str) -> None:
    service = compose["services"][party]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp:exec"]  # noqa: S108 - a mount point inside the container
    assert "privileged" not in service


def test_no_secret_stands_in_the_file(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service["environment"]) == {"PARTY_NAME"}


def test_each_party_has_its_own_folder_settings_and_data(compose: dict[str, Any]) -> None:
    mounts = [
        {volume.rsplit(":", 2 if volume.endswith(":ro") else 1)[0] for volume in compose["services"][party]["volumes"]}
        for party in SERVICES
    ]
    assert mounts[0].isdisjoint(mounts[1])
    assert set(compose["volumes"]) == set(SERVICES)


@pytest.mark.parametrize("party", SERVICES)
def test_a_party_is_called_by_its_services_name_and_commanded_from_inside_alone(
    compose: dict[str, Any], party: str
) -> None:
    settings = tomllib.loads((DOCKER / "parties" / f"{party}.toml").read_text("utf-8"))
    (other,) = set(SERVICES) - {party}
    service, server = compose["services"][party], settings["server"]
    assert settings["name"] == service["environment"]["PARTY_NAME"] == party
    assert (server["address"], server["peer_host"]) == (f"{party}:{server['peer_port']}", "0.0.0.0")  # noqa: S104
    assert settings["acceptance"]["peers"] == [other]
    image = (DOCKER / "Dockerfile").read_text("utf-8")
    assert re.findall(r"^EXPOSE (.+)$", image, re.MULTILINE) == [str(server["peer_port"])]
    assert f"./parties/{party}.toml:/etc/party/party.toml:ro" in service["volumes"]


@pytest.mark.parametrize("party", SERVICES)
def test_the_settings_are_ones_a_party_accepts(party: str, tmp_path: Path) -> None:
    from parties.settings import load

    (tmp_path / "party.toml").write_text((DOCKER / "parties" / f"{party}.toml").read_text("utf-8"), "utf-8")
    assert load(tmp_path).server.told_address == f"{party}:7102"

"""What the documents say is true: commands exist, TOML is read, tables equal the code, links lead somewhere."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command_line import added_on
from identities import identity_of
from pages import PAGES, ROOT, prose

from crypto.ckks_parameters import PRESETS
from parties.settings import PartySettings, init_party, load
from vfl.kinds import KINDS, read_spec, read_spec_as
from vfl.models.metrics import METRIC
from vfl.routes import ROUTES
from vfl.spec.alignment import AlignmentSpec
from vfl.spec.job import JobSpec
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.prediction import PredictionSpec
from vfl.spec.rounds import RoundsRole, RoundsSpec
from vfl.spec.training import TrainingSpec


class Block(NamedTuple):
    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.strip().splitlines()[0][:40]}"


def blocks(page: Path) -> Iterator[Block]:
    """Fenced code blocks of a page."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        yield Block(page, match[1], match[2])


BLOCKS = [block for page in PAGES for block in blocks(page)]
TOML = [block for block in BLOCKS if block.language == "toml"]
JOBS = [block for block in TOML if "[roster]" in block.text]
PARTIES = [block for block in TOML if block not in JOBS and "[simulation]" not in block.text]


def rows(page: str, heading: str = "") -> list[list[str]]:
    """The cells of every table row of a page (after a heading), without header lines."""
    text = (ROOT / page).read_text("utf-8")
    text = text[text.index(heading) + len(heading) :]
    found: list[list[str]] = []
    for line, following in zip(text.splitlines(), [*text.splitlines()[1:], ""], strict=True):
        if heading and line.startswith("## "):
            break
        if line.startswith("|") and not re.match(r"\|[-|\s]+$", line) and not re.match(r"\|[-|\s]+$", following):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# -- TOML


@pytest.mark.parametrize("block", JOBS, ids=str)
def test_a_job_specification_in_the_documents_is_one(block: Block) -> None:
    assert read_spec(block.text).job.name


def party_of(block: Block, folder: Path) -> PartySettings:
    """A whole party.toml, or what stands at the end of the one that `vfl party init` wrote, as the page says."""
    for made in ("party.toml", "identity.key"):
        (folder / made).unlink(missing_ok=True)
    above = re.findall(r"At the end of `([\w-]+)/party\.toml`", block.page.read_text("utf-8").partition(block.text)[0])
    written = "" if block.text.startswith("name =") else init_party(folder, above[-1]).read_text("utf-8")
    (folder / "party.toml").write_text(f"{written}\n{block.text}", "utf-8")
    return load(folder)


@pytest.mark.parametrize("block", PARTIES, ids=str)
def test_a_party_file_in_the_documents_is_one(block: Block, tmp_path: Path) -> None:
    assert party_of(block, tmp_path).name


def test_the_bottom_module_in_the_documents_fits_its_party_file_and_its_job(tmp_path: Path) -> None:
    from parties.worker.main import load_bottom

    page = ROOT / "docs" / "party_settings.md"
    (module,) = (block.text for block in BLOCKS if block.page == page and block.language == "python")
    (party,) = (tomllib.loads(block.text) for block in PARTIES if block.page == page and "[bottom]" in block.text)
    file, _, function = party["bottom"]["module"].partition(":")
    (tmp_path / file).write_text(module, "utf-8")
    built = load_bottom(f"{tmp_path / file}:{function}")(3, 6)
    assert [p.shape[0] for p in built.parameters()][-1] == 6


def test_the_documents_show_both_kinds() -> None:
    assert len(JOBS) >= 2
    assert len(PARTIES) >= 3


def test_the_two_parties_and_the_job_of_getting_started_fit_together(tmp_path: Path) -> None:
    page = ROOT / "docs" / "getting_started.md"
    (job,) = [read_spec_as(TrainingSpec, block.text) for block in JOBS if block.page == page]
    for block in PARTIES:
        if block.page == page:
            party = party_of(block, tmp_path)
            assert set(job.peers_of(party.name)) == set(party.acceptance.peers)
            dataset, id_column = added_on(page)[party.name]
            assert job.data[party.name].dataset == dataset
            assert job.encryption.scheme in party.acceptance.schemes
            first = job.data[party.name].columns[0]
            tables = [block.text for block in BLOCKS if block.language == "csv" and block.text.startswith("customer,")]
            header = next(text.splitlines()[0].split(",") for text in tables if first in text)
            assert {*job.data[party.name].columns, id_column} <= set(header)


def test_the_parties_and_the_job_on_the_page_of_rounds_fit_together(tmp_path: Path) -> None:
    page = ROOT / "docs" / "protocols" / "rounds.md"
    (job,) = [read_spec_as(RoundsSpec, block.text) for block in JOBS if block.page == page]
    roles = set()
    for block in PARTIES:
        if block.page == page:
            party = party_of(block, tmp_path)
            roles.add(job.role_of(party.name))
            assert set(job.peers_of(party.name)) == set(party.acceptance.peers)
            brought = {brought.dataset for brought in job.tables_of(party.name).values()}
            assert brought == {added_on(page)[party.name][0]} == set(party.acceptance.datasets)
            assert job.disclosure in party.acceptance.schemes
    assert roles == {RoundsRole.AGGREGATOR, RoundsRole.CLIENT}


# -- commands


@cache
def command_line() -> Any:
    from typer.main import get_command

    from api.cli.main import app

    return get_command(app)


def quoted_commands() -> list[str]:
    quoted = {line[2:] for block in BLOCKS for line in block.text.splitlines() if line.startswith("$ vfl ")}
    for page in PAGES:
        quoted |= {code for code in names(prose(page)) if code.startswith("vfl ")}
        for block in blocks(page):
            quoted |= {f"vfl {match}" for match in re.findall(r"^\$ docker .* vfl (.+)$", block.text, re.MULTILINE)}
    return sorted(quoted)


@pytest.mark.parametrize("quoted", quoted_commands())
def test_a_quoted_command_exists_and_has_the_quoted_options(quoted: str) -> None:
    command, words = command_line(), shlex.split(quoted)[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not getattr(command, "commands", {}) or words[:1] in ([], ["--version"]), f"`{quoted}`: no {words[0]}"
    known = {"--help", "-h"} | {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


def test_every_command_stands_on_the_page_of_the_command_line() -> None:
    def leaves(command: Any, path: str) -> Iterator[str]:
        for name, child in getattr(command, "commands", {}).items():
            yield from leaves(child, f"{path} {name}")
        if not getattr(command, "commands", {}) and not command.hidden:
            yield path

    quoted = {name for row in rows("docs/cli.md", "## Commands") for name in names(row[0]) if name.startswith("vfl ")}
    assert quoted == set(leaves(command_line(), "vfl"))


def test_quoted_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    quoted = {
        match
        for page in PAGES
        for match in re.findall(r"(?:`|^    )make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert quoted
    assert quoted <= targets


# -- references


def is_table(kind: Any) -> bool:
    """Of a specification, and not another specification within it."""
    return hasattr(kind, "__struct_fields__") and not issubclass(kind, JobSpec)


def fields(section: Any, path: str = "") -> Iterator[str]:
    """Dotted keys of a job specification."""
    import msgspec

    for field in msgspec.structs.fields(section):
        inner = [t for t in (field.type, *getattr(field.type, "__args__", ())) if is_table(t)]
        party = ".<party>" if str(field.type).startswith("dict") else ""
        if len(inner) > 1:  # one of them, by a word; the one with most keys comes first
            yield f"{path}{field.name}.{inner[0].__struct_config__.tag_field}"
        if inner:
            yield from dict.fromkeys(key for table in inner for key in fields(table, f"{path}{field.name}{party}."))
        else:
            yield f"{path}{field.name}"


def settings(section: Any, path: str = "") -> Iterator[str]:
    """Dotted keys of party.toml."""
    for name, field in section.model_fields.items():
        kinds = [
            t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if hasattr(t, "model_fields")
        ]
        if kinds:
            key = ".<name>" if str(field.annotation).startswith("dict") else ""
            yield from settings(kinds[0], f"{path}{name}{key}.")
        else:
            yield f"{path}{name}"


KEYS_OF = {
    "training job": TrainingSpec,
    "job in one pass": OnePassSpec,
    "job of alignment": AlignmentSpec,
    "job of prediction": PredictionSpec,
    "job of rounds": RoundsSpec,
}
REFERENCES = [(f"## A {heading}", kind) for heading, kind in KEYS_OF.items()]


@pytest.mark.parametrize(("heading", "kind"), REFERENCES)
def test_the_reference_of_the_job_specification_is_complete(heading: str, kind: Any) -> None:
    assert [names(row[0])[0] for row in rows("docs/job_specification.md", heading)] == list(fields(kind))


def choices(section: Any) -> Iterator[tuple[str, ...]]:
    """The words each key of a job specification may take, in the order of the keys; empty where any value goes."""
    import msgspec

    for field in msgspec.structs.fields(section):
        arguments = getattr(field.type, "__args__", ())
        inner = [t for t in (field.type, *arguments) if is_table(t)]
        if len(inner) > 1:
            yield tuple(section.__struct_config__.tag for section in inner)
        if inner:
            of_keys = [pair for table in inner for pair in zip(fields(table), choices(table), strict=True)]
            yield from {key: dict(reversed(of_keys))[key] for key, _ in of_keys}.values()  # of the first that has it
        else:
            words = [
                w for t in (field.type, *arguments) for w in (t, *getattr(t, "__args__", ())) if isinstance(w, str)
            ]
            yield tuple(dict.fromkeys(words))


@pytest.mark.parametrize(("heading", "kind"), REFERENCES)
def test_the_reference_of_the_job_specification_lists_the_words_a_key_may_take(heading: str, kind: Any) -> None:
    for row, words in zip(rows("docs/job_specification.md", heading), choices(kind), strict=True):
        assert set(names(row[1])) == set(KINDS if names(row[0]) == ["job.protocol"] else words), row[0]
        if names(row[0]) == ["encryption.preset"]:
            assert names(row[3]) == ["auto", *PRESETS]


def test_the_reference_of_the_party_file_is_complete() -> None:
    assert [names(row[0])[0] for row in rows("docs/party_settings.md")] == list(settings(PartySettings))


def test_the_presets_in_the_documents_are_those_of_the_code() -> None:
    written = {names(row[0])[0]: tuple(row[2:]) for row in rows("docs/protocols/ckks_training.md", "## Parameters")}
    assert written == {
        preset.name: (
            ", ".join(str(modulus.bit_length()) for modulus in preset.data_moduli),
            str(preset.modulus_bits),
            f"2^{preset.sum_scale}",
            f"2^{preset.noise:g}",
            " to ".join(f"{limit:g}" for limit in sorted({preset.weight_limit, preset.largest_weight_limit})),
            str(preset.values_per_key),
        )
        for preset in PRESETS.values()
    }
    margins = {
        names(row[0])[0]: tuple(map(int, row[1:])) for row in rows("docs/threat_model.md", "## A label party that")
    }
    assert margins == {preset.name: (preset.key_owner_margin, preset.values_per_key) for preset in PRESETS.values()}
    decision = {names(row[0])[0]: row[1:] for row in rows("docs/adr/0003-products-at-the-last-level.md")}
    assert decision == {
        preset.name: [
            ", ".join(str(modulus.bit_length()) for modulus in preset.data_moduli),
            ", ".join(str(modulus.bit_length()) for modulus in preset.key_moduli),
            str(preset.exposed_bits),
            f"2^{preset.sum_scale}",
            f"2^{preset.noise:g}",
            str(preset.values_per_key),
        ]
        for preset in PRESETS.values()
    }


@pytest.mark.parametrize("protocol", ROUTES)
def test_a_protocols_page_lists_its_messages_in_order(protocol: str) -> None:
    listed = [names(row[0])[0] for row in rows(f"docs/protocols/{protocol}.md", "## Who learns what")]
    assert listed == list(dict.fromkeys(route.message.kind() for route in ROUTES[protocol]))


def test_every_runtime_dependency_has_a_licence_and_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras, table = project["optional-dependencies"], rows("docs/adr/0005-dependencies-and-licences.md")
    requirements = [
        *project["dependencies"],
        *extras["paillier"],
        *extras["postgres"],
        *extras["onnx"],
        *extras["cluster"],
    ]
    assert [row[0] for row in table] == [re.split(r"[^\w-]", text)[0] for text in requirements]
    assert all(map(all, table))


def test_the_parameters_of_the_estimators_are_documented() -> None:
    from api.estimators import VerticalClassifier, VerticalRegressor

    listed = {
        names(row[0])[0]: ast.literal_eval(names(row[1])[0]) for row in rows("docs/estimators.md", "## Parameters")
    }
    assert listed == VerticalClassifier().get_params()
    of_classifier = {"stratify", "loss_error"}
    assert {name: listed[name] for name in listed.keys() - of_classifier} == VerticalRegressor().get_params()


@pytest.mark.parametrize(
    ("of", "file", "name"),
    [("", "training/result.py", "result_data"), (" of rounds", "rounds/result.py", "rounds_result")],
)
def test_the_fields_of_a_demonstration_are_documented(of: str, file: str, name: str) -> None:
    tree = ast.parse((ROOT / "api" / "demo" / file).read_text("utf-8"))
    (function,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    (answer,) = (n.value for n in ast.walk(function) if isinstance(n, ast.Return))
    assert isinstance(answer, ast.Dict)
    written = {str(key.value) for key in answer.keys if isinstance(key, ast.Constant)}
    listed = {name for row in rows("docs/cli.md", f"## The demonstration{of}\n") for name in names(row[0])}
    assert listed == written | (set() if of else set(METRIC.values()))


def test_the_exit_codes_in_the_documents_are_those_of_the_code() -> None:
    from api.cli.output import Exit

    assert [int(row[0]) for row in rows("docs/cli.md", "## Exit codes")] == sorted(map(int, Exit))


@pytest.fixture
def openapi(tmp_path: Path) -> Iterator[dict[str, Any]]:
    from api.operator.app import operator_app
    from parties.party import Party

    init_party(tmp_path, "label-party")
    party = Party(tmp_path, load(tmp_path), identity_of("label-party"))
    try:
        yield operator_app(party, bytes(32)).openapi()
    finally:
        party.close()


def test_the_operator_api_in_the_documents_is_the_one_that_is_served(openapi: dict[str, Any]) -> None:
    served = {
        f"{method.upper()} {re.sub('{.*?}', '{id}', path)}"
        for path, methods in openapi["paths"].items()
        for method in methods
    }
    listed = {
        re.sub("{.*?}", "{id}", names(row[0])[0].partition("?")[0])
        for row in rows("docs/operator_api.md")[: len(served)]
    }
    assert listed == served


def test_every_field_of_a_job_is_documented(openapi: dict[str, Any]) -> None:
    listed = [name for row in rows("docs/operator_api.md", "## The job") for name in names(row[0])]
    assert set(listed) == set(openapi["components"]["schemas"]["JobBody"]["properties"])

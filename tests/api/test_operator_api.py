"""The control API of one running party, and a server's start and end."""

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from identities import identity_of, tls_at

Spec = Callable[..., str]


class OtherVersion(BaseHTTPRequestHandler):
    """A party of a later release."""

    def do_POST(self) -> None:
        body = b'{"party":"feature-party","wire_version":99}'
        self.send_response(202)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def later_release() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), OtherVersion)
    server.socket = tls_at("feature-party", "label-party").wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def label(
    tmp_path_factory: pytest.TempPathFactory, new_party: Callable[..., Any], patients: Path, later_release: str
) -> Iterator[Any]:
    """A running label party whose peer speaks another wire version."""
    folder = tmp_path_factory.mktemp("operator") / "label-party"
    server = new_party(folder, "label-party", {"feature-party": later_release}, {"patients": "patients.csv"})
    (folder / "patients.csv").write_bytes(patients.read_bytes())
    yield server.start()
    server.close()


def test_health_needs_no_token_and_everything_else_does(label: Any) -> None:
    assert httpx.get(f"{label.operator}/healthz", trust_env=False).json() == {"status": "ok", "party": "label-party"}
    for token in ("", "Bearer", "Bearer wrong", f"Basic {label.token}"):
        answer = label.client.get(f"{label.operator}/v1/jobs", headers={"authorization": token})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorised")
    assert label.call("GET", "/v1/jobs").json() == {"jobs": [], "next": None}


def test_no_route_but_health_answers_without_the_token(label: Any) -> None:
    for path in ("/openapi.json", "/v1/version", "/v1/jobs", "/v1/jobs/none", "/v1/jobs/none/events"):
        assert httpx.get(label.operator + path, params={"token": label.token}, trust_env=False).status_code == 401, path
    for path in ("/docs", "/redoc"):
        assert label.call("GET", path).status_code == 404
    assert "/v1/jobs" in label.call("GET", "/openapi.json").json()["paths"]


def test_a_page_in_a_browser_cannot_use_the_api_even_with_the_token(label: Any) -> None:
    for headers, status in (({"origin": "http://page.example"}, 403), ({"host": "rebound.example"}, 421)):
        assert label.call("GET", "/v1/jobs", headers=headers).status_code == status
        assert label.call("GET", "/healthz", headers=headers).status_code == status


def test_a_client_can_log_in_by_what_the_description_says_and_meets_no_answer_it_does_not_declare(label: Any) -> None:
    """As a generated client does: the scheme, the routes, the statuses and their media types are all it knows."""
    document = label.call("GET", "/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"].items()
    assert (scheme[1]["type"], scheme[1]["scheme"]) == ("http", "bearer")
    login = {"authorization": f"{scheme[1]['scheme']} {label.token}"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needs_login = path != "/healthz"
            assert (operation.get("security") == [{scheme[0]: []}]) is needs_login, path
            responses = operation["responses"]
            assert {"401", "403", "421", "422"} <= set(responses)
            url = label.operator + re.sub("{.*?}", "none", path)
            for headers in ({}, login, {"origin": "http://page.example"}, {"host": "rebound.example"}):
                answer = label.client.request(method, url, headers=headers)
                assert str(answer.status_code) in responses, (path, answer.status_code)
                assert answer.headers["content-type"] in responses[str(answer.status_code)]["content"]
                body = answer.json() if answer.headers["content-type"].endswith("json") else {}
                assert answer.headers["x-request-id"] == body.get("request_id", answer.headers["x-request-id"])
    problem = document["components"]["schemas"]["ProblemBody"]["properties"]
    assert set(label.call("GET", "/v1/jobs/none").json()) == set(problem)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_a_parameter_no_route_knows_is_refused_by_name(label: Any) -> None:
    for path, known in (("/v1/jobs", "after, limit"), ("/v1/version", "takes none"), ("/healthz", "takes none")):
        answer = label.call("GET", path, params={"lmit": "3"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert "query.lmit" in answer.json()["detail"]
        assert known in answer.json()["hint"]


def test_pages_of_jobs_have_a_size(label: Any) -> None:
    assert label.call("GET", "/v1/jobs", params={"limit": 201}).status_code == 422
    assert label.call("GET", "/v1/jobs", params={"after": "none"}).json()["code"] == "unknown_job"


def test_the_version_is_told(label: Any) -> None:
    assert set(label.call("GET", "/v1/version").json()) == {"version", "wire_version"}


def test_errors_are_problem_documents_with_code_hint_and_what_is_safe(label: Any) -> None:
    answer = label.call("GET", "/v1/jobs/none")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail", "code", "hint", "safe", "request_id"}
    assert answer.json()["code"] == "unknown_job"


@pytest.mark.parametrize(
    "spec", ["deep = " + "[" * 100_000, 'job = {name = "\\u001b[2J"}', "epochs = " + "9" * 5000, "a.b" * 20_000, "\x00"]
)
def test_a_specification_that_is_a_trap_is_an_invalid_specification(label: Any, spec: str) -> None:
    answer = label.call("POST", "/v1/jobs", json={"spec": spec})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert "Traceback" not in (label.folder / "server.log").read_text()


@pytest.mark.parametrize("body", [b'{"spec": "\\ud800"}', b'{"spec": ' + b"[" * 50_000, b"\xff", b""])
def test_a_body_that_is_no_json_text_is_refused(label: Any, body: bytes) -> None:
    answer = label.call("POST", "/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 422}
    assert "Traceback" not in (label.folder / "server.log").read_text()


def test_an_event_number_no_database_counts_to_is_refused(label: Any) -> None:
    answer = label.call("GET", "/v1/jobs/none/events", params={"after": 1 << 63})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("body", [{}, {"spec": 3}, {"spec": "", "speck": ""}])
def test_a_request_of_another_form_is_refused(label: Any, body: dict[str, Any]) -> None:
    answer = label.call("POST", "/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_specification_as_an_editor_saved_it_with_a_byte_order_mark_is_read(label: Any, job_spec: Spec) -> None:
    typed = job_spec().replace("epochs", "epoch")
    for mark in ("", "\ufeff"):
        answer = label.call("POST", "/v1/jobs", json={"spec": mark + typed})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
        assert "`epoch`" in answer.json()["detail"]


def test_an_unknown_key_of_a_specification_is_named_with_the_nearest_known_one(label: Any, job_spec: Spec) -> None:
    answer = label.call("POST", "/v1/jobs", json={"spec": job_spec().replace("epochs", "epocs")})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
    assert "epochs" in answer.json()["hint"]


def test_a_body_above_the_limit_is_refused(label: Any) -> None:
    answer = label.call("POST", "/v1/jobs", content=(bytes(1 << 16) for _ in range(17)))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_peer_of_another_wire_version_is_named_and_nothing_is_stored(label: Any, job_spec: Spec) -> None:
    answer = label.call("POST", "/v1/jobs", json={"spec": job_spec()})
    assert (answer.status_code, answer.json()["code"]) == (502, "wire_version_differs")
    assert "feature-party speaks wire version 99" in answer.json()["detail"]
    assert label.call("GET", "/v1/jobs").json() == {"jobs": [], "next": None}


def test_the_token_stands_in_no_log_and_the_private_files_are_private(label: Any) -> None:
    assert label.token not in (label.folder / "server.log").read_text()
    for name in ("operator.token", "operator.token.sha256", "party.toml", "party.db"):
        assert (label.folder / name).stat().st_mode & 0o077 == 0, name
    assert label.folder.stat().st_mode & 0o777 == 0o700
    held = [path for path in label.folder.iterdir() if path.is_file() and label.token.encode() in path.read_bytes()]
    assert [path.name for path in held] == ["operator.token"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_cleanly_on_a_signal(
    tmp_path: Path, new_party: Callable[..., Any], number: signal.Signals
) -> None:
    server = new_party(tmp_path / "party", "some-party", {}, {}).start()
    assert server.stop(number) == 0


@pytest.mark.parametrize("which", ["operator_port", "peer_port"])
def test_a_port_in_use_is_named_before_anything_starts(
    tmp_path: Path, new_party: Callable[..., Any], which: str
) -> None:
    server = new_party(tmp_path / "party", "some-party", {}, {})
    with socket.create_server(("127.0.0.1", getattr(server, which))):
        code = "import sys, pathlib; from api.server import serve; serve(pathlib.Path(sys.argv[1]))"
        ended = subprocess.run(
            [sys.executable, "-c", code, str(server.folder)], capture_output=True, text=True, check=False, timeout=30
        )
    assert ended.returncode != 0
    assert f"PortInUse: port {getattr(server, which)} ({which})" in ended.stderr
    assert not (server.folder / "party.lock").exists()


def test_a_second_server_on_one_folder_is_refused(label: Any, tmp_path: Path) -> None:
    from parties.errors import PartyInUse
    from parties.party import Party
    from parties.settings import load

    with pytest.raises(PartyInUse):
        Party(label.folder, load(label.folder), identity_of(label.name))


def bodies_with(document: dict[str, Any], wrong: str) -> Iterator[tuple[str, str, str]]:
    """Of each route that takes a body, and each of its fields: method, path, and a body where that field is wrong."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" in operation:
                reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                schema = document["components"]["schemas"][reference.rpartition("/")[2]]
                for name in schema["properties"]:
                    fields = dict.fromkeys(schema.get("required", []), '"x"') | {name: wrong}
                    body = ", ".join(f'"{field}": {value}' for field, value in fields.items())
                    yield method.upper(), path.replace("{", "").replace("}", ""), f"{{{body}}}"


@pytest.mark.parametrize("wrong", ['"\\ud800"', '{"\\ud800": ["\\udfff"]}', "1e999", "NaN", "[" * 5000])
def test_no_field_of_a_body_can_hold_what_is_no_text_or_no_number_and_the_answer_says_how_to_put_it_right(
    label: Any, wrong: str
) -> None:
    asked = list(bodies_with(label.call("GET", "/openapi.json").json(), wrong))
    assert len(asked) > 20
    for method, path, body in asked:
        answer = label.call(method, path, content=body.encode(), headers={"content-type": "application/json"})
        problem = answer.json()
        assert (path, answer.status_code) in {(path, 400), (path, 422)}
        assert problem["detail"] and problem["hint"] and problem["safe"], problem  # noqa: PT018 - one claim


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/none"), ("PUT", "/v1/jobs"), ("GET", "/v1/jobs?limit=x"), ("POST", "/v1/jobs")]
)
def test_what_http_refuses_says_what_is_safe_and_what_to_do_too(label: Any, method: str, path: str) -> None:
    problem = label.call(method, path).json()
    assert problem["detail"] and problem["hint"] and problem["safe"], problem  # noqa: PT018 - one claim

"""The class behind the command line: one party's operator API, spoken synchronously.

Every failure is one of the exceptions of `api.client_problems`.
"""

import contextlib
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import httpx

from api.client_problems import AnswerOverdue, RequestRefused, ServerProblem, ServerUnreachable, TokenRefused

JsonObject: TypeAlias = dict[str, Any]
"""What the operator API answers with; the fields of a job are those of its OpenAPI description."""

ANSWER_SECONDS, DOWNLOAD_SECONDS = 30.0, 300.0
EXAMINATION_SECONDS = 1800.0
"""A large table is read as a whole."""
LONG_POLL_SECONDS = 20.0
"""How long one request for events may wait at the server; below the limit of common proxies."""

CA_FILE = "operator.ca.pem"

FINAL_STATES = frozenset({"done", "failed", "cancelled"})

OWN_HALF_SECONDS, PEER_SECONDS = 3.0, 13.5
"""Of `vfl doctor`, which takes 20 s at most."""
JOB_SECONDS = 70.0
"""Of `vfl doctor --spec`: both sides may have to read a large table."""


class Client:
    """One party's server. Each method raises a ServerProblem when it does not succeed."""

    def __init__(
        self, url: str, token: str, *, tls: ssl.SSLContext | None = None, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        """`tls` says which certificates count at an https address (`trusting`); without it, those of the system.

        Raises ServerUnreachable for an address at which the token would travel in clear.
        """
        self.url = url.rstrip("/")
        _check_secrecy(self.url)
        if tls is None:  # reading the system's authorities takes longer than most calls; without TLS nobody is trusted
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if self.url[:7] == "http://" else ssl.create_default_context()
        # A proxy of the environment has no business between an operator and the own server.
        self._http = httpx.Client(
            base_url=self.url,
            timeout=answer_seconds,
            verify=tls,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            trust_env=False,
        )

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The server of the party whose `party.toml` and `operator.token` stand in `folder`."""
        from parties.operator_tls import calls_of_this_machine  # noqa: PLC0415 - pydantic only where a folder is read
        from parties.settings import TOKEN_FILE, load  # noqa: PLC0415

        settings = load(folder)
        tls = calls_of_this_machine(folder, settings.operator)
        return cls(settings.operator_url, read_token(folder / TOKEN_FILE), tls=tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def healthy(self) -> bool:
        """Does the server answer, and is it a party's server?"""
        try:
            return bool(self._send("GET", "/healthz").get("status") == "ok")
        except ServerProblem:
            return False

    def version(self) -> JsonObject:
        return self._send("GET", "/v1/version")

    def submit(self, spec: str, *, idempotency_key: str = "", notices: Sequence[JsonObject] = ()) -> JsonObject:
        """Propose a job; `spec` is TOML text. The same key and text give the same job.

        `notices` say what was guessed to write the text; they are stored with the job.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._send("POST", "/v1/jobs", json={"spec": spec, "notices": list(notices)}, headers=headers)

    def estimate(self, spec: str, *, rows: int | None = None, together: bool = False) -> JsonObject:
        """What a job of this TOML text would take; `rows` are those of tables that this party cannot see, `together`
        says that all parties run on one machine."""
        asked = {"spec": spec, "rows": rows, "together": together}
        return self._send("POST", "/v1/estimates", json=asked, timeout=EXAMINATION_SECONDS)

    def jobs(self) -> Iterator[JsonObject]:
        """One line for each job, newest first; pages are asked for as they are read."""
        after: str | None = ""
        while after is not None:
            page = self._send("GET", "/v1/jobs", params={"after": after} if after else {})
            yield from page["jobs"]
            after = page["next"]

    def job(self, job_id: str) -> JsonObject:
        return self._send("GET", f"/v1/jobs/{job_id}")

    def scores(self, job_id: str) -> JsonObject:
        """What a prediction tells of each row: `rows` of ids and scores by the names of their columns."""
        return self._send("GET", f"/v1/jobs/{job_id}/scores", params={"form": "json"}, timeout=DOWNLOAD_SECONDS)

    def write_scores(self, job_id: str, write: Callable[[bytes], object]) -> None:
        """The same as CSV."""
        self._download(f"/v1/jobs/{job_id}/scores", write)

    def models(self) -> JsonObject:
        """The models of which this party holds its half."""
        return self._send("GET", "/v1/models")

    def model(self, training: str) -> JsonObject:
        return self._send("GET", f"/v1/models/{training}")

    def export_model(self, training: str, folder: Path) -> None:
        """Write this party's half, signed, into a folder that does not exist yet. Raises OSError as well."""
        self._extract(f"/v1/models/{training}/archive", folder)

    def predict(self, training: str, asked: JsonObject) -> JsonObject:
        """Scores from an open session: `asked` has `ids`, or `rows` of ids with own values (docs/prediction.md)."""
        return self._send("POST", f"/v1/models/{training}/predictions", json=asked)

    def import_model(self, folder: str) -> JsonObject:
        """Hold again this party's exported half of a model; the folder lies on the server's machine."""
        return self._send("POST", "/v1/models", json={"folder": folder}, timeout=DOWNLOAD_SECONDS)

    def own_columns_scores(self, training: str, dataset: str, decimals: int) -> bytes:
        """CSV of what the label party's own columns alone say of a data set, without a peer."""
        asked = {"dataset": dataset, "decimals": decimals}
        with self._reached():
            path = f"/v1/models/{training}/own-columns-scores"
            response = self._http.post(path, json=asked, params={"form": "csv"}, timeout=DOWNLOAD_SECONDS)
        if not response.is_success:
            _answer(response, self.url)
        return response.content

    def report(self, job_id: str) -> JsonObject:
        """The job and what was measured after each epoch or round."""
        return self._send("GET", f"/v1/jobs/{job_id}/report")

    def order(self, job_id: str, verb: Literal["pause", "resume", "end", "cancel"]) -> JsonObject:
        """What an operator says of a job in one word; a session alone can `end`."""
        return self._send("POST", f"/v1/jobs/{job_id}/{verb}")

    def approve(self, job_id: str, reason: str = "") -> JsonObject:
        return self._send("POST", f"/v1/jobs/{job_id}/approve", json={"reason": reason})

    def reject(self, job_id: str, reason: str = "") -> JsonObject:
        return self._send("POST", f"/v1/jobs/{job_id}/reject", json={"reason": reason})

    def summary(self, job_id: str) -> JsonObject:
        """A job in plain sentences, as whoever approves it reads it."""
        return self._send("GET", f"/v1/jobs/{job_id}/summary")

    def grants(self) -> JsonObject:
        return self._send("GET", "/v1/grants")

    def grant(self, asked: JsonObject) -> JsonObject:
        """The grants that cover a job: `spec` or `job`, and what is to be wider."""
        return self._send("POST", "/v1/grants", json=asked)

    def revoke(self, grant_id: str) -> JsonObject:
        return self._send("DELETE", f"/v1/grants/{grant_id}")

    def datasets(self) -> JsonObject:
        return self._send("GET", "/v1/datasets")

    def add_dataset(self, asked: JsonObject) -> JsonObject:
        """`asked` has its `name`, its `source`, its columns of `id`, and what is stated of the file."""
        return self._send("POST", "/v1/datasets", json=asked, timeout=EXAMINATION_SECONDS)

    def profile(self, dataset: str) -> JsonObject:
        """The columns of a data set, with types, gaps and ranges."""
        return self._send("GET", f"/v1/datasets/{dataset}/profile")

    def mock(self, dataset: str, rows: int, seed: int, write: Callable[[bytes], object]) -> None:
        """A made-up table of the same columns, as CSV."""
        self._download(f"/v1/datasets/{dataset}/mock?rows={rows}&seed={seed}", write)

    def remove_dataset(self, dataset: str) -> JsonObject:
        return self._send("DELETE", f"/v1/datasets/{dataset}")

    def ledger(self) -> JsonObject:
        """What each peer has read of each column, over all jobs."""
        return self._send("GET", "/v1/ledger")

    def peers(self) -> JsonObject:
        """This party's own fingerprint, and every peer it knows."""
        return self._send("GET", "/v1/peers")

    def invite(self, peer: str, hours: float) -> JsonObject:
        """An invitation with its line, which is shown this once."""
        return self._send("POST", "/v1/invitations", json={"peer": peer, "hours": hours})

    def accept(self, line: str, address: str = "") -> JsonObject:
        """Meet the party that invites; the answer has the six words."""
        return self._send("POST", "/v1/invitations/accept", json={"line": line, "address": address})

    def confirm(self, peer: str, words: str) -> JsonObject:
        """Trust a peer whose six words the other operator has read out."""
        return self._send("POST", f"/v1/peers/{peer}/confirm", json={"words": words})

    def move_peer(self, peer: str, address: str) -> JsonObject:
        return self._send("POST", f"/v1/peers/{peer}/address", json={"address": address})

    def check_peer(self, peer: str) -> JsonObject:
        return self._send("POST", f"/v1/peers/{peer}/check")

    def remove_peer(self, peer: str) -> JsonObject:
        return self._send("DELETE", f"/v1/peers/{peer}")

    def key(self) -> JsonObject:
        """This party's identity key, and which peers know it."""
        return self._send("GET", "/v1/key")

    def rotate_key(self) -> JsonObject:
        """The same of the new key that takes its place."""
        return self._send("POST", "/v1/key/rotate")

    def own_half(self) -> JsonObject:
        """What the server finds of itself."""
        return self._send("GET", "/v1/doctor", timeout=OWN_HALF_SECONDS)

    def look_at_peer(self, peer: str) -> JsonObject:
        """What the server finds of a peer and on the way to it."""
        return self._send("POST", f"/v1/doctor/{peer}", timeout=PEER_SECONDS)

    def look_at_job(self, peer: str, spec: str) -> JsonObject:
        """What the server and a peer find of a job that nobody has proposed yet; `spec` is TOML text."""
        return self._send("POST", f"/v1/doctor/{peer}/job", json={"spec": spec}, timeout=JOB_SECONDS)

    def events(self, job_id: str, after: int = 0, wait_seconds: float = 0) -> JsonObject:
        """Events numbered above `after`, the last number and the job's state; waits up to `wait_seconds` for one."""
        return self._send(
            "GET",
            f"/v1/jobs/{job_id}/events",
            params={"after": after, "wait_seconds": wait_seconds},
            timeout=wait_seconds + ANSWER_SECONDS,
        )

    def follow(self, job_id: str, after: int = 0, wait_seconds: float = LONG_POLL_SECONDS) -> Iterator[JsonObject]:
        """Answers of `events` one after the other until the job has ended; some carry no event."""
        while True:
            answer = self.events(job_id, after, wait_seconds)
            after = answer["last"]
            yield answer
            if answer["state"] in FINAL_STATES and not answer["events"]:
                return

    def audit_head(self) -> JsonObject:
        """How many entries the audit log has, its signed head, and up to where peers have cosigned it."""
        return self._send("GET", "/v1/audit/head")

    def audit_entries(self, after: int = 0, limit: int = 100) -> JsonObject:
        """The entries from number `after` on, and the number that follows."""
        return self._send("GET", "/v1/audit/entries", params={"after": after, "limit": limit})

    def audit_proof(self, index: int) -> str:
        """That an entry stands in the log (c2sp.org/tlog-proof)."""
        pieces: list[bytes] = []
        self._download(f"/v1/audit/proof/{index}", pieces.append)
        return b"".join(pieces).decode()

    def export_audit(self, folder: Path) -> None:
        """Write a bundle of the audit log into a folder that does not exist yet. Raises OSError as well."""
        self._extract("/v1/audit/bundle", folder)

    def _extract(self, path: str, folder: Path) -> None:
        import tempfile  # noqa: PLC0415 - 10 ms that most commands can do without
        import zipfile  # noqa: PLC0415

        with tempfile.TemporaryFile() as file:
            self._download(path, file.write)
            folder.mkdir(parents=True, mode=0o700)
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)

    def _download(self, path: str, write: Callable[[bytes], object]) -> None:
        with self._reached(), self._http.stream("GET", path, timeout=DOWNLOAD_SECONDS) as response:
            if not response.is_success:
                response.read()
                _answer(response, self.url)
            for piece in response.iter_bytes():
                write(piece)

    def _send(self, method: str, path: str, **request: Any) -> JsonObject:
        with self._reached():
            response = self._http.request(method, path, **request)
        return _answer(response, self.url)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """What goes wrong on the way, by its name."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise AnswerOverdue(
                "server_timeout", f"the server at {self.url} did not answer in time", fix="Look at the server's log."
            ) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            if (refused := _refused_certificate(error)) is not None:
                raise ServerUnreachable(
                    "server_certificate_refused",
                    f"the certificate of the server at {self.url} does not count here: {refused.verify_message}",
                    fix=f"Name with --ca the party's {CA_FILE}, or the certificate of your own authority; what that "
                    "has issued must name the host that is called.",
                    safe="The token was not sent.",
                ) from error
            raise ServerUnreachable(
                "server_unreachable",
                f"no party server answers at {self.url}",
                fix="Start it with `vfl party serve DIR`, or name another with --server or --party. If it runs on "
                "another machine, operator.allow in its party.toml must have the address of this one.",
            ) from error


def read_token(path: Path) -> str:
    """The operator token in a file. Raises TokenRefused when it cannot be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise TokenRefused(
            "operator_token_unreadable",
            f"the operator token at {path} cannot be read",
            fix="Name its file with --token-file; `vfl party init` writes it.",
        ) from error


def trusting(certificate: Path) -> ssl.SSLContext:
    """TLS to a server whose certificate the one in this file has issued: a party's operator.ca.pem, or an authority's.

    Raises ServerUnreachable where the file cannot be read.
    """
    from parties.trust.certificates import calling_context  # noqa: PLC0415 - only where it is asked for

    try:
        return calling_context(certificate.read_bytes())
    except (OSError, ValueError) as error:  # what OpenSSL cannot read is an OSError
        raise ServerUnreachable(
            "certificate_unreadable",
            f"there is no certificate in PEM that can be read at {certificate}",
            fix=f"Take {CA_FILE} from the party's folder, or the certificate of your own authority.",
        ) from error


def _check_secrecy(url: str) -> None:
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2].lower()
    if scheme == "http" and not re.fullmatch(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", host):
        raise ServerUnreachable(
            "server_not_secure",
            f"at {url} the operator token would travel in clear",
            fix="Other machines call the operator port by https://, with --ca.",
            safe="The token was not sent.",
        )


def _refused_certificate(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What OpenSSL has said, below what httpx makes of it."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _answer(response: httpx.Response, url: str) -> JsonObject:
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    if not isinstance(body, dict) or "code" not in body:
        raise ServerUnreachable(
            "unexpected_answer",
            f"{url} answered {response.status_code} and not as a party server does",
            fix="Check that --server names the operator port of a party server.",
        )
    code, message = body["code"], body.get("detail") or body.get("title") or body["code"]
    fix, safe = body.get("hint") or "", body.get("safe") or ""
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise TokenRefused(code, message, fix=fix, safe=safe)
    raise RequestRefused(response.status_code, code, message, fix=fix, safe=safe)

"""What a request to a party's server comes to when it does not succeed: one of four exceptions, so that a caller can
tell a server that is away from a request it refused."""


class ServerProblem(Exception):
    """A request that did not succeed: a stable `code`, what is `safe` now and how to `fix` it."""

    def __init__(self, code: str, message: str, *, fix: str = "", safe: str = "") -> None:
        super().__init__(message)
        self.code, self.fix, self.safe = code, fix, safe


class ServerUnreachable(ServerProblem):
    """No party's server answered at the address."""


class TokenRefused(ServerProblem):
    """The server does not accept the operator token."""


class AnswerOverdue(ServerProblem):
    """The server did not answer in time."""


class RequestRefused(ServerProblem):
    """The server answered with a problem; `status` is its HTTP status."""

    def __init__(self, status: int, code: str, message: str, *, fix: str = "", safe: str = "") -> None:
        super().__init__(code, message, fix=fix, safe=safe)
        self.status = status

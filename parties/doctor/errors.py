"""What can go wrong where parties check each other (errors.md)."""

from vfl.errors import JobError


class TooManyChecks(JobError):
    """A peer asks for checks faster than this party answers them."""

    code = "too_many_checks"
    safe = "Nothing was changed."
    fix = "Wait a minute, then run `vfl doctor` again."

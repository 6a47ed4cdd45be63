"""What can go wrong around the demonstration's job; the job's own errors come from its servers."""

from vfl.errors import JobError


class DemoError(JobError):
    """The demonstration cannot go on."""

    code = "demo_failed"
    safe = ""


class DemoExists(DemoError):
    """A finished or running demonstration stands in the folder, or something that is not ours to move."""

    code = "demo_exists"


class TablesUnusable(DemoError):
    """The user's own files cannot be divided into a job. The message names file and column."""

    code = "invalid_data"
    safe = "Nothing was written."


class ServerEnded(DemoError):
    """A server of the demonstration ended or did not get ready."""

    code = "server_ended"


class JobOverdue(DemoError):
    """The job took longer than its own deadline."""

    code = "job_overdue"

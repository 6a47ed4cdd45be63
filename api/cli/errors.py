"""Which exit code a named error of the packages below ends a command with."""

from api.cli.output import CommandFailed, Exit
from vfl.errors import JobError


def named(error: JobError) -> CommandFailed:
    """An error with a code of its own, raised in this process."""
    from api.demo.errors import DemoExists  # noqa: PLC0415
    from parties.errors import PortInUse, SettingsError, StorageFailed, printable  # noqa: PLC0415 - only when something went wrong
    from vfl.errors import ImpossibleJob, InvalidData, RowsDiffer, SpecError  # noqa: PLC0415

    exit_code = Exit.JOB
    if isinstance(error, PortInUse):
        exit_code = Exit.CONNECTION
    elif isinstance(
        error, SettingsError | SpecError | ImpossibleJob | InvalidData | RowsDiffer | DemoExists | StorageFailed
    ):
        exit_code = Exit.ARGUMENTS
    # A specification or a table chooses some of the words: none of their letters may steer a terminal.
    said, fix = ("\n".join(map(printable, text.split("\n"))) for text in (str(error), error.fix))
    return CommandFailed(exit_code, error.code, said, fix=fix, safe=error.safe)

"""The command line `vfl`. A file per noun; this one joins them and turns every ending into an exit code."""

import errno
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer

from api.cli import (
    align,
    audit,
    data,
    db,
    demo,
    doctor,
    estimate,
    grant,
    job,
    key,
    ledger,
    model,
    party,
    peer,
    predict,
    witness,
)
from api.cli import run as run_command
from api.cli.errors import named
from api.cli.output import CommandFailed, Exit, Format, FormatOption, fail, flush, note, result, wanted_format
from api.cli.text import write_plainly
from vfl.errors import JobError

HELP_OPTIONS = ["-h", "--help"]
REFUSED_PATHS = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.EROFS, errno.ENOSPC}
"""What the system says of a path that is as its user wrote it: no fault of vfl."""

app = typer.Typer(
    name="vfl",
    help="Two organisations train one model on ciphertexts; no row leaves its owner in clear.",
    epilog="Exit codes: 0 ok, 1 job failed or refused, 2 connection or authentication, 3 timeout, "
    "4 arguments or specification, 5 internal error, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_OPTIONS},
)
app.command("demo")(demo.demo)
app.command("run")(run_command.run)
app.add_typer(party.app, name="party")
app.add_typer(peer.app, name="peer")
app.add_typer(key.app, name="key")
app.add_typer(job.app, name="job")
app.command("align")(align.align)
app.command("estimate")(estimate.estimate)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(model.app, name="model")
app.command("predict")(predict.predict)
app.add_typer(grant.app, name="grant")
app.command("ledger")(ledger.ledger)
app.add_typer(audit.app, name="audit")
app.add_typer(db.app, name="db")
app.add_typer(witness.app, name="witness")


@app.command("version")
def version(output: FormatOption = Format.TEXT) -> None:
    """Print the installed version."""
    from importlib.metadata import version as installed  # noqa: PLC0415 - 20 ms that `vfl --help` can do without

    data = {"version": installed("vertical-federated-learning"), "python": sys.version.split()[0]}
    result(output, data, lambda: f"vfl {data['version']} (Python {data['python']})")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[  # noqa: FBT002 - a flag of the command line
        bool,
        typer.Option("--version", help="Print the installed version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options before the command's name."""


def main(arguments: Annotated[list[str] | None, "without the program's name"] = None) -> None:
    """Run one command and exit with its code; an unexpected exception is one sentence and exit 5."""
    words = sys.argv[1:] if arguments is None else arguments
    write_plainly(sys.stdout)
    output = wanted_format(words)
    code: object = Exit.OK
    try:
        code = _command_line()(words, prog_name="vfl", standalone_mode=False)
    except CommandFailed as failure:
        fail(failure, output)
    except JobError as error:
        fail(named(error), output)
    except typer.TyperException as error:
        message = error.format_message()
        if message:
            fail(CommandFailed(Exit.ARGUMENTS, "invalid_arguments", message, fix=_usage(error)), output)
    except (typer.Abort, KeyboardInterrupt):
        note("interrupted")
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        pass
    except OSError as error:
        if error.errno in REFUSED_PATHS and error.filename is not None:
            fail(_path_refused(error), output)
        _fail_unknown(error, output)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        _fail_unknown(error, output)
    flush()
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _path_refused(error: OSError) -> CommandFailed:
    text = f"the system refused the file or folder {error.filename}: {error.strerror}"
    hint = "Check the path, who may use it, and the space on its disk; or name another one."
    return CommandFailed(Exit.ARGUMENTS, "path_refused", text, fix=hint)


def _fail_unknown(error: Exception, output: str) -> NoReturn:
    if os.environ.get("VFL_DEBUG") == "1":
        traceback.print_exc()
    text = f"vfl met a state it does not know ({type(error).__name__}: {error})"
    hint = "Run it again with VFL_DEBUG=1 for the traceback, and report it as SECURITY.md or CONTRIBUTING.md say."
    fail(CommandFailed(Exit.INTERNAL, "internal_error", text, fix=hint), output)


def _command_line() -> Any:
    """All commands. In their help a flag has no value beside it, and a paragraph fills the width of the terminal."""
    from typer.main import get_command  # noqa: PLC0415 - typer's own entry is the same

    root = get_command(app)
    for command in _all_commands(root):
        paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
        command.help = "\n\n".join(" ".join(text.split()) for text in paragraphs)
        for parameter in command.get_params(typer.Context(command, help_option_names=HELP_OPTIONS)):
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
    return root


def _all_commands(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from _all_commands(inner)


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"See `{context.command_path} --help`." if context else ""


if __name__ == "__main__":
    main()

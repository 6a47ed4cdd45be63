"""A question to the person at the terminal; without a terminal a flag has to answer it."""

import sys

import typer

from api.cli.output import CommandFailed, Exit


def need_terminal(fix: str, safe: str = "") -> None:
    """Raises CommandFailed where nobody can be asked; `fix` says what answers instead."""
    if not sys.stdin.isatty():
        raise CommandFailed(Exit.ARGUMENTS, "invalid_arguments", "there is no terminal to ask at", safe=safe, fix=fix)


def said_yes(question: str) -> bool:
    """Only the whole word counts. The question goes to standard error, like everything that is no result."""
    answer: str = typer.prompt(question, default="no", err=True)
    return answer.strip().lower() == "yes"

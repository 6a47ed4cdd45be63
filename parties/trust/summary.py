"""A job in plain sentences, for the operator who decides about it, and how it differs from the last one."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from parties.trust.budget import Account, Charge, DataUse, charges
from parties.trust.identity import IdentityKey
from parties.trust.request import Request
from vfl.kinds import decode_spec, kind_of
from vfl.message import MESSAGES, Grain
from vfl.planning.plan import RevealLine

WIDTH = 80
FIRST_JOB = "This is the first job of its kind with these parties that is approved here."
NOTHING_NEW = "Nothing differs from the last job that was approved with these parties."


class Section(msgspec.Struct, frozen=True):
    heading: str
    sentences: tuple[str, ...]


class Summary(msgspec.Struct, frozen=True):
    """As JSON these fields; as text for a terminal `text`."""

    job: str
    sections: tuple[Section, ...]

    def text(self) -> str:
        lines = []
        for section in self.sections:
            lines.append(section.heading)
            for sentence in section.sentences:
                lines += textwrap.wrap(
                    sentence,
                    WIDTH,
                    initial_indent="  ",
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            lines.append("")
        return "\n".join(lines)


class Terms(msgspec.Struct, frozen=True):
    """What was approved, as far as a later job is compared with it."""

    spec: bytes
    """The canonical bytes of the specification."""
    data: tuple[DataUse, ...]
    rows: int
    steps: int
    opened_values: int
    rho: float

    @classmethod
    def of(cls, request: Request) -> "Terms":
        plan = request.plan
        return cls(request.spec.encoded(), request.data, plan.rows, plan.steps, request.opened_values(), request.rho)


def summarise(
    request: Request,
    last: Terms | None,
    used: Mapping[Account, Charge],
    maximum_rho: float,
    warnings: Iterable[str] = (),
) -> Summary:
    """`last` is the last approved job with the same parties, `used` how the accounts stand without this job."""
    spec, me = request.spec, request.me
    others = [party for party in spec.parties if party not in {spec.coordinator, me}]
    proposed = [
        f"{spec.coordinator} proposes the job {spec.job.name!r}.",
        f"It is a job of the kind {spec.job.protocol!r} and of the scheme {spec.disclosure!r}.",
        f"{', '.join(others)} would take part as well." if others else "Nobody else would take part.",
        f"Its purpose, in the words of {spec.coordinator}: {spec.job.purpose!r}."
        if spec.job.purpose
        else f"{spec.coordinator} states no purpose.",
    ]
    sections = (
        Section("Who proposes", tuple(proposed)),
        Section(f"What is used of the data of {me}", tuple(_data(request))),
        Section(f"What {me} reveals", tuple(_reveals(request))),
        Section(f"What {me} may read", tuple(_read(request))),
        Section("Over all jobs", tuple(_lifetime(request, used, maximum_rho))),
        Section("How long", tuple(_length(request))),
        Section("What each party keeps", tuple(kind_of(spec).keeps(spec, party) for party in spec.parties)),
        Section("Warnings", tuple(warnings) or ("There are none.",)),
        Section("Since the last job", differences(last, request)),
    )
    return Summary(spec.job.name, sections)


def differences(last: Terms | None, request: Request) -> tuple[str, ...]:
    """What is new since the last approved job with the same parties, a sentence for each difference."""
    if last is None:
        return (FIRST_JOB,)
    now = Terms.of(request)
    sentences = [*_of_data(last.data, now.data)]
    before, after = (dict(_keys(msgspec.to_builtins(spec))) for spec in (decode_spec(last.spec), request.spec))
    own_columns = f"data.{request.me}.columns"  # told above, as they were read
    for key in sorted((before.keys() | after.keys()) - {own_columns}):
        sentences += _change(key, before.get(key), after.get(key))
    for name, old, new in (
        ("The number of rows", last.rows, now.rows),
        ("The number of steps", last.steps, now.steps),
        (f"The number of {request.counted} that {request.me} may reveal", last.opened_values, now.opened_values),
        ("rho", last.rho, now.rho),
    ):
        if old != new:
            sentences.append(f"{name} was {old:.6g}, and is now {new:.6g}.")
    return tuple(sentences) or (NOTHING_NEW,)


def _keys_of_strangers(request: Request) -> Iterator[str]:
    for party in request.strangers:
        fingerprint = IdentityKey(request.spec.identity_keys[party]).fingerprint
        yield (
            f"{party} is known here by the word of {request.spec.coordinator} alone, with the key {fingerprint}. "
            f"Compare it with the operator of {party} by telephone: who has another key stands in its place."
        )


def _data(request: Request) -> Iterator[str]:
    compares_ids = any(use.ids is not None for use in request.spec.tables_of(request.me).values())
    for use in request.data:
        yield f"Data set {use.dataset!r}, whose file has the SHA-256 digest {use.digest}."
        if use.columns and not compares_ids:
            yield f"{len(use.columns)} columns enter as inputs: {_listed(use.columns)}."
        elif use.columns:
            yield f"Its rows are compared by {_listed(use.columns)}; no other column of it is read."
        yield f"The column {use.label!r} is used as the label." if use.label else "No label of it is used."
        if use.handed_out:
            yield "The rows themselves are handed to every peer of the job."


def _reveals(request: Request) -> Iterator[str]:
    for line in request.budget:
        reveals = MESSAGES[line.message].reveals
        again = f", and {line.values} at most if steps are taken again" if line.values > line.planned else ""
        protection = f" Protection: {reveals.protection}." if reveals.protection else ""
        yield (
            f"{line.peer} can read {line.planned} {request.counted}{again} ({line.message}, {reveals.grain.value}): "
            f"{reveals.learns}.{protection}"
        )
    if not request.budget:
        yield f"No peer can read anything that is computed from the data of {request.me}."


def _read(request: Request) -> Iterator[str]:
    lines = [line for line in request.plan.reveals if line.receiver == request.me and _tells(line)]
    for line in lines:
        yield (
            f"{request.me} can read {line.values} {request.counted} of {line.sender} ({line.message}, {line.grain}): "
            f"{line.learns}."
        )
    if not lines:
        yield f"{request.me} can read nothing of the data of its peers."


def _lifetime(request: Request, used: Mapping[Account, Charge], maximum_rho: float) -> Iterator[str]:
    asked = charges(request.budget)
    for peer in dict.fromkeys(account.peer for account in asked):
        after = {account: used.get(account, Charge()).plus(charge) for account, charge in asked.items()}
        most = max((account for account in asked if account.peer == peer), key=lambda account: after[account].rho)
        total = after[most]
        yield (
            f"With this job {peer} will have used rho {total.rho:.3g} of {maximum_rho:g} on the column "
            f"{most.column!r}, which stands highest, and {total.values} {request.counted}."
        )
    if not asked:
        yield "The job adds nothing to what is counted over all jobs."


def _length(request: Request) -> Iterator[str]:
    plan, kind = request.plan, kind_of(request.spec)
    if request.spec.learns:
        yield f"The job takes {request.spec.checkpoints} {kind.checkpoint}s and {plan.steps} steps."
        if plan.rows:
            of, least = f"{plan.training_rows} of {plan.rows} rows", plan.smallest_batch
            yield f"It trains on {of}, in batches of at least {least} rows."
    elif plan.tells_of_each_row:
        yield f"It tells something of each of {plan.rows:,} rows."
    yield f"It ends after {request.spec.job.deadline_seconds / 3600:g} hours, whatever it has reached."


def _of_data(before: Iterable[DataUse], after: Iterable[DataUse]) -> Iterator[str]:
    old, new = {use.dataset: use for use in before}, {use.dataset: use for use in after}
    for name in old.keys() - new.keys():
        yield f"The data set {name!r} is no longer used."
    for name, use in new.items():
        if name not in old:
            yield f"The data set {name!r} is new."
            continue
        if use.digest != old[name].digest:
            yield f"The file of the data set {name!r} has changed."
        yield from _change(f"The columns of {name!r}", old[name].columns, use.columns)


def _change(name: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, tuple) and isinstance(new, tuple):
        if more := [word for word in new if word not in old]:
            yield f"{name}: {_listed(more)} is new."
        if fewer := [word for word in old if word not in new]:
            yield f"{name}: {_listed(fewer)} is gone."
    elif old != new:
        yield f"{name} was {_value(old)}, and is now {_value(new)}."


def _keys(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a specification as it is written in TOML, with its value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _keys(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return _listed(value)
    return "not set" if value in {None, ""} else repr(value)


def _listed(words: Iterable[Any]) -> str:
    return ", ".join(map(repr, words))


def _tells(line: RevealLine) -> bool:
    return line.grain != Grain.NOTHING.value

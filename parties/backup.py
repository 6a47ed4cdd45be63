"""A party in one file: its database, keys and settings, and its halves of models (docs/database.md).

A tar archive, whose last member says what the others must be. Left out is what opens the keys, what commands the
party, and what is in clear elsewhere: the passphrase, the operator's token, private keys of certificates, tables.
"""

import contextlib
import hashlib
import io
import secrets
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from parties.catalogue import ANSWERS
from parties.database_errors import BackupUnreadable, RestoreRefused
from parties.errors import SettingsError, StorageFailed
from parties.folder_lock import hold
from parties.settings import SETTINGS_FILE, PartySettings, key_folder, load, new_token
from parties.storage import owner
from parties.storage.checkpoints import CHECKPOINTS
from parties.storage.engine import DATABASE_FILE, Database
from parties.storage.models import MODELS
from parties.storage.passed import AUDIT_LOG
from parties.storage.table_copy import copy_all
from parties.trust.key_file import FORMER_FILE, KEY_FILE
from vfl.spec.sections import PartyId

FORMAT, CONTENTS_FILE = "vfl-backup-1", "backup.json"
CHUNK_BYTES = 1 << 20


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup holds, as its last member says."""

    format: str
    party: PartyId
    made_at: str
    leaves: int
    """Of the audit log."""
    files: dict[str, str]
    """SHA-256 by name, hex."""


class Restored(msgspec.Struct, frozen=True):
    contents: Contents
    database: str
    missing: tuple[str, ...]
    """Files that party.toml names and the backup does not hold, such as the passphrase."""


def make_backup(folder: Path, path: Path) -> Contents:
    """The server may run meanwhile. Raises SettingsError, StorageFailed."""
    settings = load(folder)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            unfinished.chmod(0o600)
            contents = _write(folder, settings, file)
        unfinished.replace(path)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error.strerror}", fix="Name another place.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return contents


def restore(path: Path, folder: Path) -> Restored:
    """Into a folder that holds no party yet. Raises BackupUnreadable, RestoreRefused, SettingsError, StorageFailed."""
    for name in (SETTINGS_FILE, KEY_FILE, DATABASE_FILE):
        if (folder / name).exists():
            raise RestoreRefused(f"{folder / name} is there already, and a party is not overwritten")
    try:
        _make_private(folder)
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=folder) as unpacked, hold(folder):
            contents = _unpack(path, Path(unpacked))
            (Path(unpacked) / SETTINGS_FILE).rename(folder / SETTINGS_FILE)
            try:
                name = _restore_database(Path(unpacked), folder, contents)
            except BaseException:
                (folder / SETTINGS_FILE).unlink()
                raise
            for file in contents.files.keys() - {DATABASE_FILE, SETTINGS_FILE}:
                _make_private((folder / file).parent)
                (Path(unpacked) / file).rename(folder / file)
            new_token(folder)
    except OSError as error:
        raise StorageFailed(f"{folder} cannot be written: {error.strerror}") from error
    return Restored(contents, name, tuple(_missing(folder)))


def _write(folder: Path, settings: PartySettings, file: IO[bytes]) -> Contents:
    files: dict[str, str] = {}
    with tarfile.open(fileobj=file, mode="w") as archive:
        # The database comes first: of each model that it knows the files are complete, and stay.
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=folder) as copied:
            leaves = _copy_database(folder, settings, Path(copied))
            _add(archive, files, Path(copied) / DATABASE_FILE, DATABASE_FILE)
        for path in _own_files(folder, settings):
            with contextlib.suppress(FileNotFoundError):  # the server has deleted it meanwhile
                _add(archive, files, path, path.relative_to(folder).as_posix())
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        contents = Contents(FORMAT, settings.name, made_at, leaves, files)
        data = msgspec.json.encode(contents)
        archive.addfile(_member(CONTENTS_FILE, len(data)), io.BytesIO(data))
    return contents


def _copy_database(folder: Path, settings: PartySettings, target_folder: Path) -> int:
    """Answers how many leaves its audit log has."""
    with (
        closing(Database(folder, url=settings.storage.url)) as source,
        closing(Database(target_folder)) as target,
        source.snapshot() as reading,
        target.writing() as writing,
    ):
        copy_all(reading, writing)
        return AUDIT_LOG.size(writing)


def _own_files(folder: Path, settings: PartySettings) -> Iterator[Path]:
    """Written whole each, so that they can be read at any moment."""
    bottom = [settings.bottom.module.partition(":")[0]] if settings.bottom else []
    certificates = [settings.operator.certificate, *(each.ca for each in settings.audit.witness)]
    certificates += [settings.server.tls.certificate] if settings.server.tls else []
    for name in (SETTINGS_FILE, KEY_FILE, FORMER_FILE, *bottom, *filter(None, certificates)):
        if (path := folder / name).resolve().is_relative_to(folder.resolve()) and path.is_file():
            yield path
    for room in (MODELS, CHECKPOINTS, ANSWERS):
        yield from sorted(
            path for path in (folder / room).rglob("*") if path.is_file() and not path.name.startswith(".")
        )


def _missing(folder: Path) -> Iterator[str]:
    settings = load(folder)
    try:
        key_folder(folder, settings).identity()
    except SettingsError:
        yield str(folder / settings.identity.passphrase_file)
    named = [settings.operator.certificate, settings.operator.key, *(each.ca for each in settings.audit.witness)]
    named += [settings.server.tls.certificate, settings.server.tls.key] if settings.server.tls else []
    yield from (str(folder / name) for name in filter(None, named) if not (folder / name).exists())


def _restore_database(unpacked: Path, folder: Path, contents: Contents) -> str:
    """Answers its name."""
    with (
        closing(Database(unpacked, upgrade=True)) as source,
        closing(Database(folder, url=load(folder).storage.url)) as target,
        target.hold(),
    ):
        with target.reading() as connection:
            leaves, name = AUDIT_LOG.size(connection), owner.owner_of(connection)
        if leaves or name:
            lowered = f"; with {contents.leaves} entries its audit log would be put back" if leaves else ""
            raise RestoreRefused(f"{target.name} belongs to {name or 'a party'} and has {leaves} entries{lowered}")
        with source.snapshot() as reading, target.writing() as writing:
            copy_all(reading, writing)
            owner.note_restored(writing)
        return target.name


def _unpack(path: Path, folder: Path) -> Contents:
    """Every file is what it was when it was written. Raises BackupUnreadable."""
    digests: dict[str, str] = {}
    contents = None
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is None or not _is_inside(member.name):
                    raise BackupUnreadable(f"{path} holds {member.name!r:.100}, which no backup has")
                if member.name == CONTENTS_FILE:
                    contents = msgspec.json.decode(content.read(), type=Contents)
                else:
                    digests[member.name] = _extract(content, folder / member.name)
    except (tarfile.TarError, msgspec.DecodeError, EOFError) as error:
        raise BackupUnreadable(f"{path} is no whole backup: {error}") from error
    except FileNotFoundError as error:
        raise BackupUnreadable(f"there is no file {path}") from error
    if contents is None or contents.format != FORMAT or not {DATABASE_FILE, SETTINGS_FILE, KEY_FILE} <= digests.keys():
        raise BackupUnreadable(f"{path} is no whole backup of a party, or one of a later release")
    changed = {name for name, _ in digests.items() ^ contents.files.items()}
    if changed:
        raise BackupUnreadable(f"{path} was changed: {min(changed)} is not what it was when the backup was made")
    return contents


def _extract(content: IO[bytes], place: Path) -> str:
    digest = hashlib.sha256()
    _make_private(place.parent)
    with place.open("xb") as file:
        place.chmod(0o600)
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _make_private(folder: Path) -> None:
    """With those above it that are not there."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700)


def _add(archive: tarfile.TarFile, files: dict[str, str], path: Path, name: str) -> None:
    with path.open("rb") as file:
        files[name] = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        file.seek(0)
        archive.addfile(_member(name, size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def _is_inside(name: str) -> bool:
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts

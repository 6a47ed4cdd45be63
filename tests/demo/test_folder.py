"""Where a demonstration puts what it leaves."""

import fcntl
from pathlib import Path

import pytest

from api.demo.errors import DemoExists
from api.demo.folder import DATA_FILE, Place, finish, private_seed, taken
from parties.errors import StorageFailed
from parties.settings import init_party

LEFT = {
    "label-party/party.toml": f'private_seed = "{private_seed(0, "label-party")}"',
    f"label-party/{DATA_FILE}": "id\n1\n",
    "label-party/party.lock": "",
    "feature-party/operator.token": "token",
    "job.toml": "[job]",
    "processes.json": "[]",
}


def leave(folder: Path) -> None:
    """What a demonstration leaves that was ended half-way."""
    for name, text in LEFT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def take(output: Path | None, name: str = "digits") -> Place:
    with taken(output, name) as place:
        return place


def test_without_a_wish_it_takes_the_first_free_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [take(None).folder for _ in range(2)] == [Path("vfl-demo/digits-1"), Path("vfl-demo/digits-2")]
    assert take(None, "diabetes") == Place(Path("vfl-demo/diabetes-1"), None)


def test_an_existing_folder_is_accepted_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert take(tmp_path) == Place(tmp_path, None)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    assert take(tmp_path / "a" / "b").folder.is_dir()


def test_a_finished_demonstration_is_refused(tmp_path: Path) -> None:
    leave(tmp_path)
    finish(tmp_path, {"status": "ok"})
    with pytest.raises(DemoExists, match="finished"):
        take(tmp_path)
    assert (tmp_path / "label-party" / "party.toml").exists()


def test_what_an_unfinished_one_left_is_set_aside_whole(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for number in (1, 2):
        leave(tmp_path)
        assert take(tmp_path).set_aside == tmp_path / f"unfinished-{number}"
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "unfinished-1", "unfinished-2"}
    for aside in (tmp_path / "unfinished-1", tmp_path / "unfinished-2"):
        assert {name: (aside / name).read_text() for name in LEFT} == LEFT


def test_a_second_demonstration_is_kept_out_while_one_runs(tmp_path: Path) -> None:
    with taken(tmp_path, "digits"):
        leave(tmp_path)
        with pytest.raises(DemoExists, match="runs in"):
            take(tmp_path)
        assert (tmp_path / "label-party").exists()


def test_servers_that_outlived_their_command_are_left_alone(tmp_path: Path) -> None:
    leave(tmp_path)
    with (tmp_path / "label-party" / "party.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DemoExists, match="runs in") as refused:
            take(tmp_path)
    assert "processes.json" in refused.value.fix
    assert (tmp_path / "label-party").exists()


def test_a_party_of_the_user_is_not_moved(tmp_path: Path) -> None:
    init_party(tmp_path / "label-party", "label-party")
    with pytest.raises(DemoExists, match="not a demonstration's"):
        take(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"label-party"}


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoExists, match="is a file"):
        take(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="file/below"):
        take(tmp_path / "file" / "below")

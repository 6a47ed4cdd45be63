"""Where a demonstration puts what it leaves."""

from pathlib import Path

import pytest

from api.demo.errors import DemoExists
from api.demo.folder import choose, finish


def test_without_a_wish_it_takes_the_first_free_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [choose(None, "digits") for _ in range(2)] == [Path("vfl-demo/digits-1"), Path("vfl-demo/digits-2")]
    assert choose(None, "diabetes") == Path("vfl-demo/diabetes-1")


def test_an_existing_folder_is_accepted_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert choose(tmp_path, "digits") == tmp_path
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    assert choose(tmp_path / "a" / "b", "digits").is_dir()


def test_a_finished_demonstration_is_refused(tmp_path: Path) -> None:
    finish(tmp_path, {"status": "ok"})
    with pytest.raises(DemoExists, match="finished"):
        choose(tmp_path, "digits")


def test_the_parties_of_an_unfinished_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "feature-party").mkdir()
    with pytest.raises(DemoExists, match="did not finish"):
        choose(tmp_path, "digits")


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoExists, match="is a file"):
        choose(tmp_path / "file", "digits")

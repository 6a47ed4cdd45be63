"""A model on disk is whole, private and named by its weights alone."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from parties.errors import StorageFailed
from parties.model_errors import ModelChanged, UnknownModel
from parties.storage.manifest import Inputs
from parties.storage.models import EPOCH_BYTES, EPOCHS_KEPT, ModelStore, weights_digest
from vfl.errors import LocalProtocolError

WEIGHTS: dict[str, NDArray[Any]] = {
    "a": np.arange(6, dtype=np.float64).reshape(2, 3),
    "b": np.ones(2, dtype=np.float32),
}


def test_the_digest_covers_names_types_shapes_and_values_and_nothing_else() -> None:
    digest = weights_digest(save(WEIGHTS))
    assert weights_digest(save(dict(reversed(WEIGHTS.items())), metadata={"note": "x"})) == digest
    others = [
        {"c": WEIGHTS["a"], "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"].reshape(3, 2), "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"] + 1e-12, "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"], "b": WEIGHTS["b"].astype(np.float64)},
    ]
    assert digest not in {weights_digest(save(other)) for other in others}


def test_a_model_counts_once_its_manifest_is_there(tmp_path: Path) -> None:
    registry = ModelStore(tmp_path)
    registry.keep_epoch("job", 1, save(WEIGHTS))
    digest = registry.keep_model("job", save(WEIGHTS), {})["model_digest"]
    registry.seal("job", "today")
    names = ("epochs/epoch-0001.safetensors", "manifest.json", "model.safetensors", "result.json")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == [f"models/job/{name}" for name in names]
    result = (tmp_path / "models/job/result.json").read_bytes()
    assert json.loads((tmp_path / "models/job/manifest.json").read_text()) == {
        "model_digest": digest,
        "measures_digest": hashlib.sha256(result).hexdigest(),
        "finished_at": "today",
    }
    assert {(tmp_path / path).stat().st_mode & 0o077 for path in found} == {0}


def test_what_was_measured_and_what_a_label_holds_is_not_in_the_manifest_which_others_read(tmp_path: Path) -> None:
    registry = ModelStore(tmp_path)
    measured = {"metrics": {"auc": 0.9}, "notices": ["the same value stands in every row of 'age' (7)"]}
    result = {"job": "job", "columns": ["age"], "classes": ["healthy", "ill"], **measured}
    assert registry.keep_model("job", save(WEIGHTS), result)["metrics"] == {"auc": 0.9}
    registry.seal("job", "today")
    manifest = json.loads(registry.manifest("job") or b"")
    assert manifest.keys() == {"job", "columns", "model_digest", "measures_digest", "finished_at"}


def test_the_names_of_its_columns_stand_beside_the_weights_and_change_none(tmp_path: Path) -> None:
    registry = ModelStore(tmp_path)
    digest = registry.keep_model("job", save(WEIGHTS), {}, Inputs(("age", "größe"), "ill"))["model_digest"]
    manifests = {"job": registry.seal("job", "today")}
    assert digest == weights_digest(save(WEIGHTS)) == weights_digest(registry.model(digest, manifests))
    with safetensors.safe_open(registry.model_path("job"), "numpy") as kept:
        assert kept.metadata() == {"columns": '["age", "größe"]', "label": "ill"}
        assert all((kept.get_tensor(name) == values).all() for name, values in WEIGHTS.items())


def test_a_failed_job_leaves_its_epochs_and_no_model(tmp_path: Path) -> None:
    registry = ModelStore(tmp_path)
    registry.keep_model("early", save(WEIGHTS), {})
    assert not registry.discard("early")
    registry.keep_epoch("late", 1, save(WEIGHTS))
    registry.keep_model("late", save(WEIGHTS), {})
    assert registry.discard("late")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["epoch-0001.safetensors"]


def test_what_a_killed_server_left_half_written_goes_with_the_job(tmp_path: Path) -> None:
    registry = ModelStore(tmp_path)
    registry.keep_epoch("job", 1, save(WEIGHTS))
    registry.keep_model("job", save(WEIGHTS), {})
    registry.seal("job", "today")
    for path in ("models/job/.manifest.json.12345678", "models/job/epochs/.epoch-0002.safetensors.12345678"):
        (tmp_path / path).write_bytes(b"half")
    assert registry.discard("job")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["epoch-0001.safetensors"]


def test_bytes_that_are_no_weights_are_the_roles_fault(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="not safetensors"):
        ModelStore(tmp_path).keep_model("job", b"something else", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(StorageFailed, match="cannot be written"):
        ModelStore(tmp_path).keep_model("job", save(WEIGHTS), {})


def test_of_a_large_model_the_last_epochs_are_kept_and_of_a_small_one_all(tmp_path: Path) -> None:
    registry, large = ModelStore(tmp_path), save({"w": np.zeros(EPOCH_BYTES // 24)})  # 11 MB
    for epoch in range(1, 6):
        registry.keep_epoch("large", epoch, large)
        registry.keep_epoch("small", epoch, save(WEIGHTS))

    def kept(job: str) -> list[str]:
        return sorted(path.name for path in (tmp_path / "models" / job / "epochs").iterdir())

    assert EPOCHS_KEPT == 3
    assert kept("large") == [f"epoch-000{epoch}.safetensors" for epoch in (3, 4, 5)]
    assert len(kept("small")) == 5


def test_of_many_rounds_the_newest_states_are_kept_as_they_are(tmp_path: Path) -> None:
    registry = ModelStore(tmp_path)
    for number in range(1, 12):
        registry.keep_round("job", number, b"packed %d" % number)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "models" / "job" / "rounds").iterdir()}
    assert kept == {f"round-{number:06}": b"packed %d" % number for number in (9, 10, 11)}
    assert registry.discard("job"), "they stay as checkpoints of a job that failed"


def test_a_model_is_found_by_its_digest_once_its_job_is_done(tmp_path: Path) -> None:
    registry, state = ModelStore(tmp_path), save(WEIGHTS)
    digest = registry.keep_model("job", state, {})["model_digest"]
    with pytest.raises(UnknownModel, match=digest):
        registry.model(digest, {})
    manifests = {"a job whose folder was removed": "00", "job": registry.seal("job", "today")}
    assert registry.model(digest, manifests) == state


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_changed_bit_of_a_model_or_its_manifest_is_found_and_the_file_named(tmp_path: Path, name: str) -> None:
    registry, state = ModelStore(tmp_path), save(WEIGHTS)
    digest = registry.keep_model("job", state, {})["model_digest"]
    manifests = {"job": registry.seal("job", "today")}
    path = tmp_path / "models" / "job" / name
    data = path.read_bytes()
    weights = range(8 * (len(data) - 64), 8 * len(data))
    for bit in weights if name == "model.safetensors" else range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ModelChanged, match=f"{name} is not what this party stored"):
            registry.model(digest, manifests)
    path.write_bytes(data)
    assert registry.model(digest, manifests) == state


def test_of_two_jobs_with_the_same_model_one_that_is_whole_is_enough(tmp_path: Path) -> None:
    registry, state = ModelStore(tmp_path), save(WEIGHTS)
    digest, manifests = "", {}
    for job in ("changed", "whole"):
        digest = registry.keep_model(job, state, {})["model_digest"]
        manifests[job] = registry.seal(job, "today")
    registry.model_path("changed").write_bytes(b"something else")
    assert registry.model(digest, manifests) == state

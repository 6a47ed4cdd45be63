"""`vfl demo` with the user's own two files: what it takes, and what it refuses by name before anything is written."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from api.cli.main import main
from api.demo.training.agreement import agree
from api.demo.training.own_tables import own_tables

ROWS = 240


@dataclasses.dataclass
class Files:
    """A label file and a feature file that fit each other."""

    folder: Path
    label: pl.DataFrame
    feature: pl.DataFrame

    def write(self, *, parquet: bool = False) -> tuple[Path, Path]:
        paths = tuple(self.folder / f"{name}.{'parquet' if parquet else 'csv'}" for name in ("bank", "telco"))
        for path, frame in zip(paths, (self.label, self.feature), strict=True):
            frame.write_parquet(path) if parquet else frame.write_csv(path)
        return paths[0], paths[1]

    def arguments(self) -> list[str]:
        """Written, and as the command takes them."""
        label, feature = map(str, self.write())
        return ["--label-file", label, "--feature-file", feature, "--id", "customer", "--label", "default"]

    def table(self, task: str | None = None, **options: bool) -> Any:
        return own_tables(*self.write(**options), "customer", "default", task)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    random = np.random.default_rng(1)
    ids = [f"{row:05}" for row in range(ROWS)]
    income, calls = random.normal(40, 9, ROWS), random.normal(100, 30, ROWS)
    default = ((calls - 100) / 30 - (income - 40) / 9 + random.normal(0, 0.5, ROWS) > 0).astype(int)
    return Files(
        tmp_path,
        pl.DataFrame({"customer": ids, "income": income, "default": default}),
        pl.DataFrame({"customer": ids, "calls": calls, "nights": calls % 7}),
    )


@pytest.fixture
def refused(files: Files, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the demonstration on the files; answers exit code and envelope, and holds that nothing was written."""

    def refused(*more: str) -> tuple[int, dict[str, Any]]:
        label, feature = files.write()
        monkeypatch.chdir(files.folder)
        before = sorted(files.folder.rglob("*"))
        command = ["demo", "--label-file", str(label), "--feature-file", str(feature), "--format", "json"]
        for name, value in (("--id", "customer"), ("--label", "default")):
            command += [] if name in more else [name, value]
        with pytest.raises(SystemExit) as end:
            main([*command, *more])
        answer = json.loads(capfd.readouterr().out)
        assert sorted(files.folder.rglob("*")) == before
        return int(end.value.code or 0), answer

    return refused


def test_two_files_train_one_model(files: Files, demo: Callable[..., Any]) -> None:
    label, feature = files.write()
    columns = ("--id", "customer", "--label", "default")
    ended = demo(
        files.folder / "out", "--label-file", str(label), "--feature-file", str(feature), *columns, "--scheme", "none"
    )
    assert (ended.data["dataset"], ended.data["task"], ended.data["rows"]) == ("own-tables", "binary", ROWS)
    assert ended.data["auc"]["federated"] > ended.data["auc"]["label_party_alone"]
    for model, score in ended.data["auc"].items():
        low, high = ended.data["intervals"][model]
        assert 0 <= low < score < high <= 1
    (guess,) = [notice for notice in ended.data["notices"]["label_party"] if notice["kind"] == "guess"]
    assert guess["code"] == "task"
    assert f"guess: {guess['text']}" in ended.stderr
    assert "task" not in {notice["code"] for notice in ended.data["notices"]["feature_party"]}
    # Ids are passed on as they stand in the file.
    assert (files.folder / "out" / "feature-party" / "rows.csv").read_text().splitlines()[1].startswith("00000,")


def test_a_metric_that_is_not_defined_is_null(files: Files, demo: Callable[..., Any]) -> None:
    # One held-out row has one class, and no AUC.
    files.label, files.feature = files.label[:7], files.feature[:7]
    label, feature = files.write()
    columns = ("--id", "customer", "--label", "default", "--scheme", "none", "--epochs", "1")
    ended = demo(files.folder / "out", "--label-file", str(label), "--feature-file", str(feature), *columns)
    assert ended.data["held_out_rows"] == 1
    assert set(ended.data["auc"].values()) == set(ended.data["intervals"].values()) == {None}
    told = " ".join(notice["text"] for notice in ended.data["notices"]["label_party"])
    assert "so the AUC is not defined" in told
    assert "only 1 row is held out" in told


@pytest.mark.parametrize(
    ("values", "task", "code"), [((0, 2, 5), "multiclass", "class_values"), ((-1, 1), "binary", "positive_value")]
)
def test_labels_are_classes_by_their_values_and_what_was_guessed_is_printed(
    files: Files, demo: Callable[..., Any], values: tuple[int, ...], task: str, code: str
) -> None:
    files.label = files.label.with_columns(pl.Series("default", [values[row % len(values)] for row in range(ROWS)]))
    ended = demo(files.folder / "out", *files.arguments(), "--scheme", "none", "--epochs", "1")
    assert ended.data["task"] == task
    guesses = {notice["code"]: notice["text"] for notice in ended.data["notices"]["label_party"]}
    assert f"guess: {guesses['task']}" in ended.stderr
    assert ", ".join(map(str, values)) in guesses[code].replace(" and ", ", ")


def test_what_few_rows_measure_stands_with_a_wide_interval_and_a_warning(
    files: Files, demo: Callable[..., Any]
) -> None:
    files.label, files.feature = files.label[:50], files.feature[:50]
    ended = demo(files.folder / "out", *files.arguments(), "--scheme", "none", "--epochs", "2")
    low, high = ended.data["intervals"]["federated"]
    assert low <= ended.data["auc"]["federated"] <= high
    assert high - low > 0.15
    assert "few_held_out" in {notice["code"] for notice in ended.data["notices"]["label_party"]}


@pytest.mark.parametrize(("rows", "positives"), [(1200, 1), (1200, 2), (20_000, 100)])
def test_of_rare_positives_an_auc_is_a_number_only_where_one_is_held_out_and_else_the_reason_is_told(
    files: Files, demo: Callable[..., Any], rows: int, positives: int
) -> None:
    random = np.random.default_rng(2)
    ids, values = [f"{row:05}" for row in range(rows)], random.normal(size=(rows, 2))
    default = np.arange(rows) < positives
    files.label = pl.DataFrame({"customer": ids, "income": values[:, 0], "default": default.astype(int)})
    files.feature = pl.DataFrame({"customer": ids, "calls": values[:, 1] + 2 * default})
    ended = demo(files.folder / "out", *files.arguments(), "--scheme", "none", "--epochs", "1")
    told = {notice["code"]: notice["text"] for notice in ended.data["notices"]["label_party"]}
    assert "held-out rows by class: " in told["held_out_classes"]
    held_out = int(told["held_out_classes"].rpartition(" of 1")[0].rpartition(", ")[2])
    assert ("rare_class" in told) == (positives < 10)
    for model, score in ended.data["auc"].items():
        assert (score is None) == (ended.data["intervals"][model] is None) == (held_out == 0), model
    if held_out == 0:
        assert "so the AUC is not defined" in told["class_not_held_out"]
    elif held_out < 5:
        assert "fewer than 5 rows are held out of class 1" in told["few_held_out"]


def test_parquet_is_read_like_csv(files: Files) -> None:
    assert agree(files.table(parquet=True), scheme="ckks", epochs=None, seed=0) == agree(
        files.table(), scheme="ckks", epochs=None, seed=0
    )


@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [
        (np.arange(ROWS) % 2, "binary", 0),
        (np.arange(ROWS) % 4, "multiclass", 4),
        (np.arange(ROWS) * 0.5, "regression", 0),
        (np.arange(ROWS) % 2 + 1, "binary", 0),
        (np.arange(ROWS) % 3 + 1, "multiclass", 3),
    ],
)
def test_the_task_follows_from_the_labels(files: Files, labels: np.ndarray, task: str, classes: int) -> None:
    files.label = files.label.with_columns(pl.Series("default", labels))
    table = files.table()
    assert (table.task, table.classes) == (task, classes)


def test_a_large_enough_table_is_trained_within_every_limit(files: Files) -> None:
    many = dataclasses.replace(files, label=pl.concat([files.label] * 10), feature=pl.concat([files.feature] * 10))
    ids = pl.Series("customer", [f"{row}" for row in range(10 * ROWS)])
    many.label, many.feature = many.label.with_columns(ids), many.feature.with_columns(ids)
    assert agree(many.table(), scheme="ckks", epochs=None, seed=0).relaxed_limits == ()


def test_a_small_table_relaxes_limits_by_name(files: Files) -> None:
    limits = agree(files.table(), scheme="ckks", epochs=None, seed=0).relaxed_limits
    assert [limit.name for limit in limits] == ["minimum_rows", "maximum_rho"]


def test_a_file_that_is_not_there(files: Files, refused: Callable[..., Any]) -> None:
    code, answer = refused("--feature-file", str(files.folder / "other.csv"))
    assert (code, answer["error_code"]) == (4, "unknown_file")
    assert "other.csv" in answer["message"]


@pytest.mark.parametrize("option", ["--id", "--label"])
def test_a_column_the_file_does_not_have(refused: Callable[..., Any], option: str) -> None:
    code, answer = refused(option, "defualt")
    assert (code, answer["error_code"]) == (4, "unknown_column")
    assert "bank.csv" in answer["message"]
    assert "income" in answer["hint"]


def test_a_label_column_in_the_feature_file(files: Files, refused: Callable[..., Any]) -> None:
    files.feature = files.feature.with_columns(files.label["default"])
    code, answer = refused()
    assert (code, answer["error_code"]) == (4, "label_in_feature_file")
    assert "telco.csv" in answer["message"]


@pytest.mark.parametrize(
    ("cell", "error"),
    [("NaN", "not_finite"), ("", "missing_value"), ("many", "non_numeric_cell"), ("inf", "not_finite")],
)
def test_a_cell_that_is_no_number(files: Files, refused: Callable[..., Any], cell: str, error: str) -> None:
    calls = files.feature["calls"].cast(pl.String).to_list()
    calls[6] = cell
    files.feature = files.feature.with_columns(pl.Series("calls", calls))
    code, answer = refused()
    assert (code, answer["error_code"]) == (4, error)
    assert "telco.csv" in answer["message"]
    assert "calls" in answer["message"]
    assert "row 7" in answer["message"]


def test_files_in_two_orders_that_share_some_rows_are_trained_on_these(files: Files, demo: Callable[..., Any]) -> None:
    files.label, files.feature = files.label[: ROWS - 20], files.feature[10:].reverse()
    data = demo(files.folder / "out", *files.arguments(), "--scheme", "none", "--epochs", "2").data
    assert (data["rows"], data["new_rows"]) == (ROWS - 30, None)
    alignment = data["alignment"]
    assert (alignment["label_party_rows"], alignment["feature_party_rows"]) == (ROWS - 20, ROWS - 10)
    assert alignment["common_rows"] == ROWS - 30
    assert data["auc"]["federated"] == data["auc"]["same_model_in_clear"]


def test_files_that_share_no_row(files: Files, refused: Callable[..., Any]) -> None:
    files.label, files.feature = files.label[:100], files.feature[100:]
    code, answer = refused()
    assert (code, answer["error_code"]) == (4, "rows_differ")
    assert "share 0 ids; 100 and 140 stand in one file only" in answer["message"]


def test_an_id_that_stands_twice(files: Files, refused: Callable[..., Any]) -> None:
    files.label = files.label.with_columns(pl.Series("customer", ["00000", *files.label["customer"][:-1]]))
    assert refused()[1]["error_code"] == "duplicate_ids"


def test_labels_that_are_not_binary_for_a_binary_job(files: Files, refused: Callable[..., Any]) -> None:
    files.label = files.label.with_columns(pl.Series("default", np.arange(ROWS) % 3))
    code, answer = refused("--task", "binary")
    assert (code, answer["error_code"]) == (4, "labels_not_binary")


@pytest.mark.parametrize("words", [("N", "Y"), ("false", "true"), ("high", "low")])
def test_words_as_labels_say_how_to_name_the_positive_one(
    files: Files, refused: Callable[..., Any], words: tuple[str, str]
) -> None:
    files.label = files.label.with_columns(pl.Series("default", words * (ROWS // 2)))
    code, answer = refused()
    assert (code, answer["error_code"]) == (4, "labels_not_binary")
    assert f"--positive '{words[1]}'" in answer["hint"]
    assert refused("--positive", "Y", "--task", "multiclass")[1]["error_code"] == "invalid_arguments"


def test_words_with_the_positive_one_named_train_the_same_model(files: Files) -> None:
    numbers = files.table()
    files.label = files.label.with_columns(pl.Series("default", [f" {'NY'[one]}" for one in files.label["default"]]))
    words = own_tables(*files.write(), "customer", "default", None, "Y")
    assert (words.task, words.guesses) == ("binary", ())
    assert (
        agree(words, scheme="none", epochs=None, seed=0).plan == agree(numbers, scheme="none", epochs=None, seed=0).plan
    )


def test_whole_numbers_that_may_be_amounts_ask_for_the_task(files: Files, refused: Callable[..., Any]) -> None:
    files.label = files.label.with_columns(pl.Series("default", np.arange(ROWS) % 30 + 18))
    code, answer = refused()
    assert (code, answer["error_code"]) == (4, "task_unclear")
    assert "--task multiclass or --task regression" in answer["hint"]


def test_labels_that_are_all_the_same(files: Files, refused: Callable[..., Any]) -> None:
    files.label = files.label.with_columns(pl.lit(1).alias("default"))
    assert refused()[1]["error_code"] == "constant_label"


def test_a_feature_file_without_features(files: Files, refused: Callable[..., Any]) -> None:
    files.feature = files.feature.select("customer")
    assert refused()[1]["error_code"] == "invalid_data"


def test_a_table_too_small_for_hidden_neurons(files: Files, refused: Callable[..., Any]) -> None:
    files.label, files.feature = files.label[:100], files.feature[:100]
    code, answer = refused("--top", "mlp")
    assert (code, answer["error_code"]) == (4, "impossible_job")
    assert "80 training rows" in answer["message"]
    assert "--top linear" in answer["hint"]


def test_a_table_too_wide_for_any_run(files: Files, refused: Callable[..., Any]) -> None:
    files.label = files.label.with_columns(pl.Series("default", np.arange(ROWS) % 10))
    files.feature = files.feature.with_columns(pl.Series(f"column_{j}", np.arange(ROWS) * 1.0) for j in range(410))
    code, answer = refused()
    assert (code, answer["error_code"]) == (4, "impossible_job")
    assert "4096" in answer["message"]

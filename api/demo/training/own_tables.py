"""The user's own two files as a demonstration: checked as the parties check them, before anything is written."""

from dataclasses import replace
from pathlib import Path

import msgspec
import polars as pl

from api.demo.training.agreement import training_for, training_specification
from api.demo.training.tables import DATASET, FEATURE_PARTY, LABEL_PARTY, DividedTable
from parties.errors import LabelInFeatureFile, LabelsNotBinary
from parties.tables.datasets import MINIMUM_ROWS, LoadedTable, load, task_of
from parties.tables.labels import FEWEST_CLASSES
from parties.tables.registered import Registered, open_registered
from parties.tables.row_ids import oddities, what_differs
from parties.tables.table_files import TableFile
from vfl.errors import InvalidData, RowsDiffer
from vfl.kinds import read_spec_as
from vfl.spec.training import TrainingSpec

NAME = "own-tables"


def own_tables(
    label_path: Path, feature_path: Path, id_column: str, label: str, task: str | None, positive: str | None = None
) -> DividedTable:
    """Two files that share ids, in whatever order; every column but id and label enters the job.

    The task is guessed from the labels unless given. Raises InvalidData or RowsDiffer, naming file, column and row.
    """
    own, others = (Registered(source=str(path.resolve()), id=(id_column,)) for path in (label_path, feature_path))
    label_table = open_registered(own, Path(), str(label_path), absent=_NAME_FILES).file
    feature_table, guesses_of_features = open_registered(others, Path(), str(feature_path), absent=_NAME_FILES)
    label_table.check_columns((id_column, label), hint=_NAME_COLUMNS)
    feature_table.check_columns((id_column,), hint=_NAME_COLUMNS)
    if id_column == label:
        raise InvalidData(f"--id and --label both name {label!r}", fix="Name two columns.")
    if label in feature_table.names:
        raise LabelInFeatureFile(
            f"label in the feature file: {feature_path} has the column {label!r}, the label of {label_path}",
            fix="Remove the column: the feature party must not hold the label.",
        )
    if feature_table.names == (id_column,):
        raise InvalidData(f"{feature_path} has no column beside {id_column!r}", fix="It brings at least one feature.")

    paths = {LABEL_PARTY: label_path, FEATURE_PARTY: feature_path}
    label_file, feature_file = (_whole(each, id_column) for each in (label_table, feature_table))
    guesses = guesses_of_features
    if task is None and positive is not None:
        task = "binary"
    elif task is None:
        task, guess = task_of(label_path.name, label, label_table.rows(label_table.names, (id_column,)))
        guesses += guess
    table = DividedTable(
        NAME,
        task,
        FEWEST_CLASSES if task == "multiclass" else 0,
        id_column,
        label,
        label_file,
        feature_file,
        stratified=task != "regression",
        positive=positive or "",
        guesses=guesses,
    )
    try:
        brought = _checked(table, paths)
    except LabelsNotBinary as error:
        if error.positive:  # whoever runs a demonstration writes no specification
            raise LabelsNotBinary(str(error), fix=f"Name it: --positive '{error.positive}'.") from error
        raise
    guesses += tuple(notice for notice in brought.notices if notice.kind == "guess")
    return replace(table, classes=len(brought.classes) if task == "multiclass" else 0, guesses=guesses)


def _whole(file: TableFile, id_column: str) -> pl.DataFrame:
    """As it is written again: with decimal points, and its blank rows at the end, for its party to tell of."""
    rows = file.rows(file.names, (id_column,))
    frame = rows.frame.vstack(rows.frame.clear(rows.blank)) if rows.blank else rows.frame
    if file.decimal_comma:
        frame = frame.with_columns(pl.exclude(id_column).str.replace(r"^(\s*[+-]?\d*),(\d+\s*)$", "$1.$2"))
    return frame


def _checked(table: DividedTable, paths: dict[str, Path]) -> LoadedTable:
    """Both files loaded as the parties will load them, and their ids compared; answers the label party's."""
    spec = read_spec_as(TrainingSpec, training_specification(table, training_for(table), "none", 0))
    # How many classes there are is told from the labels.
    spec = msgspec.structs.replace(spec, job=msgspec.structs.replace(spec.job, classes=0))
    loaded = {
        party: load(Path(), {DATASET: Registered(source=str(path.resolve()), id=(table.id,))}, spec, party)["rows"]
        for party, path in paths.items()
    }
    _check_ids({party: each.ids for party, each in loaded.items()}, paths)
    return loaded[LABEL_PARTY]


def _check_ids(ids: dict[str, pl.Series], paths: dict[str, Path]) -> None:
    """Raises RowsDiffer where the files share fewer rows than a job needs, or more would be equal in other letters."""
    here, there = (set(ids[party]) for party in (LABEL_PARTY, FEATURE_PARTY))
    spelled = what_differs(ids[LABEL_PARTY].to_list(), ids[FEATURE_PARTY].to_list())
    if len(here & there) >= MINIMUM_ROWS and not spelled:
        return
    odd = [oddities(ids[party], str(paths[party])) for party in (LABEL_PARTY, FEATURE_PARTY)]
    raise RowsDiffer(
        f"{paths[LABEL_PARTY]} and {paths[FEATURE_PARTY]} share {len(here & there)} ids; {len(here - there)} and "
        f"{len(there - here)} stand in one file only{f'; {spelled}' if spelled else ''}",
        fix=" ".join([_ONE_WAY if spelled else _COMMON_ROWS, *filter(None, odd)]),
    )


_NAME_FILES = "Name your tables with --label-file and --feature-file."
_NAME_COLUMNS = "Name the right ones with --id and --label."
_ONE_WAY = "Write the ids of both files in one way."
_COMMON_ROWS = "Bring two files about the same rows, with the same ids."

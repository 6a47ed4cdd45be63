"""The rows of a file that a job takes, read some at a time: a table is not held as a whole, its ids are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.tables.aligned_rows import AlignedRows
from parties.tables.cells import categories_of, numbers_of
from parties.tables.id_columns import ids_as_written
from parties.tables.matrix import Matrix, MatrixWriter
from parties.tables.table_files import Rows, TableFile
from vfl.errors import InvalidData
from vfl.spec.sections import TableUse


class JobRows(NamedTuple):
    ids: pl.Series
    """As they are written, one a row; empty where an alignment names the rows and their ids are not used."""
    numbers: NDArray[np.int64]
    """Of each row its place in the file, from 1."""
    matrix: Matrix
    words: dict[int, tuple[str, ...]]
    """Of a column of categories, by its position, what its codes stand for."""
    label: pl.Series | None
    time: pl.Series | None
    """The column by which the newest rows are held out."""
    blank: int


@dataclass
class JobRowsReader:
    """Reads what one use of a table asks for. Raises InvalidData, StorageFailed."""

    file: TableFile
    name: str
    """What errors call the file."""
    ids: Sequence[str]
    use: TableUse
    asked: Sequence[str]
    """Its input columns."""
    aligned: AlignedRows | None
    folder: Path | None
    """Where the numbers are kept; None keeps them in memory."""
    _words: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def read(self) -> JobRows:
        blank = self.file.blank_rows(self.ids)
        codes = self._codes()
        writer = MatrixWriter(len(self.asked), self.folder)
        beside: dict[str, list[pl.Series]] = {name: [] for name in (self.use.label, self.use.split_by_time) if name}
        columns = [*dict.fromkeys((*self.ids, *(each for each in self.asked if each not in codes), *beside))]
        ids, numbers, start = [], [np.zeros(0, np.int64)], 0
        for batch in self.file.batches(columns, self.ids, skip_blank=bool(blank)):
            end = start + len(batch.numbers)
            batch_codes = {name: of_column[start:end] for name, of_column in codes.items()}
            rows, start = batch, end
            if self.aligned is not None:
                is_taken = np.isin(batch.numbers, self.aligned.rows)
                rows = batch.kept(is_taken)
                batch_codes = {name: of_batch[is_taken] for name, of_batch in batch_codes.items()}
            if self.aligned is None or self.use.ids_name_results or self.use.ids_are_counted or self.use.split_by_id:
                ids.append(ids_as_written(rows, self.ids, self.name))
            writer.add(self._block(rows, batch_codes))
            numbers.append(rows.numbers)
            for name, parts in beside.items():
                parts.append(rows.frame[name])
        whole = {name: pl.concat(parts) for name, parts in beside.items() if parts}
        job_rows = JobRows(
            pl.concat(ids) if ids else pl.Series([], dtype=pl.String),
            np.concatenate(numbers),
            writer.finish(),
            self._words,
            whole.get(self.use.label),
            whole.get(self.use.split_by_time),
            blank,
        )
        return job_rows if self.aligned is None else self._in_order(job_rows, self.aligned)

    def _codes(self) -> Mapping[str, NDArray[np.float64]]:
        """Of the columns of categories, whole: all their words must be known before one has a code."""
        codes = {}
        for position, name in enumerate(self.asked):
            if name in self.use.words:
                whole = self.file.rows([*dict.fromkeys((*self.ids, name))], self.ids)
                codes[name], self._words[position] = categories_of(whole, name, self.name)
        return codes

    def _block(self, rows: Rows, codes: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        block = np.empty((len(rows.numbers), len(self.asked)))
        for position, name in enumerate(self.asked):
            block[:, position] = codes[name] if name in codes else self._numbers(rows, name)
        return block

    def _numbers(self, rows: Rows, name: str) -> NDArray[np.float64]:
        gaps_allowed = name in self.use.gaps
        try:
            return numbers_of(rows, name, self.name, gaps_allowed=gaps_allowed)
        except InvalidData:
            # What is wrong is told of the whole column.
            whole = self.file.rows([*dict.fromkeys((*self.ids, name))], self.ids)
            taken = whole if self.aligned is None else whole.taken(np.sort(self.aligned.rows))
            return numbers_of(taken, name, self.name, gaps_allowed=gaps_allowed)

    def _in_order(self, job_rows: JobRows, aligned: AlignedRows) -> JobRows:
        places = np.searchsorted(job_rows.numbers, aligned.rows)
        return job_rows._replace(
            ids=job_rows.ids[places] if len(job_rows.ids) else job_rows.ids,
            numbers=job_rows.numbers[places],
            matrix=job_rows.matrix.taken(places, self.folder),
            label=None if job_rows.label is None else job_rows.label[places],
            time=None if job_rows.time is None else job_rows.time[places],
        )

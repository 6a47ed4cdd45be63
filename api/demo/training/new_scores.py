"""The joint scores of new rows, beside what both halves give of them in clear: the demonstration holds both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from api.client import JsonObject
from api.demo.servers import Servers
from parties.offline_scores import score_offline
from parties.storage.scores import SCORE

EXAMPLES = 4


@dataclass(frozen=True)
class NewScore:
    """Of one row, by output."""

    id: str
    joint: tuple[float | None, ...]
    """As the label party reads it; None where it left the range of the agreed parameters."""
    in_clear: tuple[float, ...]


@dataclass(frozen=True)
class NewScores:
    outputs: tuple[str, ...]
    """The names of the columns: `score`, or `score_CLASS` for each class."""
    scores: tuple[NewScore, ...]
    """By id."""

    @property
    def largest_difference(self) -> float:
        return max(
            (
                abs(joint - in_clear)
                for score in self.scores
                for joint, in_clear in zip(score.joint, score.in_clear, strict=True)
                if joint is not None
            ),
            default=0.0,
        )

    @property
    def examples(self) -> list[NewScore]:
        """A few, from the first id to the last."""
        places = np.linspace(0, len(self.scores) - 1, min(EXAMPLES, len(self.scores))).round().astype(int)
        return [self.scores[place] for place in places]


@dataclass(frozen=True)
class ScoredRows:
    """The jobs about new rows, each as its parties tell of it, and what came of them."""

    alignment: Mapping[str, JsonObject]
    prediction: Mapping[str, JsonObject]
    new: NewScores


def new_scores(
    servers: Servers, training: str, prediction: str, files: Mapping[str, pl.DataFrame], id_column: str, room: Path
) -> NewScores:
    """Of a prediction that is done; `files` are the new rows by party. The folder `room` takes the exported halves."""
    label_party = next(iter(files))
    rows: Sequence[JsonObject] = servers.client(label_party).scores(prediction)["rows"]
    rows = sorted(rows, key=lambda row: str(row[id_column]))
    ids = pl.DataFrame({id_column: [row[id_column] for row in rows]}, schema={id_column: pl.String})
    for party in files:
        servers.client(party).export_model(training, room / party)
    taken = {party: ids.join(file, on=id_column, how="left", maintain_order="left") for party, file in files.items()}
    in_clear = score_offline([room / party for party in files], taken)
    outputs = tuple(name for name in rows[0] if name.startswith(SCORE)) if rows else ()
    scores = [
        NewScore(row[id_column], tuple(row[name] for name in outputs), tuple(map(float, clear)))
        for row, clear in zip(rows, in_clear, strict=True)
    ]
    return NewScores(outputs, tuple(scores))

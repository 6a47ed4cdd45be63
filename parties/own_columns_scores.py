"""Scores of the label party's own columns alone, for when a peer is away: nobody is asked, and nothing leaves.

Such a score is another one than the joint score, of a weaker model, and is marked so wherever it stands.
"""

from pathlib import Path

from parties.catalogue import Catalogue
from parties.storage.scores import OWN_COLUMNS_SCORE, scores_table
from parties.storage.trained_models import TrainedModels
from parties.tables import datasets
from parties.worker.frames import RawTable
from parties.worker.own_scores import OwnRows, own_scores
from vfl.errors import ModelUnfit
from vfl.kinds import kind_of, spec_of
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


class OwnColumnsScores:
    """Safe for several threads."""

    def __init__(self, folder: Path, me: PartyId, catalogue: Catalogue, models: TrainedModels) -> None:
        self._folder, self._me, self._catalogue, self._models = folder, me, catalogue, models

    def table(self, training: str, dataset: str, decimals: int) -> bytes:
        """CSV: of each row of a data set its ids, and its score under a name of its own.

        Raises UnknownModel, ModelChanged, ModelUnfit, WorkerVanished, StorageFailed, or what is wrong with the table.
        """
        trained, weights = self._models.applied(training)
        spec = self._prediction(training, trained, dataset, decimals)
        loaded = datasets.load(self._folder, self._catalogue.registered(), spec, self._me, room=self._folder)["rows"]
        columns = loaded.columns.tobytes() if loaded.file is None else loaded.file.descriptor
        table = RawTable(loaded.rows, columns, None, b"", words=dict(loaded.words))
        outcome = own_scores(OwnRows(spec.encoded(), self._me, table, weights))
        classes = self._models.get(training).classes
        return scores_table(loaded.id_table, outcome.state, classes, OWN_COLUMNS_SCORE)

    def _prediction(self, training: str, trained: JobSpec, dataset: str, decimals: int) -> JobSpec:
        """As this party would propose it, but that it proposes it to nobody. Raises ModelUnfit, ImpossibleJob."""
        if self._me != trained.coordinator:
            raise ModelUnfit(
                f"{self._me} is not the label party of the training {training}, and has no model on its own columns",
                fix=f"{trained.coordinator} can score by its own columns alone.",
            )
        document = {
            "job": {"name": "own-columns", "protocol": "prediction"},
            "roster": {"label": trained.coordinator, "features": list(trained.peers_of(trained.coordinator))},
            "model": {"training": training},
            "data": {party: {"dataset": dataset} for party in trained.parties},
            "scores": {"decimals": decimals},
        }
        spec = spec_of(document)
        applying: JobSpec = kind_of(spec).applying(spec, trained)
        return applying

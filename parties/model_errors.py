"""What can go wrong with a model that a party holds, or with an exported half of one (errors.md)."""

from vfl.errors import JobError


class UnknownModel(JobError):
    """The specification names a model that this party's registry does not hold."""

    code = "unknown_model"
    safe = "Nothing was sent."
    fix = "`vfl model list` shows the models of this party."


class ModelChanged(JobError):
    """The files of a model are not those that were stored when its job ended, or that its party has exported."""

    code = "model_changed"
    safe = "Nothing was sent."
    fix = "Put the folder of that job under models/ back from a backup, or name another model."


class ForeignModel(JobError):
    """An exported half of a model is another party's, or is signed by a key that is not the one it should be."""

    code = "foreign_model"
    safe = "Nothing was imported."
    fix = "Import it at the server of the party whose half it is, under the identity key that has exported it."


class ModelKnown(JobError):
    """The party holds a half of this training already, or knows that the job has left none here."""

    code = "model_known"
    safe = "Nothing was imported, and what the party holds stays as it is."
    fix = "`vfl model show` shows it."


class OnnxMissing(JobError):
    """A half is asked for as ONNX graphs where the package that writes them is not installed."""

    code = "onnx_missing"
    safe = "Nothing was exported."
    fix = "Install the extra `onnx` of this program, or `pip install onnx`; or export without --onnx."

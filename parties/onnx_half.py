"""An exported half of a model as ONNX graphs beside it, for programs that know nothing of this project."""

from pathlib import Path

from parties.model_errors import OnnxMissing
from parties.storage.exported_half import ExportedHalf
from parties.storage.models import WEIGHTS_FILE
from vfl.kinds import kind_of

NO_GRAPH = "The half is exported; no ONNX graph was written."


def check_onnx() -> None:
    """Raises OnnxMissing where the package of that name is not installed."""
    try:
        import onnx  # noqa: F401, PLC0415 - of an extra that most parties do not install
    except ImportError as error:
        raise OnnxMissing("the package onnx is not installed here") from error


def write_graphs(folder: Path) -> list[str]:
    """Into the folder of the half; answers the names of the files. Raises ModelChanged, ModelUnfit, OSError."""
    half = ExportedHalf.read(folder, safe=NO_GRAPH)
    graphs = kind_of(half.spec).onnx_graphs(half.spec, half.party, half.files[WEIGHTS_FILE])
    for name, graph in graphs.items():
        (folder / name).write_bytes(graph)
    return sorted(graphs)

"""Label parties whose worker breaks the protocol, each in one way, and a Python that has one of them built in.

The server of such a party is an honest one: what is tested is what the other side's server and worker make of it.
"""

import importlib.util
import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
PROTOCOL = "vfl.protocols.ckks_training"
SECONDS = 60
LARGE_ERROR = 20.0
"""Of the only row that has one: the noise of an opened sum is as for a mean over the batch, times its rows."""
NO_WEIGHT = 1e-5
"""Next to nothing: a weight of exactly zero would leave a ciphertext that nobody accepts."""


def python_with(attack: Callable[[ModuleType, Path], None], folder: Path) -> str:
    """An interpreter, for servers and their workers, in which this attack is made as soon as the protocol is loaded.

    The attack writes what it has read into the file `read` of the folder.
    """
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True, timeout=SECONDS
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    libraries = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    start = f"import deviating_roles; deviating_roles.install({attack.__name__!r}, {str(folder)!r})"
    lines = [str(ROOT), str(Path(__file__).parent), *libraries, start]
    (packages / "deviating.pth").write_text("\n".join(lines) + "\n", "utf-8")
    return str(folder / "bin" / "python")


class Loading:
    """Finds the protocol's module as ever, and makes the attack when it has been loaded."""

    def __init__(self, attack: Callable[[ModuleType, Path], None], folder: Path) -> None:
        self._attack, self._folder = attack, folder

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        if name != PROTOCOL:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_attack(module: ModuleType) -> None:
            load(module)
            self._attack(module, self._folder / "read")

        spec.loader.exec_module = load_and_attack  # type: ignore[method-assign]
        return spec


def install(attack: str, folder: str) -> None:
    if not any(isinstance(finder, Loading) for finder in sys.meta_path):  # Python may read a .pth file twice
        sys.meta_path.insert(0, Loading(globals()[attack], Path(folder)))


def single_rows(module: ModuleType, read: Path) -> None:
    """Labels at which no row but one has an error: each "sum over the batch" is that row."""

    class OneRow(module.LabelSide):  # type: ignore[misc, name-defined]
        targets: Any

        def __init__(self, setup: Any) -> None:
            super().__init__(setup)
            self.top._weights["weights"].fill(NO_WEIGHT)
            self._cells: list[tuple[int, list[float]]] = []

        def trained_on(self, rows: Any) -> Any:
            self._row = int(rows[0])
            targets = np.full(self.targets.shape, 0.5)
            targets[self._row] = 0.5 - LARGE_ERROR
            self.targets = targets
            return super().trained_on(rows)

        def update(self, sums: Any, _rows: int, _step: int) -> None:
            self._cells.append((self._row, [float(value) / LARGE_ERROR for value in sums[: self.top.shape.embedding]]))
            read.write_text(json.dumps(self._cells))

    module.LabelSide = OneRow  # type: ignore[attr-defined]


def the_same_batch(module: ModuleType, read: Path) -> None:
    """The ciphertexts of the first batch, opened again in every step."""

    first: list[Any] = []

    class FirstBatch(module.StepBlocks):  # type: ignore[misc, name-defined]
        def give(self, *block: Any) -> None:
            first.append(block)
            super().give(*first[0])

    class Reads(module.LabelSide):  # type: ignore[misc, name-defined]
        def __init__(self, setup: Any) -> None:
            super().__init__(setup)
            self._sums: list[list[float]] = []

        def update(self, sums: Any, _rows: int, _step: int) -> None:
            self._sums.append([float(value) for value in np.ravel(sums)[: self.top.shape.embedding]])
            read.write_text(json.dumps(self._sums))

    module.StepBlocks, module.LabelSide = FirstBatch, Reads  # type: ignore[attr-defined]


def second_opening(module: ModuleType, _read: Path) -> None:
    """What is to be opened is sent twice."""
    _sending(module, lambda message: [message, message])


def opening_of_the_next_step(module: ModuleType, _read: Path) -> None:
    """It is sent before the step to which it says to belong."""
    _sending(module, lambda message: [module.MaskedGradient(message.step + 1, message.packed, message.masked)])


def weights_before_the_end(module: ModuleType, _read: Path) -> None:
    """What asks for scores is sent while training goes on."""
    from vfl.messages import EncryptedWeights

    _sending(module, lambda message: [EncryptedWeights(message.packed, message.masked)])


def opening_of_nothing_encrypted(module: ModuleType, _read: Path) -> None:
    """Bytes that are no words of a ciphertext under the agreed parameters."""
    _sending(
        module, lambda message: [module.MaskedGradient(message.step, b"\xff" * len(message.packed), message.masked)]
    )


def opening_of_more(module: ModuleType, _read: Path) -> None:
    """Twice as many values as there are weights."""
    _sending(module, lambda message: [module.MaskedGradient(message.step, 2 * message.packed, 2 * message.masked)])


def _sending(module: ModuleType, instead: Callable[[Any], list[Any]]) -> None:
    """The label party's role, with other messages in place of what asks for sums to be opened."""
    roles: dict[Any, Any] = module.ROLES
    role, honest = next((role, flow) for role, flow in roles.items() if flow is module.label_party)

    def deviating(setup: Any) -> Any:
        flow, answer = honest(setup), None
        while True:
            try:
                effect = flow.send(answer)
            except StopIteration as end:
                return end.value
            if isinstance(getattr(effect, "message", None), module.MaskedGradient):
                for message in instead(effect.message):
                    answer = yield effect._replace(message=message)
            else:
                answer = yield effect

    roles[role] = deviating

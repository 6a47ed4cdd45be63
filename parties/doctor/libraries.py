"""Loads the libraries that workers compute with and prints their versions as JSON: a process of its own.

A library that was built for another processor ends the process that loads it.
"""

import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

SEAL_VERSION = slice(3, 5)
"""Of what SEAL saves: the bytes that name its release (SEAL 4, serialization.h)."""


def main() -> None:
    from tenseal import sealapi  # noqa: PLC0415 - this is what may not work

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "parameters"
        sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS).save(str(saved))
        seal = list(saved.read_bytes()[SEAL_VERSION])
    import torch  # noqa: PLC0415 - after SEAL, of which a slow machine then knows at least that

    versions = {"tenseal": importlib.metadata.version("tenseal"), "torch": str(torch.__version__)}
    sys.stdout.write(json.dumps(versions | {"seal": seal}) + "\n")


if __name__ == "__main__":
    main()

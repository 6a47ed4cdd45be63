"""What the command line says of Paillier where its extra is not installed, as in the environment of these tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from crypto.paillier_parameters import missing_packages

Run = Callable[..., tuple[int, str, str]]

SPEC = """
job = { name = "credit", task = "binary" }
roster = { label = "bank", features = ["telco"] }
train = { epochs = 2, batch_rows = 256 }
encryption = { scheme = "paillier" }
[data]
bank = { dataset = "loans", label = "default" }
telco = { dataset = "usage", columns = ["calls"] }
"""


@pytest.mark.skipif(not missing_packages(), reason="the extra is installed here")
def test_a_check_and_a_demonstration_say_what_to_install(run: Run, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(SPEC)
    for command in (("job", "check", tmp_path / "job.toml"), ("demo", "--scheme", "paillier")):
        code, out, err = run(*command)
        assert code != 0
        words = " ".join((out + err).split())
        assert "scheme paillier needs gmpy2 and phe, and this installation is without" in words
        assert "Install the extra `paillier` of this program" in words
        assert "paillier_missing" in words

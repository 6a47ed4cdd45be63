"""What all tests share: the processes that they start read compiled code, and those of Paillier need its extra."""

import os
import sys

from crypto.paillier_parameters import missing_packages

# The tests start hundreds of processes. With this variable set each would compile every file anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# `make test-paillier` runs them in an environment of their own; in this one there is nothing that they could run on.
collect_ignore_glob = ["*/paillier/*"] if missing_packages() else []

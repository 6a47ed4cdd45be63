"""What all tests share: the processes that they start read compiled code, and those of Paillier need its extra."""

import os
import sys

# As in a worker: processes share the cores, and threads that wait for each other's pieces compute nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from crypto.paillier_parameters import missing_packages

# The tests start hundreds of processes. With this variable set each would compile every file anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# `make test-paillier` runs them in an environment of their own; in this one there is nothing that they could run on.
collect_ignore_glob = ["*/paillier/*"] if missing_packages() else []

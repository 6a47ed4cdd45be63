"""What all tests share: the processes that they start read compiled code."""

import os
import sys

# The tests start hundreds of processes. With this variable set each would compile every file anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

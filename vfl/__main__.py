"""`python -m vfl` is the command `vfl`. It is found by its name: this package knows nothing of the command line."""

import runpy

if __name__ == "__main__":
    runpy.run_module("api.cli.main", run_name="__main__")

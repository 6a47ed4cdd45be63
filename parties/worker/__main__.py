"""`python -m parties.worker`: the worker process of one job."""

from parties.worker.main import main

main()

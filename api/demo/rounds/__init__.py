"""The demonstration of rounds: an aggregator and three clients, each a server with a worker, train on digits.

Like the package around it, this alone reads every party's files, to deal them before the job and to compare models
after it.
"""

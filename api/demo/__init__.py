"""The demonstration: two real party servers on loopback, one job between them, and a report.

This is the one place that plays both operators: it alone reads both tables, to divide them before the job and to
compare models after it. Nothing here runs inside a server or a worker.
"""

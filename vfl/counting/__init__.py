"""The work that a job of each kind does, counted from its specification: `Kind.work` of each kind is a file here."""

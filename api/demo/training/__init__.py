"""The demonstration of encrypted training: a feature party and a label party on this machine, and a report."""

"""One organisation's node: state, disk, network, processes, consent. Drives protocols; knows nothing of learning."""

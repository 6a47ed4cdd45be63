"""One organisation's node: state, disk, network, processes and consent. Drives protocols without knowing what they learn."""

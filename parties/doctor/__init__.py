"""What `vfl doctor` looks at: the own machine, the own server, the network, and the peer's half (docs/doctor.md)."""

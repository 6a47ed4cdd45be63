"""Hundreds of clients on one machine, without a server: the roles of a job of rounds in one process or in several."""

"""The parts a round can be made of, each a record of plain functions for the places it fills (rounds.md)."""

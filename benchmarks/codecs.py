"""Starts codec_tables.py, which says what is measured. mypy skips this file: its name is that of a standard module."""

from codec_tables import main

if __name__ == "__main__":
    main()

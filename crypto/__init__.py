"""Cryptography as small nouns: keys, ciphertexts, parameters. Knows bytes, integers and numpy; no files."""

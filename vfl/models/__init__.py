"""Models that run on numbers and on ciphertexts alike."""

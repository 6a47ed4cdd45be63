"""The control API of one organisation: its own people and pipelines, a bearer token, its own port."""

"""One page per protocol: its roles as generators, by name in `ROLES`. A job kind says which page runs a job."""

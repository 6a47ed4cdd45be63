"""One job at this party from its proposal to its end: the supervisor, the two sides of a job, its run, its journal."""

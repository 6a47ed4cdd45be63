"""The worker process of one job, and how its server starts it, feeds it and listens to it."""

"""What a job will do, worked out before it runs: steps, bytes, opened values, warnings."""

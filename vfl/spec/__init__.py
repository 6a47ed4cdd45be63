"""The agreement of a job: what a specification of every kind holds, how it is read, and what is refused."""

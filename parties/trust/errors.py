"""What can go wrong with grants and budgets, each with its stable code (errors.md)."""

from vfl.errors import JobError


class GrantInvalid(JobError):
    """A grant contradicts itself, is not signed by its owner, or is not good for another job."""

    code = "invalid_grant"
    safe = "Nothing was granted and nothing ran."
    fix = "Make another grant with the numbers that the message names."


class UnknownGrant(JobError):
    """No grant of this id at this party."""

    code = "unknown_grant"
    safe = "Nothing was changed."
    fix = "Name a grant of this party by the id that it was given."


class BudgetSpent(JobError):
    """A message would reveal more than all parties agreed that the job may."""

    code = "reveal_budget_spent"
    safe = "The message did not leave. What had left before is counted for the life of the data set."
    fix = "The peer asks for more than the job allows, or steps were taken again too often: look at the job's events."

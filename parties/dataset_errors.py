"""What can go wrong when a table becomes a data set, or when a job asks more of one than it gives (errors.md)."""

from vfl.errors import InvalidData


class InvalidDataset(InvalidData):
    """A data set cannot be added under this name or with these columns."""

    code = "invalid_dataset"
    safe = "Nothing was added."


class DatasetKnown(InvalidData):
    """There is a data set of this name already."""

    code = "dataset_known"
    safe = "Nothing was added."
    fix = "Choose another name, or add it in place of the other with --replace."


class QueryFailed(InvalidData):
    """A database cannot be reached, or does not answer a query."""

    code = "query_failed"
    safe = "Nothing was added."


class TooManyCategories(InvalidData):
    """A column of words holds more different ones than any job takes as categories."""

    code = "too_many_categories"


class NotATime(InvalidData):
    """A column by which the newest rows are to be held out holds what is neither a number nor a date."""

    code = "not_a_time"


class LabelAmongInputs(InvalidData):
    """A job asks for a column as an input that its owner has added as a label."""

    code = "label_among_inputs"

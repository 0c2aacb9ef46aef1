"""The base of all errors that the package raises on purpose."""


class SplitPlaceError(Exception):
    """Something that the user can understand and act on: the message says what is wrong.

    The command line prints the message and exits; anything else is a fault of ours and keeps its traceback.
    """

"""Failures that a user can cause or must know of. The message is one line: what was wrong, what to do."""


class VideoNSTError(Exception):
    """A failure with a message for the user. The command line prints it and exits with `exit_code`."""

    exit_code = 1


class InputError(VideoNSTError):
    """What was asked for cannot be done as asked: a bad file, name, value or device."""

    exit_code = 2

"""What of a damaged input was lost: counted, told, or refused."""

import logging

from videonst.errors import VideoNSTError

_log = logging.getLogger(__name__)


class DamagedInputError(VideoNSTError):
    """The input is damaged, and it was asked to be strict about that."""


class Damage:
    """Counts what could not be read of one input. Every message about damage goes through `report`.

    Attributes:
        strict: damage is an error.
        lost: frames, pictures and packets that could not be read, as far as they can be counted.
        messages: what was lost, in words.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.lost = 0
        self.messages: list[str] = []

    def report(self, message: str, lost: int = 0) -> None:
        """Warns of damage.

        Raises:
            DamagedInputError: where `strict`.
        """
        if self.strict:
            raise DamagedInputError(f"{message}; leave out --strict (strict=True) to keep what can be read")
        self.lost += lost
        self.messages.append(message)
        _log.warning("%s", message)

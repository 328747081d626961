"""The error types a caller may catch. Every message says what, got, must, and the fix.

And where lines for the user go, which every room below the command line is handed.
"""

from collections.abc import Callable

Log = Callable[[str], None]
"""Takes one line of text."""


class SftrayError(Exception):
    """Base of all errors that sftray raises on purpose. `hint`: the fix, where it stands apart."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(SftrayError):
    """A configuration that cannot work, found before anything started."""


class BrokenBaseError(ConfigError):
    """A base that no attention here computes as its definition says."""


class UnfitTrainerError(ConfigError):
    """A trainer that does not compute a base as its definition says; another may."""


class DataError(SftrayError):
    """Input data that cannot be read or trained on; names the file and the line."""


class TemplateError(SftrayError):
    """A chat template from which the assistant's tokens cannot be located for certain."""


class PacksError(SftrayError):
    """A pack on disk that is incomplete, damaged or does not fit the request."""


class JournalError(SftrayError):
    """A journal that cannot be continued: damaged in the middle, or of another sweep."""


class CheckpointError(SftrayError):
    """A checkpoint that is incomplete or does not match its checksums."""


class BankError(SftrayError):
    """A bank that has broken down; its trials continue from their last checkpoints in a new one."""


class WorkersError(SftrayError):
    """A Ray Train run that has ended before its trials; they continue from their last
    checkpoints in a new one."""


class OutageError(SftrayError, OSError):
    """A disk that is full, or storage or the Hub that have not answered for so long: nothing that a
    trial could do about. The sweep stops, and the same command continues it."""


class SweepFailedError(SftrayError):
    """A sweep that ended without one finished trial."""


def last_line(text: str) -> str:
    """The last line of an error's text: the error itself where Ray has put tracebacks before it."""
    return (text.strip().splitlines() or [""])[-1]

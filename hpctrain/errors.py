"""The errors a user can meet, each with the exit code that batch scripts act on."""

from __future__ import annotations

from collections.abc import Sequence


class HpctrainError(Exception):
    """Base of every error that is reported to the user as one clear message, without a traceback."""

    exit_code = 1
    everywhere = False
    """Whether every rank raises this same error, so that one of them reporting it is enough."""


class ConfigError(HpctrainError):
    """The config or the command is wrong. Carries every problem that was found, not only the first."""

    exit_code = 2
    everywhere = True  # every rank reads the same config

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class LaunchError(HpctrainError):
    """The ranks cannot be placed or cannot meet as they were asked to."""

    exit_code = 2


class DataError(HpctrainError):
    """Data is missing, corrupt, or not what the run began with."""

    exit_code = 3


class CheckpointError(HpctrainError):
    """No checkpoint can be trusted, and starting anew was not asked for."""

    exit_code = 4


class StoppedEarly(HpctrainError):  # noqa: N818 - not a fault: the work is saved
    """The run stopped before its last step with its work saved: run the same command again."""

    exit_code = 75


class NumericalError(HpctrainError):
    """The numbers went wrong in a way that a restart will not cure."""

    exit_code = 93


class StoppedByHand(HpctrainError):  # noqa: N818 - not a fault: the work is saved
    """A file in the run directory asked the run to stop: saved, and not to be run again by itself."""

    exit_code = 76
    everywhere = True


class NoProgress(HpctrainError):  # noqa: N818 - says what happened
    """A job was restarted several times and never got further."""

    exit_code = 93

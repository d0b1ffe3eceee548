"""What can stop a migration."""

from migrations.applied import Applied
from services.chassis.errors import Aborted, FailedPrecondition, InvalidArgument, PermissionDenied, Unavailable


class UnusableAddress(InvalidArgument):
    """The database URL does not name a database that Baton can use."""

    default_reason = "UNUSABLE_DATABASE_URL"


class UnusableSecret(InvalidArgument):
    """The file that the logins' passwords are derived from cannot be used."""

    default_reason = "UNUSABLE_PASSWORD_SECRET"


class Unreachable(Unavailable):
    """The database does not answer, or does not let us in."""

    default_reason = "DATABASE_UNREACHABLE"


class LockHeld(Aborted):
    """Another migration of this database is at work and did not end in time."""

    default_reason = "MIGRATION_IN_PROGRESS"


class MayNotPrepare(PermissionDenied):
    """The user of the database URL may not create schemas or logins, or grant what they need."""

    default_reason = "DATABASE_PRIVILEGES_MISSING"


class NewerDatabase(FailedPrecondition):
    """The database is at a revision that this code does not know."""

    default_reason = "DATABASE_IS_NEWER"


class NotDevelopment(FailedPrecondition):
    """Only a development database may lose its data."""

    default_reason = "NOT_A_DEVELOPMENT_DATABASE"


class StepFailed(FailedPrecondition):
    """A step was rolled back; `applied` tells what was done before it."""

    default_reason = "MIGRATION_STEP_FAILED"

    def __init__(self, message: str, applied: list[Applied]) -> None:
        super().__init__(message)
        self.applied = applied

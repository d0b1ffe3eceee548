"""The errors that rules raise and callers see.

A rule raises one of these and knows nothing of the wire; the server turns it into a
gRPC status with google.rpc details, the channel turns that back into the same class,
the gateway prints it as a problem document (RFC 9457).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class Code(Enum):
    """The canonical gRPC status codes that Baton answers."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True)
class Violation:
    """One fault of a request."""

    field: str
    """Where the fault is, as a caller writes it: `payload.pipeline[1].with.time`."""
    description: str
    """What is wrong and what would be right, lower case, without a full stop."""


class ServiceError(Exception):
    """A failure that a caller is told about.

    `reason` is a stable UPPER_SNAKE name for programs, `message` is for people, `metadata` holds the ids
    involved, `violations` name the faulty fields, `retry_after` is in seconds.
    """

    code: ClassVar[Code]
    default_reason: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after


class InvalidArgument(ServiceError):
    """The request is wrong whatever the state of the system."""

    code = Code.INVALID_ARGUMENT
    default_reason = "INVALID_ARGUMENT"

    @classmethod
    def of(cls, violations: Iterable[Violation]) -> "InvalidArgument":
        """An error that names every fault found, with the first in its message."""
        found = tuple(violations)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return cls(f"{found[0].field}: {found[0].description}{more}", violations=found)


class DeadlineExceeded(ServiceError):
    """The work did not end in the time that the caller gave."""

    code = Code.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class NotFound(ServiceError):
    """What the request names does not exist."""

    code = Code.NOT_FOUND
    default_reason = "NOT_FOUND"


class AlreadyExists(ServiceError):
    """What the request would create is there already."""

    code = Code.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class PermissionDenied(ServiceError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class ScopeMissing(PermissionDenied):
    """The caller's token does not hold what this needs."""

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"this needs the scope {scope!r}, which the token does not hold",
            reason="SCOPE_MISSING",
            metadata={"scope": scope},
        )


class ResourceExhausted(ServiceError):
    """A limit is reached."""

    code = Code.RESOURCE_EXHAUSTED
    default_reason = "RESOURCE_EXHAUSTED"


class FailedPrecondition(ServiceError):
    """The system is not in the state that the request needs; repeating it does not help."""

    code = Code.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"


class Aborted(ServiceError):
    """A race was lost; the caller may begin again from reading."""

    code = Code.ABORTED
    default_reason = "ABORTED"


class Unimplemented(ServiceError):
    """The method does not exist here."""

    code = Code.UNIMPLEMENTED
    default_reason = "UNIMPLEMENTED"


class Internal(ServiceError):
    """A fault of Baton's own. The cause is logged, never answered."""

    code = Code.INTERNAL
    default_reason = "INTERNAL"


class Unavailable(ServiceError):
    """Something needed is down for now; the same call may be repeated."""

    code = Code.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class Unauthenticated(ServiceError):
    """The caller is not known."""

    code = Code.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


BY_CODE: Mapping[Code, type[ServiceError]] = {cls.code: cls for cls in ServiceError.__subclasses__()}

"""ServiceError to google.rpc.Status and back: the only place that knows both."""

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc.aio import AioRpcError

from services.chassis.errors import BY_CODE, Code, Internal, ServiceError, Unavailable, Violation

ERROR_DOMAIN = "baton"
DETAILS_KEY = "grpc-status-details-bin"


def grpc_code(code: Code) -> StatusCode:
    return StatusCode[code.name]


def to_status(error: ServiceError) -> status_pb2.Status:
    """The status with its details: ErrorInfo always, BadRequest and RetryInfo where they say something."""
    status = status_pb2.Status(code=error.code.value, message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata)
    )
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(bad_request)
    if error.retry_after is not None:
        retry_info = error_details_pb2.RetryInfo()
        retry_info.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        status.details.add().Pack(retry_info)
    return status


def from_rpc_error(error: AioRpcError) -> ServiceError:
    """Rebuilds the error that the server raised. A failure of the connection itself becomes Unavailable."""
    try:
        cls = BY_CODE[Code[error.code().name]]
    except KeyError:
        return Internal(f"call failed with {error.code().name}")
    rebuilt = cls(error.details() or cls.default_reason.lower())
    details = _details(error)
    for detail in details:
        _apply(rebuilt, detail)
    if isinstance(rebuilt, Unavailable) and not details:
        # Raised by the connection, whose text names addresses that are nobody's business.
        return Unavailable("the service cannot be reached right now", reason="SERVICE_UNREACHABLE", retry_after=1)
    return rebuilt


def _details(error: AioRpcError) -> list[any_pb2.Any]:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return list(status_pb2.Status.FromString(value).details)
    return []


def _apply(error: ServiceError, detail: any_pb2.Any) -> None:
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    if detail.Unpack(info):
        error.reason = info.reason
        error.metadata = dict(info.metadata)
    elif detail.Unpack(bad_request):
        error.violations = tuple(Violation(item.field, item.description) for item in bad_request.field_violations)
    elif detail.Unpack(retry):
        error.retry_after = retry.retry_delay.ToNanoseconds() / 1e9

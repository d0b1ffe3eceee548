"""ServiceError to google.rpc.Status and back: the only place that knows both."""

from collections.abc import Iterable, Iterator

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc.aio import AioRpcError

from services.chassis.errors import BY_CODE, Code, Internal, ServiceError, Unavailable, Violation

ERROR_DOMAIN = "baton"
DETAILS_KEY = "grpc-status-details-bin"
# gRPC clients refuse an answer, whatever it says, whose metadata passes 8 KiB. That bounds what an error can tell:
# bytes of UTF-8 in its message, in one text of its details, and in all violations together.
_MESSAGE_BYTES, _TEXT_BYTES, _VIOLATIONS_BYTES = 800, 400, 1800


def grpc_code(code: Code) -> StatusCode:
    return StatusCode[code.name]


def to_status(error: ServiceError) -> status_pb2.Status:
    """The status with its details: ErrorInfo always, BadRequest and RetryInfo where they say something.

    Texts too long for an answer are cut, and violations beyond the first few dozen left out.
    """
    status = status_pb2.Status(code=error.code.value, message=_cut(error.message, _MESSAGE_BYTES))
    metadata = {key: _cut(value, _TEXT_BYTES) for key, value in error.metadata.items()}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=metadata))
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in _fitting(error.violations):
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        status.details.add().Pack(bad_request)
    if error.retry_after is not None:
        retry_info = error_details_pb2.RetryInfo()
        retry_info.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        status.details.add().Pack(retry_info)
    return status


def from_rpc_error(error: AioRpcError) -> ServiceError:
    """Rebuilds the error that the server raised.

    A failure of the connection itself, or a server that stops and cancels what it has begun, becomes Unavailable.
    """
    if error.code() is StatusCode.CANCELLED:
        # It was not us: whoever gives a call up is not told of it.
        return _unreachable()
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
        return _unreachable()
    return rebuilt


def _unreachable() -> Unavailable:
    return Unavailable("the service cannot be reached right now", reason="SERVICE_UNREACHABLE", retry_after=1)


def _fitting(violations: Iterable[Violation]) -> Iterator[Violation]:
    left = _VIOLATIONS_BYTES
    for violation in violations:
        shown = Violation(_cut(violation.field, _TEXT_BYTES), _cut(violation.description, _TEXT_BYTES))
        left -= len(shown.field.encode()) + len(shown.description.encode())
        if left < 0:
            return
        yield shown


def _cut(text: str, limit: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= limit else encoded[: limit - 3].decode(errors="ignore") + "…"


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

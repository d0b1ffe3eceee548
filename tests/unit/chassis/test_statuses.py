"""Errors to google.rpc statuses, as far as it can be told without a wire."""

from collections.abc import Iterator

import pytest
from google.rpc import status_pb2
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from services.chassis.errors import BY_CODE, Code, Internal, InvalidArgument, ServiceError, Unavailable, Violation
from services.chassis.status import DETAILS_KEY, from_rpc_error, grpc_code, to_status


def _received(error: ServiceError) -> AioRpcError:
    status = to_status(error)
    trailing = Metadata((DETAILS_KEY, status.SerializeToString()))
    return AioRpcError(grpc_code(error.code), Metadata(), trailing, status.message)


def _lone(code: StatusCode, details: str) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details)


def test_every_code_has_one_class() -> None:
    assert set(BY_CODE) == set(Code)
    assert all(StatusCode[code.name].value[0] == code.value for code in Code)


@pytest.mark.parametrize("cls", BY_CODE.values())
def test_an_error_comes_back_whole(cls: type[ServiceError]) -> None:
    sent = cls(
        "paper 'Sunday' is sold out: come back für mehr",
        reason="SOLD_OUT",
        metadata={"paper": "Sunday"},
        violations=[Violation("lines[0].text", "is too long"), Violation("title", "is missing")],
        retry_after=2.5,
    )
    got = from_rpc_error(_received(sent))
    assert type(got) is cls
    assert vars(got) == vars(sent)


@pytest.mark.parametrize("cls", BY_CODE.values())
def test_an_error_with_nothing_to_add_has_its_default_reason(cls: type[ServiceError]) -> None:
    got = from_rpc_error(_received(cls("sold out")))
    assert (type(got), got.message, got.reason) == (cls, "sold out", cls.default_reason)
    assert (got.metadata, got.violations, got.retry_after) == ({}, (), None)


def test_a_lost_connection_is_unavailable_and_names_no_address() -> None:
    got = from_rpc_error(_lone(StatusCode.UNAVAILABLE, "failed to connect to ipv4:10.1.2.3:50051"))
    assert isinstance(got, Unavailable)
    assert got.reason == "SERVICE_UNREACHABLE"
    assert got.retry_after == 1
    assert "10.1.2.3" not in got.message


def test_a_call_that_its_service_broke_off_may_be_made_again() -> None:
    got = from_rpc_error(_lone(StatusCode.CANCELLED, "CANCELLED"))
    assert (type(got), got.reason, got.retry_after) == (Unavailable, "SERVICE_UNREACHABLE", 1)


@pytest.mark.parametrize("code", [StatusCode.UNKNOWN, StatusCode.DATA_LOSS])
def test_codes_that_baton_never_answers_are_faults(code: StatusCode) -> None:
    got = from_rpc_error(_lone(code, "Traceback of something secret"))
    assert isinstance(got, Internal)
    assert "secret" not in got.message


def _many() -> Iterator[Violation]:
    for number in range(1000):
        yield Violation(f"payload.pipeline[{number}].uses", "is not a tool: use the name of one that exists")


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument.of(_many()),
        InvalidArgument("ж" * 100_000),
        InvalidArgument("long", violations=[Violation("f" * 100_000, "d" * 100_000)], metadata={"id": "m" * 100_000}),
    ],
)
def test_an_error_never_outgrows_what_clients_accept(error: InvalidArgument) -> None:
    status = to_status(error)
    escaped = len(status.message.encode()) * 3 if not status.message.isascii() else len(status.message)
    assert len(status.SerializeToString()) * 4 / 3 + escaped < 8000
    got = from_rpc_error(_received(error))
    assert got.message[:100] == error.message[:100]
    assert [violation.field[:20] for violation in got.violations[:1]] == [
        violation.field[:20] for violation in error.violations[:1]
    ]


def test_the_first_violations_are_kept_in_order() -> None:
    violations = tuple(_many())
    got = from_rpc_error(_received(InvalidArgument.of(violations)))
    assert 10 < len(got.violations) < 1000
    assert got.violations == violations[: len(got.violations)]
    assert got.message.endswith("(and 999 more)")


def test_a_status_is_standard_for_clients_of_other_makes() -> None:
    status = to_status(InvalidArgument("wrong", violations=[Violation("a", "b")], retry_after=1))
    assert isinstance(status, status_pb2.Status)
    assert [detail.type_url for detail in status.details] == [
        "type.googleapis.com/google.rpc.ErrorInfo",
        "type.googleapis.com/google.rpc.BadRequest",
        "type.googleapis.com/google.rpc.RetryInfo",
    ]

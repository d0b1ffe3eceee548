"""What agents have used, as messages."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date

from baton.sessions.v1 import usage_pb2
from baton.sessions.v1 import usage_service_pb2 as pb

from services.chassis.call import Caller
from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.chassis.timestamps import from_timestamp, to_timestamp
from services.sessions.convert.enums import from_enum
from services.sessions.models.usage import AMOUNTS, Amounts, Call, CallFilter, NewCall, Sum, SumFilter, UsageGroup


def new_calls(request: pb.RecordUsageRequest, caller: Caller) -> list[NewCall]:
    """What is to be recorded."""
    return [
        NewCall(
            agent_id=stored_id(call.agent_id) or caller.agent_id,
            session_id=stored_id(call.session_id) or None,
            run_id=stored_id(call.run_id) or None,
            model=call.model,
            amounts=Amounts(**{name: getattr(call, name) for name in AMOUNTS}),
            occurred_at=from_timestamp(call.occurred_at) if call.HasField("occurred_at") else None,
        )
        for call in request.calls
    ]


def call_filter(request: pb.ListUsageRequest) -> CallFilter:
    """Which calls the caller wants to see."""
    return CallFilter(
        agent_id=stored_id(request.agent_id),
        session_id=stored_id(request.session_id),
        run_id=stored_id(request.run_id),
        model=request.model,
    )


def sum_filter(request: pb.SummarizeUsageRequest) -> SumFilter:
    """What the caller wants to have added up. Raises InvalidArgument for a day that there is not."""
    days = {name: getattr(request, name) for name in ("since_day", "until_day")}
    if wrong := [(name, day) for name, day in days.items() if _is_no_day(day)]:
        raise InvalidArgument.of(Violation(name, f"{day!r} is no day: write 2026-03-29") for name, day in wrong)
    return SumFilter(
        group=from_enum(UsageGroup, usage_pb2.UsageGroup, request.group_by),
        agent_id=stored_id(request.agent_id),
        session_id=stored_id(request.session_id),
        **days,
    )


def usage_message(call: Call) -> usage_pb2.Usage:
    """A call as it is answered."""
    return usage_pb2.Usage(
        id=call.id,
        agent_id=call.agent_id,
        session_id=call.session_id,
        run_id=call.run_id,
        model=call.model,
        occurred_at=to_timestamp(call.occurred_at),
        recorded_by=call.recorded_by,
        **asdict(call.amounts),
    )


def sum_message(added: Sum) -> usage_pb2.UsageSum:
    """A sum as it is answered."""
    return usage_pb2.UsageSum(key=added.key, calls=added.calls, **asdict(added.amounts))


def recorded(ids: Sequence[str]) -> pb.RecordUsageResponse:
    """The answer to who has told of calls."""
    return pb.RecordUsageResponse(ids=ids)


def _is_no_day(text: str) -> bool:
    try:
        return bool(text) and not date.fromisoformat(text)
    except ValueError:
        return True

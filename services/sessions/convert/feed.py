"""The feed."""

from collections.abc import Mapping

from baton.sessions.v1 import feed_service_pb2 as pb

from services.chassis.errors import InvalidArgument, Violation
from services.chassis.ids import stored_id
from services.sessions.convert.chat import chat_message
from services.sessions.convert.enums import from_enum
from services.sessions.convert.log import agent_log_message, system_log_message
from services.sessions.convert.spans import since_of, until_of
from services.sessions.models.feed import FeedEntry, FeedFilter, FeedSource
from services.sessions.models.log import AgentLog, SystemLog

# As clients of the earlier registry name the sources.
_EVENT_TYPES: Mapping[str, frozenset[FeedSource]] = {
    "all": frozenset({FeedSource.AGENT_LOG, FeedSource.ORCHESTRATOR_CHAT}),
    "agent_logs": frozenset({FeedSource.AGENT_LOG}),
    "system_logs": frozenset({FeedSource.SYSTEM_LOG}),
    "orchestrator_chat": frozenset({FeedSource.ORCHESTRATOR_CHAT}),
}


def list_filter(request: pb.ListFeedRequest) -> FeedFilter:
    """Which entries the caller wants to see."""
    return FeedFilter(
        _sources(request), stored_id(request.agent_id), request.task_slug, since_of(request), until_of(request)
    )


def watch_filter(request: pb.WatchFeedRequest) -> FeedFilter:
    """Which entries the caller wants to be told of."""
    return FeedFilter(_sources(request), stored_id(request.agent_id), request.task_slug)


def events_filter(request: pb.GetEventsRequest) -> FeedFilter:
    """Which entries a client of the earlier registry wants to see. Raises InvalidArgument."""
    names = [name.strip() for name in (request.event_types or "all").split(",")]
    strangers = [name for name in names if name not in _EVENT_TYPES]
    if strangers:
        description = f"names {strangers[0]!r}: use some of {', '.join(_EVENT_TYPES)}"
        raise InvalidArgument.of([Violation("event_types", description)])
    sources = frozenset().union(*(_EVENT_TYPES[name] for name in names))
    return FeedFilter(sources, stored_id(request.agent_id), request.task_slug)


def entry_message(entry: FeedEntry) -> pb.FeedEntry:
    """An entry as it is answered."""
    match entry:
        case AgentLog():
            return pb.FeedEntry(
                position=entry.position, source_type=pb.FEED_SOURCE_AGENT_LOG, agent_log=agent_log_message(entry)
            )
        case SystemLog():
            return pb.FeedEntry(
                position=entry.position, source_type=pb.FEED_SOURCE_SYSTEM_LOG, system_log=system_log_message(entry)
            )
    return pb.FeedEntry(
        position=entry.position,
        source_type=pb.FEED_SOURCE_ORCHESTRATOR_CHAT,
        orchestrator_chat=chat_message(entry),
    )


def _sources(request: pb.ListFeedRequest | pb.WatchFeedRequest) -> frozenset[FeedSource]:
    """All of them, unless some are named."""
    named = frozenset(from_enum(FeedSource, pb.FeedSource, number) for number in request.source_type)
    return named or frozenset(FeedSource)

"""Messages of the chat."""

from baton.sessions.v1 import chat_pb2
from baton.sessions.v1 import chat_service_pb2 as pb

from services.chassis.ids import stored_id
from services.chassis.structs import from_struct
from services.chassis.timestamps import to_timestamp
from services.sessions.convert.enums import from_enum, to_enum
from services.sessions.convert.log import free_message
from services.sessions.convert.spans import since_of, until_of
from services.sessions.models.chat import ChatFilter, ChatMessage, ChatParty, NewMessage


def new_message(request: pb.SendChatMessageRequest) -> NewMessage:
    """What the caller wants to say; as a person to the orchestrator, unless it says otherwise."""
    return NewMessage(
        message=request.message,
        sender_type=_party(request.sender_type) or ChatParty.USER,
        receiver_type=_party(request.receiver_type) or ChatParty.ORCHESTRATOR,
        orchestrator_agent_id=stored_id(request.orchestrator_agent_id) or None,
        agent_id=stored_id(request.agent_id) or None,
        summary=request.summary,
        metadata=from_struct(request.metadata) if request.HasField("metadata") else None,
    )


def chat_filter(request: pb.ListChatMessagesRequest) -> ChatFilter:
    """Which messages the caller wants to see."""
    return ChatFilter(
        orchestrator_agent_id=stored_id(request.orchestrator_agent_id),
        agent_id=stored_id(request.agent_id),
        sender_type=_party(request.sender_type),
        receiver_type=_party(request.receiver_type),
        since=since_of(request),
        until=until_of(request),
    )


def chat_message(message: ChatMessage) -> chat_pb2.ChatMessage:
    """A message as it is answered."""
    return chat_pb2.ChatMessage(
        id=message.id,
        position=message.position,
        orchestrator_agent_id=message.orchestrator_agent_id,
        sender_type=to_enum(message.sender_type, chat_pb2.ChatParty),
        receiver_type=to_enum(message.receiver_type, chat_pb2.ChatParty),
        agent_id=message.agent_id,
        message=message.message,
        summary=message.summary,
        metadata=free_message(message.metadata),
        sent_by=message.sent_by,
        created_at=to_timestamp(message.created_at),
    )


def _party(number: int) -> ChatParty | None:
    """None when it is not said."""
    return from_enum(ChatParty, chat_pb2.ChatParty, number) if number else None

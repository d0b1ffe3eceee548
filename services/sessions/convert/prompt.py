"""Prompts."""

from baton.sessions.v1 import prompt_pb2
from baton.sessions.v1 import prompt_service_pb2 as pb

from services.chassis.ids import stored_id
from services.chassis.timestamps import to_timestamp
from services.sessions.convert.enums import from_enum, to_enum
from services.sessions.convert.spans import since_of, until_of
from services.sessions.models.prompt import NewPrompt, Prompt, PromptAuthor, PromptFilter


def new_prompt(request: pb.RecordPromptRequest) -> NewPrompt:
    """What is to be recorded."""
    return NewPrompt(
        agent_id=stored_id(request.agent_id) or None,
        task_slug=request.task_slug,
        author=from_enum(PromptAuthor, prompt_pb2.PromptAuthor, request.author),
        prompt_text=request.prompt_text,
        summary=request.summary,
        session_id=request.session_id,
    )


def prompt_filter(request: pb.ListPromptsRequest) -> PromptFilter:
    """Which prompts the caller wants to see."""
    return PromptFilter(
        agent_id=stored_id(request.agent_id),
        author=from_enum(PromptAuthor, prompt_pb2.PromptAuthor, request.author) if request.author else None,
        task_slug=request.task_slug,
        session_id=request.session_id,
        since=since_of(request),
        until=until_of(request),
    )


def prompt_message(prompt: Prompt) -> prompt_pb2.Prompt:
    """A prompt as it is answered."""
    return prompt_pb2.Prompt(
        id=prompt.id,
        agent_id=prompt.agent_id,
        task_slug=prompt.task_slug,
        author=to_enum(prompt.author, prompt_pb2.PromptAuthor),
        prompt_text=prompt.prompt_text,
        summary=prompt.summary,
        session_id=prompt.session_id,
        recorded_by=prompt.recorded_by,
        timestamp=to_timestamp(prompt.timestamp),
    )

"""Recording what agents were told to do."""

import hashlib

from sqlalchemy import Connection

from services.chassis import outbox
from services.chassis.call import Caller
from services.chassis.clock import Clock
from services.chassis.ids import new_id
from services.sessions.errors import AgentArchived, PromptNotFound
from services.sessions.models.prompt import NewPrompt, Prompt, PromptAuthor, slug_of
from services.sessions.operations.agent import get_agent
from services.sessions.operations.holding import check_speaks_for
from services.sessions.store import agent as agent_store
from services.sessions.store import prompt as store
from services.sessions.store import tables


def record_prompt(
    connection: Connection, new: NewPrompt, recorder: Caller, clock: Clock, *, request_id: str = ""
) -> Prompt:
    """Stores a prompt. Raises AgentNotFound, AgentArchived, or ScopeMissing for one of the orchestrator's."""
    if new.agent_id is not None and get_agent(connection, agent_id=new.agent_id).is_archived:
        raise AgentArchived(new.agent_id)
    if new.author is PromptAuthor.ORCHESTRATOR_AGENT:
        orchestrator = agent_store.find_orchestrator(connection)
        check_speaks_for(recorder, orchestrator.id if orchestrator else "")
    now = clock.now()
    slug = new.task_slug or slug_of(new.prompt_text, now)
    prompt = Prompt(**vars(new) | {"task_slug": slug}, id=new_id(), recorded_by=recorder.agent_id, timestamp=now)
    store.add(connection, prompt)
    _audit(connection, clock, prompt, request_id)
    return prompt


def get_prompt(connection: Connection, *, prompt_id: str) -> Prompt:
    """The prompt, or PromptNotFound."""
    prompt = store.find(connection, prompt_id=prompt_id)
    if prompt is None:
        raise PromptNotFound(prompt_id)
    return prompt


def _audit(connection: Connection, clock: Clock, prompt: Prompt, request_id: str) -> None:
    told = {
        "agent_id": prompt.agent_id,
        "task_slug": prompt.task_slug,
        "author": prompt.author.value,
        "prompt_sha256": hashlib.sha256(prompt.prompt_text.encode()).hexdigest(),
    }
    outbox.audit(
        connection,
        tables.outbox,
        clock,
        action="prompt.record",
        actor=prompt.recorded_by,
        resource=f"prompt/{prompt.id}",
        after=told,
        request_id=request_id,
    )

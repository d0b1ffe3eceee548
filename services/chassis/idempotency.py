"""A repeated request has one effect and one answer.

The answer is stored with the caller, the method, the key and a fingerprint of the request, in the transaction
of the effect itself: either both are there or neither is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Connection, Table

from services.chassis import call
from services.chassis.answers import DELETE_BATCH, Answers, Asked
from services.chassis.auditing import Auditing, Author
from services.chassis.clock import Clock
from services.chassis.database import Database, Work
from services.chassis.errors import Aborted, ServiceError
from services.chassis.group_commit import MAX_GROUP, GroupCommit

_Q = TypeVar("_Q")
_R = TypeVar("_R", bound=Message)
_Done = tuple[_R, bool]
"""A response, and whether it was given before."""
GroupEffect = Callable[[Connection, Clock, Sequence[_Q]], Sequence[_R | ServiceError]]
"""A rule for several at once: for each a response, or the error that its caller gets."""


class Idempotency:
    """The remembered answers of one context, each for `ttl_seconds` after it was given."""

    def __init__(self, database: Database, table: Table, ttl_seconds: int, outbox: Table) -> None:
        self._database = database
        self._answers = Answers(table, timedelta(seconds=ttl_seconds))
        self._auditing = Auditing(outbox)

    async def once(
        self, request: Message, response_type: type[_R], effect: Work[_R], *, answer_is_secret: bool = False
    ) -> _R:
        """Runs `effect` in a transaction, unless the caller's `request_id` was used before: then answers the same.

        A replayed answer is marked on the current call. Raises InvalidArgument `IDEMPOTENCY_KEY_REUSED` when the
        key was used for another request, Aborted `IDEMPOTENCY_KEY_IN_FLIGHT` while the first one runs. A secret
        answer is not stored: its request, repeated, is Aborted `ANSWER_NOT_REPEATABLE`.
        """
        asked, author = Asked.in_current_call(request), Author.of_current_call(request)

        def audited(connection: Connection, clock: Clock) -> _R:
            return self._auditing.around(connection, clock, author, lambda: effect(connection, clock))

        if asked is None:
            return await self._database.transact(audited)

        def remembered(connection: Connection, clock: Clock) -> _Done[_R]:
            (answer,) = self._answers.recall(connection, clock, [asked])
            if isinstance(answer, ServiceError):
                raise answer
            if answer is None:
                response = audited(connection, clock)
                kept = b"" if answer_is_secret else response.SerializeToString()
                self._answers.keep(connection, clock, [(asked, kept)])
                return response, False
            if answer_is_secret:
                raise Aborted("this was done before, and its answer is shown only once", reason="ANSWER_NOT_REPEATABLE")
            return response_type.FromString(answer), True

        return _marked(await self._database.transact(remembered))

    async def earlier_answer(self, request: Message, response_type: type[_R]) -> _R | None:
        """The answer that the request's key had before, marked as `once` does; None when it is new. Raises as `once`.

        For what takes many transactions: ask first, do it, then `once` with an effect that only answers.
        """
        asked = Asked.in_current_call(request)
        if asked is None:
            return None
        (answer,) = await self._database.transact(
            lambda connection, clock: self._answers.recall(connection, clock, [asked])
        )
        if isinstance(answer, ServiceError):
            raise answer
        return None if answer is None else _marked((response_type.FromString(answer), True))

    def grouped(
        self, response_type: type[_R], effect: GroupEffect[_Q, _R], at_most: int = MAX_GROUP
    ) -> "GroupedOnce[_Q, _R]":
        """Like `once`, for a method whose concurrent calls, up to `at_most`, share transactions.

        Its rule writes no audit itself.
        """
        return GroupedOnce(self._database, self._answers, self._auditing, response_type, effect, at_most)

    async def forget_expired(self) -> float:
        """Deletes answers past their time, a thousand at once; a step for `loops.forever`."""
        deleted = await self._database.transact(self._answers.delete_expired)
        return 0.1 if deleted == DELETE_BATCH else 600.0


@dataclass(frozen=True)
class _Wanted(Generic[_Q]):
    """One of several calls that share a transaction."""

    asked: Asked | None
    author: Author
    item: _Q


class GroupedOnce(Generic[_Q, _R]):
    """One method's calls, of which those that come together are one transaction."""

    def __init__(
        self,
        database: Database,
        answers: Answers,
        auditing: Auditing,
        response_type: type[_R],
        effect: GroupEffect[_Q, _R],
        at_most: int,
    ) -> None:
        self._database = database
        self._answers = answers
        self._auditing = auditing
        self._response_type = response_type
        self._effect = effect
        self._group: GroupCommit[_Wanted[_Q], _Done[_R]] = GroupCommit(self._transact, at_most)

    async def once(self, request: Message, item: _Q) -> _R:
        """The effect's response for `item`, or the one that the key of `request` had before. Raises as `once`."""
        wanted = _Wanted(Asked.in_current_call(request), Author.of_current_call(request), item)
        return _marked(await self._group.add(wanted))

    async def _transact(self, group: Sequence[_Wanted[_Q]]) -> Sequence[_Done[_R] | Exception]:
        return await self._database.transact(lambda connection, clock: self._write(connection, clock, group))

    def _write(self, connection: Connection, clock: Clock, group: Sequence[_Wanted[_Q]]) -> list[_Done[_R] | Exception]:
        answers = self._answers.recall(connection, clock, [one.asked for one in group])
        new = [one for one, answer in zip(group, answers, strict=True) if answer is None]
        responses = self._effect(connection, clock, [one.item for one in new])
        done = [
            (one, response)
            for one, response in zip(new, responses, strict=True)
            if not isinstance(response, ServiceError)
        ]
        self._auditing.add(connection, clock, [(one.author, response) for one, response in done])
        kept = [(one.asked, response.SerializeToString()) for one, response in done if one.asked is not None]
        self._answers.keep(connection, clock, kept)
        left = iter(responses)
        return [self._done(next(left) if answer is None else answer) for answer in answers]

    def _done(self, answer: _R | ServiceError | bytes) -> _Done[_R] | Exception:
        match answer:
            case ServiceError():
                return answer
            case bytes():
                return self._response_type.FromString(answer), True
        return answer, False


def _marked(done: _Done[_R]) -> _R:
    response, is_replay = done
    if (serving := call.current.get()) is not None:
        serving.replayed = is_replay
    return response

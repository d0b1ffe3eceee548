"""Sends events to webhooks, as Standard Webhooks says (https://www.standardwebhooks.com)."""

from datetime import UTC, datetime, timedelta

import orjson
from standardwebhooks import Webhook as Signer

from services.chassis import retry_after
from services.chassis.clock import Clock, SystemClock
from services.chassis.egress import urls
from services.chassis.egress.client import Answer, Egress
from services.chassis.egress.errors import EgressFailed
from services.chassis.redaction import Redaction
from services.tasks.models.webhook import MAX_ERROR_LENGTH, Answered, Attempt

TIMEOUT_SECONDS = 10.0
_EXCERPT_CHARACTERS = 500
# So much is read of what an excerpt is made of: what is confidential is taken out of it before it is cut.
_EXCERPT_BYTES = 8192
_ASKS_FOR_TIME = (429, 503)


class WebhookSender:
    """Makes one attempt. The receiver's words are kept when it fails, the URL's are not: they may hold a secret."""

    def __init__(self, egress: Egress, clock: Clock | None = None) -> None:
        self._egress = egress
        self._clock = clock or SystemClock()

    async def send(self, attempt: Attempt) -> Answered:
        """What came of it; a status of 200 to 299 is a success, and nothing else is, redirects neither."""
        body = _body(attempt)
        headers = _headers(attempt, body, self._clock.now())
        status: int | None = None
        try:
            async with self._egress.request(
                "POST", attempt.url, headers=headers, body=body.encode(), timeout=TIMEOUT_SECONDS
            ) as answer:
                status = answer.status
                return await _judged(answer, Redaction(urls.confidential(answer.url)))
        except EgressFailed as failure:
            answered = "" if status is None else f"answered {status}, and then: "
            return Answered(status, f"{answered}{failure}"[:MAX_ERROR_LENGTH])


def _body(attempt: Attempt) -> str:
    told = {"type": attempt.topic, "timestamp": attempt.published_at, "data": dict(attempt.payload)}
    return orjson.dumps(told, option=orjson.OPT_UTC_Z).decode()


def _headers(attempt: Attempt, body: str, now: datetime) -> dict[str, str]:
    """The signatures are of all secrets that count: whoever knows one of them can check."""
    signatures = [Signer(secret).sign(attempt.delivery_id, now, body) for secret in attempt.secrets]
    return {
        "content-type": "application/json",
        "webhook-id": attempt.delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def _judged(answer: Answer, url: Redaction) -> Answered:
    if 200 <= answer.status < 300:
        return Answered(answer.status)
    words = await _excerpt(answer, url)
    hint = ", and redirects are not followed" if 300 <= answer.status < 400 else ""
    error = f"answered {answer.status}{hint}{words and ': '}{words}"[:MAX_ERROR_LENGTH]
    seconds = None
    if answer.status in _ASKS_FOR_TIME:
        seconds = retry_after.from_headers(answer.headers, datetime.now(UTC))
    return Answered(answer.status, error, timedelta(seconds=seconds or 0))


async def _excerpt(answer: Answer, url: Redaction) -> str:
    """The beginning of what the receiver says, in one line that any database keeps, and without its URL's secrets."""
    try:
        beginning = await answer.read_beginning(_EXCERPT_BYTES)
    except EgressFailed:
        return ""
    told = url.clean(beginning.decode(errors="replace"))
    text = "".join(char if char.isprintable() else " " for char in told)
    return " ".join(text.split())[:_EXCERPT_CHARACTERS]

"""How a request to somewhere else fails. The messages say nothing of the URL, which may hold a password."""


class EgressFailed(Exception):
    """A request that was not answered, or not with what can be used. The message is for people."""


class AddressRefused(EgressFailed):
    """The request must not be made: its URL, or one that it was redirected to, is none that may be reached."""


class NotReached(EgressFailed):
    """No connection could be made; trying again may help."""


class AnswerBroken(EgressFailed):
    """The answer is no HTTP, or ended too early."""


class AnswerTooLarge(EgressFailed):
    """The answer has more bytes than were asked for."""


class TooManyRedirects(EgressFailed):
    """One redirect led to another, more often than is followed."""


class TimedOut(EgressFailed):
    """The time for the whole request has passed."""

"""How the tests are shared out to the processes of the suite."""

import re

from xdist.scheduler import LoadScopeScheduling

_BATON = re.compile(r"\[.*?(\w+ baton)\b")


class Sharing(LoadScopeScheduling):
    """A file is for one process, and so is all that uses one Baton, whichever files that is in.

    Each Baton more takes the processors from all the others, even when nobody asks it for anything.
    """

    def _split_scope(self, nodeid: str) -> str:
        found = _BATON.search(nodeid)
        return found[1] if found else nodeid.partition("::")[0]

"""A worker as somebody else might have written it, over REST, which stands still at the worst of times.

`python -m tests.chaos.late_client URL TOKEN ROLE` leases a run and stops itself. Continued, it reports that the run has
succeeded, and stops itself again; continued again, it says so once more. It prints the lease and each receipt, a line
of JSON each.
"""

import json
import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import requests

SAYS = "what the late one did"


def main(url: str, token: str, role: str) -> None:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"

    def call(path: str, body: dict[str, Any]) -> Any:
        response = session.post(url + path, json=body, timeout=60)
        assert response.status_code == 200, response.text
        return response.json()

    (leased,) = call("/runs:lease", {"worker_id": str(uuid4()), "wait_seconds": 30, "role": role})["runs"]
    _print(leased["lease"])
    now = datetime.now(UTC).isoformat()
    step = {"position": 0, "id": "step_1", "uses": "effects.last", "status": "succeeded", "attempt": 1, "output": SAYS}
    done = {"steps": [step | {"started_at": now, "finished_at": now}], "succeeded": {"output": {"said": SAYS}}}
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGSTOP)
        (receipt,) = call("/runs:report", {"reports": [{"lease": leased["lease"], **done}]})["receipts"]
        _print(receipt)


def _print(answer: Any) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

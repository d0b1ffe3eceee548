"""What children have in common, imported once by the process that they are forked from."""

import services.chassis.exposition
import services.gateway.app
import services.gateway.server
import services.sessions.service
import services.tasks.service
import services.workflows.service  # noqa: F401

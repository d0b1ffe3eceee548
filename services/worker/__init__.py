"""The worker: leases runs from the tasks service, runs their pipelines, reports what it did. It keeps nothing."""

import os

# Tool servers are started by fork and exec. gRPC's fork handlers serve children that go on to use gRPC; these do not,
# and the handlers write to the console. gRPC reads this when it is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

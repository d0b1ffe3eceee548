"""Baton: three gRPC services, a worker, a gateway, and what they share."""

import os

# Nobody here forks in order to go on using gRPC: tool servers are forked and executed. gRPC's fork handlers would write
# to the console, and now and then take such a server down before it has begun. Read by gRPC when it is first used.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

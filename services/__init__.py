"""Baton: three gRPC services, a worker, a gateway, and what they share."""

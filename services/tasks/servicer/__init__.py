"""The tasks context on the wire: one servicer per gRPC service."""

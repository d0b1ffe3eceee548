"""REST/JSON/CSV in, gRPC out. Everything it knows of any context it reads from that context's descriptors."""

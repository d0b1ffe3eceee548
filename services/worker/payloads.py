"""The pipelines of leased runs."""

from functools import lru_cache

from google.protobuf.struct_pb2 import Struct

from services.chassis import structs
from services.pipeline.definition import Pipeline, parse

# Runs of one task have the same payload: it is read and checked once. Large ones are rare and would take much memory.
_CACHED = 512
_MAX_CACHED_BYTES = 16 * 1024


def read(payload: Struct) -> Pipeline:
    """The payload as a pipeline, which runs may share: nothing in it may be changed. Raises ValidationFault."""
    serialized = payload.SerializeToString(deterministic=True)
    return _read(serialized) if len(serialized) > _MAX_CACHED_BYTES else _cached(serialized)


@lru_cache(_CACHED)
def _cached(payload: bytes) -> Pipeline:
    return _read(payload)


def _read(payload: bytes) -> Pipeline:
    return parse(structs.from_struct(Struct.FromString(payload)))

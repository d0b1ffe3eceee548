"""How long one message takes from protobuf to JSON bytes and back, against protobuf's own json_format.

Start it with: PYTHONPATH=.:gen .venv/bin/python bench/transcode.py
"""

import timeit
from collections.abc import Callable
from typing import Any

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.message_factory import GetMessageClass

from services.gateway.transcode.parser import Parsers
from services.gateway.transcode.printer import Printers

REPEATS = 5
LIST_LENGTH = 100


def item_class() -> Any:
    """A message of 20 fields as a resource typically has them, and `Items`, which lists it."""
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    file.dependency.extend([struct_pb2.DESCRIPTOR.name, timestamp_pb2.DESCRIPTOR.name])
    states = file.enum_type.add(name="State")
    for number, name in enumerate(("UNSPECIFIED", "QUEUED", "RUNNING", "DONE")):
        states.value.add(name=f"STATE_{name}", number=number)
    kinds = [(Field.TYPE_STRING, "")] * 8 + [(Field.TYPE_INT32, "")] * 3
    kinds += [(Field.TYPE_INT64, ""), (Field.TYPE_BOOL, ""), (Field.TYPE_ENUM, ".bench.State")]
    kinds += [(Field.TYPE_MESSAGE, ".google.protobuf.Timestamp")] * 4
    kinds += [(Field.TYPE_MESSAGE, ".google.protobuf.Struct")]
    item = file.message_type.add(name="Item")
    for number, (kind, name) in enumerate(kinds, 1):
        item.field.add(name=f"f{number}", number=number, type=kind, type_name=name or None)
    item.field.add(name="f20", number=20, type=Field.TYPE_STRING, label=Field.LABEL_REPEATED)
    items = file.message_type.add(name="Items")
    items.field.add(
        name="items", number=1, type=Field.TYPE_MESSAGE, label=Field.LABEL_REPEATED, type_name=".bench.Item"
    )
    pool = descriptor_pool.Default()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("bench.Items"))


def fill(message: Any) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            getattr(message, field.name).extend(["one", "two"])
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, f"value of {field.name}, as long as an id mostly is")
        elif field.message_type is None:
            setattr(message, field.name, 1)
        elif field.message_type.name == "Timestamp":
            getattr(message, field.name).FromNanoseconds(1_767_323_045_123_456_000 + field.number * 1_000_000_000)
        else:
            getattr(message, field.name).update({"region": "eu", "size": 3})


def microseconds(work: Callable[[], object]) -> float:
    timer = timeit.Timer(work)
    number, _ = timer.autorange()
    return min(timer.repeat(REPEATS, max(1, number // 4))) / max(1, number // 4) * 1e6


def compare(title: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    compiled, reference = microseconds(ours), microseconds(theirs)
    print(f"{title:26}{compiled:10.1f}{reference:14.1f}{reference / compiled:8.1f}x")


def measure(title: str, message: Any) -> None:
    message_class, print_message = type(message), Printers().of(message.DESCRIPTOR)
    read = Parsers().of(message.DESCRIPTOR)
    data = orjson.dumps(print_message(message))
    reference = json_format.MessageToJson(message, preserving_proto_field_name=True)
    compare(
        f"{title}, out",
        lambda: orjson.dumps(print_message(message)),
        lambda: orjson.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True)),
    )
    compare(
        f"{title}, in",
        lambda: read(message_class(), orjson.loads(data), 0),
        lambda: json_format.Parse(reference, message_class()),
    )


def main() -> None:
    print(f"{'microseconds':26}{'compiled':>10}{'json_format':>14}")
    items = item_class()()
    fill(items.items.add())
    measure("one message of 20 fields", items.items[0])
    items.items.extend([items.items[0]] * (LIST_LENGTH - 1))
    measure(f"a list of {LIST_LENGTH}", items)


if __name__ == "__main__":
    main()

"""Text from a path or a query onto a message: `status=queued&status=running`, `window.since=...`."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.gateway.transcode import scalars, times
from services.gateway.transcode.faults import Fault, Faults
from services.gateway.transcode.field_masks import read_field_mask
from services.gateway.transcode.parser import each, unknown
from services.gateway.transcode.printer import map_entry
from services.gateway.transcode.wrappers import WRAPPED, wrapper_reader

PutTexts = Callable[[Message, list[str]], None]
"""Puts the texts given for one field into a message. Raises Faults."""

_MAX_PARAMETERS = 1000
_FillFromText = Callable[[Any, str], None]
_WELL_KNOWN: Mapping[str, _FillFromText] = {
    "google.protobuf.Timestamp": times.read_query_timestamp,
    "google.protobuf.Duration": times.read_duration,
    "google.protobuf.FieldMask": read_field_mask,
    **{name: wrapper_reader(scalars.text_reader(field)) for name, field in WRAPPED.items()},
}


def text_fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """The fields that text can fill, by dotted path: scalars, messages that are one text in JSON, and lists of them;
    in this message and, unless it is repeated or holds itself, in the messages within."""
    return {".".join(names): field for names, field in _walk(descriptor, (), ())}


def _walk(
    descriptor: Descriptor, names: tuple[str, ...], around: tuple[Descriptor, ...]
) -> list[tuple[tuple[str, ...], FieldDescriptor]]:
    found = []
    for field in descriptor.fields:
        inner = field.message_type
        if inner is None or inner.full_name in _WELL_KNOWN:
            found.append(((*names, field.name), field))
        elif not (field.is_repeated or map_entry(field) or inner in around or inner.full_name.startswith("google.")):
            found += _walk(inner, (*names, field.name), (*around, descriptor))
    return found


def text_putter(path: str, field: FieldDescriptor) -> PutTexts:
    """What fills the field at the dotted `path`."""
    put = _put_repeated(field) if field.is_repeated else _alone(field, _put_one(field))
    parent = path.rpartition(".")[0]
    if not parent:
        return put
    get_parent = attrgetter(parent)

    def put_nested(message: Message, texts: list[str]) -> None:
        inner = get_parent(message)
        inner.SetInParent()
        put(inner, texts)

    return put_nested


def _alone(field: FieldDescriptor, put: PutTexts) -> PutTexts:
    """Refuses a second field of a oneof, of which only one can be kept."""
    oneof = field.containing_oneof
    if oneof is None or len(oneof.fields) == 1:
        return put
    name, members = oneof.name, ", ".join(member.name for member in oneof.fields)

    def put_first(message: Message, texts: list[str]) -> None:
        if message.WhichOneof(name) is not None:
            raise Faults.of(f"only one of {members} may be given")
        put(message, texts)

    return put_first


def _filler(field: FieldDescriptor) -> _FillFromText | None:
    """What fills one value of a field that is a message; None for a scalar."""
    return _WELL_KNOWN[field.message_type.full_name] if field.message_type is not None else None


def _put_one(field: FieldDescriptor) -> PutTexts:
    name, fill = field.name, _filler(field)
    read = None if fill else scalars.text_reader(field)

    def put(message: Message, texts: list[str]) -> None:
        if len(texts) > 1:
            raise Faults.of("is given more than once")
        if read is not None:
            setattr(message, name, read(texts[0]))
        elif fill is not None:
            inner = getattr(message, name)
            # Given, even when it is what the type is anyway: false, or nothing.
            inner.SetInParent()
            fill(inner, texts[0])

    return put


def _put_repeated(field: FieldDescriptor) -> PutTexts:
    name, fill = field.name, _filler(field)
    if fill is not None:
        return lambda message, texts: each(texts, lambda text: fill(getattr(message, name).add(), text))
    read = scalars.text_reader(field)
    return lambda message, texts: each(texts, lambda text: getattr(message, name).append(read(text)))


def fill_from_query(message: Message, query: bytes, puts: Mapping[str, PutTexts], refused: Mapping[str, str]) -> None:
    """Puts every parameter of a query into `message`; `refused` says of names why they cannot be given so."""
    faults: list[Fault] = []
    for name, texts in _grouped(query).items():
        try:
            if name not in puts:
                raise Faults.of(refused.get(name) or unknown(puts))
            puts[name](message, texts)
        except Faults as wrong:
            faults += wrong.at(name)
    if faults:
        raise Faults(faults)


def _grouped(query: bytes) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except UnicodeError:
        raise Faults([("query", "must be percent-encoded UTF-8")]) from None
    except ValueError:
        raise Faults([("query", f"must not have more than {_MAX_PARAMETERS} parameters")]) from None
    for name, text in pairs:
        groups.setdefault(name, []).append(text)
    return groups

"""The messages of ABCI, as protobuf classes made when this module is loaded from the files in `proto`.

There is no generated code, because that is tied to one version of the protobuf library; the classes are
those of its C implementation all the same. The language of the files is the part of proto3 that they need:
messages, one `oneof`, `repeated`, enums.
"""

import re
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, duration_pb2, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

FOLDER = Path(__file__).with_name("proto")
FILES = ("crypto.proto", "types.proto", "abci.proto")
"""In the order in which they need each other."""

_BUILT_IN = {"google.protobuf.Timestamp": timestamp_pb2, "google.protobuf.Duration": duration_pb2}
_SCALARS = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}
_PACKAGE = re.compile(r"^package ([\w.]+);", re.MULTILINE)
_BLOCK = re.compile(r"^(message|enum) (\w+) \{(\}|.*?^\})", re.MULTILINE | re.DOTALL)
_ONEOF = re.compile(r"oneof (\w+) \{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"(repeated )?([\w.]+) (\w+) = (\d+);")
_VALUE = re.compile(r"(\w+) = (\d+);")


class _Files:
    """Reads the files one after the other; a type is known once its file or its place in the file is read."""

    def __init__(self) -> None:
        self.pool = descriptor_pool.DescriptorPool()
        self._enums: set[str] = set()
        self._messages: set[str] = set(_BUILT_IN)
        for module in _BUILT_IN.values():
            self.pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)

    def add(self, path: Path, before: tuple[str, ...]) -> list[str]:
        """Add a file that may use those `before` it; gives the full names of its messages."""
        text = path.read_text(encoding="utf-8")
        found = _PACKAGE.search(text)
        assert found is not None, f"{path.name} names its package"
        package = found[1]
        dependencies = [*before, *(module.DESCRIPTOR.name for module in _BUILT_IN.values())]
        file = FileDescriptorProto(name=path.name, package=package, syntax="proto3", dependency=dependencies)
        blocks = _BLOCK.findall(text + "\n")
        for kind, name, _ in blocks:
            (self._enums if kind == "enum" else self._messages).add(f"{package}.{name}")
        for kind, name, body in blocks:
            if kind == "enum":
                values = file.enum_type.add(name=name).value
                for value, number in _VALUE.findall(body):
                    values.add(name=value, number=int(number))
            else:
                self._fill(file.message_type.add(name=name), body, package)
        self.pool.AddSerializedFile(file.SerializeToString())
        return [f"{package}.{name}" for kind, name, _ in blocks if kind == "message"]

    def _fill(self, message: DescriptorProto, body: str, package: str) -> None:
        choice = _ONEOF.search(body)
        if choice is not None:
            message.oneof_decl.add(name=choice[1])
        for repeated, kind, name, number in _FIELD.findall(body):
            field = message.field.add(name=name, number=int(number))
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                full = kind if "." in kind else f"{package}.{kind}"
                assert full in self._messages or full in self._enums, f"{full} is read before it is used"
                field.type = field.TYPE_ENUM if full in self._enums else field.TYPE_MESSAGE
                field.type_name = f".{full}"
            if choice is not None:
                field.oneof_index = 0


def _load() -> dict[str, Any]:
    files = _Files()
    classes: dict[str, Any] = {}
    for number, name in enumerate(FILES):
        for full in files.add(FOLDER / name, FILES[:number]):
            descriptor = files.pool.FindMessageTypeByName(full)
            classes[full.rpartition(".")[2]] = message_factory.GetMessageClass(descriptor)
    return classes


CLASSES = _load()
"""Message classes by their short names, e.g. `RequestInfo`. protobuf's classes have no static types."""

Request: Any = CLASSES["Request"]
Response: Any = CLASSES["Response"]
Timestamp: Any = CLASSES["RequestFinalizeBlock"]().time.__class__

NEW, RECHECK = 0, 1
"""`RequestCheckTx.type`."""
ACCEPT, REJECT = 1, 2
"""`ResponseProcessProposal.status`, and the vote extension's."""

"""Messages of ``inference.proto``, made from its descriptors in a pool of their own.

The Python that protoc writes would register them in the one pool that a process has, where another
package's messages of the same names (those of a client of the same protocol, say) could not be
registered any more. It is also tied to versions of protobuf's runtime; descriptors are not.

``inference.binpb`` and this module's stub, which lists the messages, are made by ``just proto``.
"""

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message_factory import GetMessageClass

_files = FileDescriptorSet.FromString(files(__package__).joinpath("inference.binpb").read_bytes())
_pool = DescriptorPool()
for _file in _files.file:
    _pool.Add(_file)
DESCRIPTOR = _pool.FindFileByName(_files.file[0].name)
for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = GetMessageClass(_message)
for _name, _enum in DESCRIPTOR.enum_types_by_name.items():
    globals()[_name] = EnumTypeWrapper(_enum)
    globals().update({value.name: value.number for value in _enum.values})

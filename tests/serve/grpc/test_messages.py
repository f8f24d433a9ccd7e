"""Our .proto against the real client's messages, and what is made from it against the .proto."""

import ast
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2

from apparate_jax.serve.grpc import inference_pb2

FOLDER = Path(inference_pb2.__file__).parent
THEIRS = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)


def flat(messages):
    """Messages and those inside of them, by full name."""
    for message in messages:
        yield message.full_name, message
        yield from flat(message.nested_types)


OURS = dict(flat(inference_pb2.DESCRIPTOR.message_types_by_name.values()))
KNOWN = {
    name: message for file in THEIRS for name, message in flat(file.message_types_by_name.values())
}


def shape_of(field):
    """All that decides how a field travels."""
    kind = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (
        field.number,
        field.type,
        field.is_repeated,
        kind and kind.full_name,
        oneof and oneof.name,
    )


@pytest.mark.parametrize("name", OURS)
def test_fields_are_those_of_the_protocol(name):
    theirs = KNOWN[name].fields_by_name
    for field in OURS[name].fields:
        assert shape_of(field) == shape_of(theirs[field.name]), field.full_name


@pytest.mark.parametrize(
    "name", ["ModelInferRequest", "ModelInferResponse", "InferTensorContents", "InferParameter"]
)
def test_no_field_of_inference_is_left_out(name):
    ours, theirs = OURS[f"inference.{name}"], KNOWN[f"inference.{name}"]
    assert set(ours.fields_by_name) == set(theirs.fields_by_name)


def test_calls_are_those_of_the_protocol():
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    ours = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    for method in ours:
        other = theirs[method.name]
        for ours_of, theirs_of in (
            (method.input_type.full_name, other.input_type.full_name),
            (method.output_type.full_name, other.output_type.full_name),
            (method.client_streaming, other.client_streaming),
            (method.server_streaming, other.server_streaming),
        ):
            assert ours_of == theirs_of, method.full_name
    unknown = set(theirs) - {method.name for method in ours}
    assert all("SharedMemory" in name or "Setting" in name for name in unknown)


def test_datatypes_are_those_of_the_protocol():
    assert inference_pb2.DataType.items() == model_config_pb2.DataType.items()
    assert inference_pb2.TYPE_BF16 == model_config_pb2.TYPE_BF16


def test_descriptors_are_made_from_the_proto(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    made = tmp_path / "made.binpb"
    status = protoc.main(
        ["protoc", f"-I{FOLDER}", f"--descriptor_set_out={made}", "inference.proto"]
    )
    assert status == 0
    fresh = FileDescriptorSet.FromString(made.read_bytes())
    kept = FileDescriptorSet.FromString((FOLDER / "inference.binpb").read_bytes())
    assert fresh == kept, "the .proto has changed: just proto"


def test_the_stub_lists_every_message_with_its_fields():
    tree = ast.parse((FOLDER / "inference_pb2.pyi").read_text(encoding="utf-8"))

    def classes(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef):
                slots = next(n.value for n in node.body if isinstance(n, ast.Assign))
                yield f"{prefix}.{node.name}", set(ast.literal_eval(slots))
                yield from classes(node.body, f"{prefix}.{node.name}")

    found = dict(classes(tree.body, "inference"))
    for name, message in OURS.items():
        assert found[name] == set(message.fields_by_name), f"{name} in the stub: just proto"


def test_messages_share_a_process_with_the_clients_own():
    ours = inference_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"\0"])
    ours.parameters["timeout"].int64_param = 5
    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    assert (theirs.model_name, theirs.parameters["timeout"].int64_param) == ("m", 5)
    assert type(theirs) is not type(ours)

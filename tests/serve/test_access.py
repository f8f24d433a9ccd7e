"""Who may ask: keys in every place they may be in, files of keys, certificates."""

import asyncio
import ssl

import grpc
import httpx
import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from apparate_jax.errors import ConfigError
from apparate_jax.serve.access import ApiKeys, Tls, read_keys
from apparate_jax.serve.grpc.access import RequireKey as GrpcRequireKey
from apparate_jax.serve.http.access import RequireKey

KEY, OTHER = "k" * 32, "o" * 32


def test_a_key_is_taken_from_either_header():
    keys = ApiKeys([OTHER, KEY])
    for authorization, api_key in (
        (f"Bearer {KEY}", None),
        (f"bearer {KEY} ", None),
        (None, KEY),
        (f"Bearer {OTHER}", KEY),
        ("Basic abc", KEY),
    ):
        assert keys.allow(authorization, api_key)
    for authorization, api_key in (
        (None, None),
        (KEY, None),
        ("Bearer", None),
        ("Bearer ", None),
        (f"Bearer {KEY[:-1]}", None),
        (f"Bearer {KEY}x", None),
        (None, KEY.upper()),
        (None, "schlüssel" * 4),
    ):
        assert not keys.allow(authorization, api_key)


def test_keys_are_read_from_a_file(tmp_path, caplog):
    file = tmp_path / "keys"
    file.write_text(f"# made in May\nalice {KEY}\n\n{OTHER}  # the dashboard's\n")
    file.chmod(0o600)
    assert len(read_keys(file)) == 2 and read_keys(file).allow(None, OTHER)
    assert not caplog.text
    file.chmod(0o644)
    read_keys(file)
    assert "can be read by others" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no API key"), ("short", "5 characters, expected at least 16"), ("a b c", "3 words")],
)
def test_files_without_good_keys_are_refused(tmp_path, text, said):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        read_keys(tmp_path / "keys")
    assert "short" not in str(error.value), "a key is never printed"
    with pytest.raises(ConfigError, match="cannot read the API keys"):
        read_keys(tmp_path / "none")


def test_http_needs_a_key_for_everything_but_health():
    async def answer(request):
        return PlainTextResponse("here")

    app = RequireKey(
        Starlette(routes=[Route("/v2", answer), Route("/v2/health/live", answer)]), ApiKeys([KEY])
    )

    async def ask(path, **headers):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)

    assert asyncio.run(ask("/v2/health/live")).status_code == 200
    assert asyncio.run(ask("/v2", **{"X-API-Key": KEY})).text == "here"
    refused = asyncio.run(ask("/v2", Authorization=f"Bearer {OTHER}"))
    assert refused.status_code == 401 and "no valid API key" in refused.json()["error"]
    assert refused.headers["www-authenticate"] == "Bearer"


def test_grpc_needs_a_key_for_every_kind_of_call():
    async def run():
        server = grpc.aio.server(interceptors=[GrpcRequireKey(ApiKeys([KEY]))])

        async def unary(request, context):
            return b"here"

        async def stream(request, context):
            yield b"here"

        names = {
            "One": grpc.unary_unary_rpc_method_handler(unary),
            "ServerLive": grpc.unary_unary_rpc_method_handler(unary),
            "Many": grpc.stream_stream_rpc_method_handler(stream),
        }
        service = "inference.GRPCInferenceService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, names),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        found = {}
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for name in names:
                for key in (KEY, OTHER):
                    make = channel.stream_stream if name == "Many" else channel.unary_unary
                    call = make(f"/{service}/{name}")
                    given = iter([b""]) if name == "Many" else b""
                    try:
                        made = call(given, metadata=(("authorization", f"Bearer {key}"),))
                        value = [x async for x in made] if name == "Many" else await made
                        found[name, key] = value
                    except grpc.aio.AioRpcError as error:
                        found[name, key] = error.code()
        await server.stop(None)
        return found

    refused = grpc.StatusCode.UNAUTHENTICATED
    assert asyncio.run(run()) == {
        ("One", KEY): b"here",
        ("One", OTHER): refused,
        ("ServerLive", KEY): b"here",
        ("ServerLive", OTHER): b"here",
        ("Many", KEY): [b"here"],
        ("Many", OTHER): refused,
    }


def test_certificates_are_checked_when_they_are_read(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    assert Tls(cert, key).context().verify_mode is ssl.CERT_NONE
    assert Tls(cert, key, ca).context().verify_mode is ssl.CERT_REQUIRED
    assert Tls(cert, key, ca).grpc_credentials() is not None
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(other)
    for wrong in (Tls(cert, other), Tls(tmp_path / "none", key), Tls(cert, key, key)):
        with pytest.raises(ConfigError, match="cannot use the certificates"):
            wrong.context()

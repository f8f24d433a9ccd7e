"""A whole server from its settings: models on both ports, as clients and operators see them."""

import contextlib
import shutil
import ssl
import threading
import time

import httpx
import numpy as np
import pytest
import tritonclient.grpc as tritongrpc
import tritonclient.http as tritonhttp
import trustme
from tritonclient.utils import InferenceServerException

from apparate_jax.errors import CheckpointError, ConfigError
from apparate_jax.serve.listen import open_socket
from apparate_jax.serve.server import Server
from apparate_jax.serve.settings import read_settings
from tests.serve.repository import made

KEY = "k" * 32
X = made.EXAMPLE["x"][None]


def settings(models, **given):
    tables = {
        name: {"path": path, "batch_sizes": [1, 2], "ramp_budget": 100.0}
        for name, path in models.items()
    }
    return read_settings(
        given={"http_port": 0, "grpc_port": 0, "models": tables, **given}, environment={}
    )


@contextlib.contextmanager
def running(models, **given):
    """The server in a thread; ends it as a signal would."""
    ready, found = threading.Event(), []

    def on_ready(one):
        found.append(one)
        ready.set()

    with Server(settings(models, **given)) as server:
        server.load()
        thread = threading.Thread(target=server.run, args=(on_ready,), daemon=True)
        thread.start()
        assert ready.wait(30)
        try:
            yield found[0], server
        finally:
            for frontend in (server._http, server._grpc):
                if frontend is not None:
                    frontend.stop()
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {times: made.save(root / str(times), times) for times in (1, 2, 3)}


@pytest.fixture(scope="module")
def server(places, tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    shutil.copytree(places[1], root / "one")
    shutil.copytree(places[2], root / "two")
    models = {"one": root / "one", "two": root / "two"}
    with running(models, model_control=True, state_dir=root / "state") as (found, whole):
        yield found, root, whole


@pytest.fixture(scope="module")
def http(server):
    with tritonhttp.InferenceServerClient(server[0].http.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def grpc(server):
    with tritongrpc.InferenceServerClient(server[0].grpc.removeprefix("grpc://")) as client:
        yield client


def ask(client, name="one", rows=1, **options):
    module = tritonhttp if isinstance(client, tritonhttp.InferenceServerClient) else tritongrpc
    given = module.InferInput("x", [rows, X.shape[1]], "FP32")
    given.set_data_from_numpy(np.repeat(X, rows, axis=0))
    parameters = {"accuracy": "exact", **options}
    return client.infer(name, [given], parameters=parameters).as_numpy("logits")[0]


def test_models_are_told_apart_on_both_ports(http, grpc):
    for client in (http, grpc):
        one, two = ask(client, "one"), ask(client, "two")
        np.testing.assert_allclose(two, 2 * one, rtol=1e-4)
        assert client.is_model_ready("one") and client.is_model_ready("two")
        index = client.get_model_repository_index()
        names = [e["name"] if client is http else e.name for e in getattr(index, "models", index)]
        assert sorted(names) == ["one", "two"]


def test_statistics_count_what_was_asked(server, http, grpc):
    def counts(client):
        for model in server[2]._repository._models.values():
            for deployment in model.running.values():
                # a batch is counted once it has run to its end
                assert deployment._engine.wait_idle(30)
        found = client.get_inference_statistics("two", "1")
        (stats,) = found["model_stats"] if client is http else found.model_stats
        if client is http:
            inner = stats["inference_stats"]
            return stats["inference_count"], inner["success"]["count"], inner["success"]["ns"]
        inner = stats.inference_stats
        return stats.inference_count, inner.success.count, inner.success.ns

    before = counts(http)
    ask(http, "two", rows=3)
    ask(grpc, "two")
    after = counts(grpc)
    assert after[0] - before[0] == 4 and after[1] - before[1] == 2
    assert after[2] > before[2]
    assert len(http.get_inference_statistics()["model_stats"]) == 2


def test_metrics_status_and_page(server, http):
    ask(http, "two")
    with httpx.Client(base_url=server[0].http) as client:
        metrics = client.get("/metrics").text
        assert 'nv_inference_request_success_total{model="two",version="1"}' in metrics
        assert 'apparate_ramp_active{model="one"' in metrics
        status = client.get("/apparate/status").json()
        assert {one["name"] for one in status["models"]} == {"one", "two"}
        assert "<html" in client.get("/").text


def test_a_model_is_reloaded_unloaded_and_loaded_again(server, places, http, grpc):
    place = server[1] / "one"
    before = ask(http)
    shutil.rmtree(place)
    shutil.copytree(places[3], place)
    grpc.load_model("one")
    np.testing.assert_allclose(ask(http), 3 * before, rtol=1e-4)
    http.unload_model("one")
    for client in (http, grpc):
        with pytest.raises(InferenceServerException, match="not ready: unloaded"):
            ask(client)
        ask(client, "two")
    assert http.is_server_ready(), "what was unloaded is not missed"
    with pytest.raises(InferenceServerException, match="model 'three' is unknown"):
        http.load_model("three")
    http.load_model("one")
    np.testing.assert_allclose(ask(grpc), 3 * before, rtol=1e-4)


def test_reloads_under_load_lose_nothing(server, places, http):
    """Clients on both ports ask all the time while the checkpoint changes."""
    place, own = server[1] / "one", ask(http, "two") / 2
    stop, errors, found = threading.Event(), [], [[], []]

    def keep_asking(make, address, mine):
        try:
            with make(address) as client:
                while not stop.is_set():
                    mine.append(round(float((ask(client) / own).mean()), 2))
        except Exception as error:
            errors.append(error)

    running_ = server[0]
    clients = (
        (tritonhttp.InferenceServerClient, running_.http.removeprefix("http://")),
        (tritongrpc.InferenceServerClient, running_.grpc.removeprefix("grpc://")),
    )
    threads = [
        threading.Thread(target=keep_asking, args=(*one, mine))
        for one, mine in zip(clients, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    for times in (1, 2, 3):
        fresh = server[1] / f".{times}"
        shutil.copytree(places[times], fresh)
        shutil.rmtree(place)
        fresh.rename(place)
        http.load_model("one")
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not errors
    for mine in found:
        assert set(mine) <= {1.0, 2.0, 3.0} and {1.0, 2.0, 3.0} <= set(mine)


def test_clients_may_load_models_only_where_they_are_allowed_to(places):
    with running({"one": places[1]}, grpc_port="off") as (found, _):
        with tritonhttp.InferenceServerClient(found.http.removeprefix("http://")) as client:
            with pytest.raises(InferenceServerException, match="or send it SIGHUP"):
                client.unload_model("one")
            assert ask(client).shape == (3,)
    assert found.grpc is None


def test_keys_and_certificates_are_asked_for(places, tmp_path):
    authority = trustme.CA()
    issued, mine = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example")
    pem = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "client_ca", "mine")}
    issued.cert_chain_pems[0].write_to_path(pem["cert"])
    issued.private_key_pem.write_to_path(pem["key"])
    authority.cert_pem.write_to_path(pem["client_ca"])
    mine.private_key_and_cert_chain_pem.write_to_path(pem["mine"])
    (tmp_path / "keys").write_text(KEY)
    (tmp_path / "keys").chmod(0o600)
    tls = {name: pem[name] for name in ("cert", "key", "client_ca")}
    with running({"one": places[1]}, tls=tls, api_keys_file=tmp_path / "keys") as (found, _):
        assert found.http.startswith("https://") and found.grpc.startswith("grpcs://")
        trust = ssl.create_default_context(cafile=str(pem["client_ca"]))
        with pytest.raises(httpx.HTTPError), httpx.Client(verify=trust) as client:
            client.get(f"{found.http}/v2/health/live")
        trust.load_cert_chain(pem["mine"])
        with httpx.Client(verify=trust, base_url=found.http) as client:
            assert client.get("/v2/health/ready").status_code == 200
            assert client.get("/v2/models/one").status_code == 401
            assert client.get("/metrics").status_code == 401
            assert client.get("/v2/models/one", headers={"X-API-Key": KEY}).status_code == 200
        with tritongrpc.InferenceServerClient(
            found.grpc.removeprefix("grpcs://"),
            ssl=True,
            root_certificates=str(pem["client_ca"]),
            private_key=str(pem["mine"]),
            certificate_chain=str(pem["mine"]),
        ) as client:
            assert client.is_server_ready()
            with pytest.raises(InferenceServerException, match="no valid API key"):
                client.get_model_metadata("one")
            found_ = client.get_model_metadata("one", headers={"authorization": f"Bearer {KEY}"})
            assert found_.name == "one"


@pytest.mark.parametrize("asked", [True, False])
def test_cores_are_pinned_where_that_is_asked_for(places, asked, monkeypatch):
    pinned = []
    monkeypatch.setattr("apparate_jax.serve.server.pin_pool", lambda: pinned.append(True))
    with Server(settings({"one": places[1]}, pin_cores=asked)) as server:
        assert not pinned
        server.load()
    assert pinned == [True] * asked


def test_what_cannot_be_served_is_said_at_once(places, tmp_path):
    with pytest.raises(ConfigError, match="no model is named"):
        Server(settings({}))
    with pytest.raises(ConfigError, match="both off"):
        Server(settings({"one": places[1]}, http_port="off", grpc_port="off"))
    with open_socket("127.0.0.1", 0) as sock:
        sock.listen()
        with pytest.raises(ConfigError, match="is in use"):
            Server(settings({"one": places[1]}, http_port=sock.getsockname()[1]))
    with Server(settings({"one": tmp_path / "none"})) as server:
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            server.load()

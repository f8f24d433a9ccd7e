"""Settings: the file, the environment and what was typed; every mistake is named."""

import pytest

from apparate_jax.control.config import ControlConfig
from apparate_jax.errors import ConfigError
from apparate_jax.serve.service import ServiceConfig
from apparate_jax.serve.settings import read_settings

FILE = """
http_port = 80
grpc_port = "off"
state_dir = "/var/lib/apparate"

[limits]
max_body_bytes = 1000

[defaults]
accuracy = 0.98
batch_sizes = [4, 1]

[models.sentiment]
path = "/models/sentiment"
promise = "window"
queue_size = 7

[models.topic]
path = "/models/topic"
accuracy = 0.999
versions = ["3"]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(FILE)
    return path


def test_a_file_says_how_models_are_served(file):
    settings = read_settings(file, environment={})
    assert (settings.http_port, settings.grpc_port) == (80, "off")
    assert settings.http_limits().max_body_bytes == 1000
    sentiment, topic = settings.model_configs()
    assert sentiment.name == "sentiment" and str(sentiment.path) == "/models/sentiment"
    assert sentiment.service.control.accuracy == 0.98
    assert sentiment.service.control.promise == "window"
    assert sentiment.service.engine.queue_size == 7
    assert sentiment.service.batch_sizes == (1, 4)
    assert topic.service.control.accuracy == 0.999 and topic.versions == ("3",)
    assert topic.service.engine == ServiceConfig().engine


def test_defaults_are_those_of_the_parts(tmp_path):
    settings = read_settings(given={"models": {"m": {"path": tmp_path}}}, environment={})
    (model,) = settings.model_configs()
    assert model.service == ServiceConfig()
    assert model.service.control == ControlConfig()


def test_the_environment_wins_over_the_file_and_what_was_typed_over_both(file):
    environment = {
        "APPARATE_SERVE_HTTP_PORT": "81",
        "APPARATE_SERVE_DEFAULTS__ACCURACY": "0.97",
        "APPARATE_SERVE_DEFAULTS__BATCH_SIZES": "1,2",
        "APPARATE_SERVE_MODELS__TOPIC__VERSIONS": "4,5",
        "APPARATE_SERVE_MODELS__NEW__PATH": "/models/new",
        "APPARATE_CACHE": "of another part",
    }
    settings = read_settings(file, {"defaults": {"accuracy": 0.96}}, environment)
    assert settings.http_port == 81 and settings.defaults.accuracy == 0.96
    sentiment, topic, new = settings.model_configs()
    assert sentiment.service.batch_sizes == (1, 2) and topic.versions == ("4", "5")
    assert sentiment.service.control.accuracy == 0.96
    assert str(new.path) == "/models/new"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acuracy = 1", "acuracy is no setting: known are"),
        ("htp_port = 1", "htp_port is no setting: did you mean 'http_port'?"),
        ("[defaults]\nacuracy = 0.9", "defaults.acuracy is no setting: did you mean 'accuracy'?"),
        ('[models.m]\npath = "x"\nbatchsize = 1', "models.m.batchsize is no setting: did you mean"),
        ("[models.m]\naccuracy = 0.9", "models.m.path is missing"),
        ("[tls]\ncert = 'a'", "tls.key is missing"),
        ('http_port = "on"', "http_port"),
        ("[defaults]\naccuracy = 'high'", "defaults.accuracy is 'high'"),
        ("[defaults]\npromise = 'always'", "defaults.promise is 'always'"),
        ("http_port = ", "is no TOML"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, said):
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_settings(path, environment={})
    assert said in str(error.value)


def test_an_unknown_variable_is_an_error_too():
    with pytest.raises(ConfigError, match="htp_port is no setting: did you mean 'http_port'"):
        read_settings(environment={"APPARATE_SERVE_HTP_PORT": "1"})


def test_a_value_that_does_not_fit_names_the_model(tmp_path):
    models = {"models": {"m": {"path": tmp_path, "accuracy": 1.5}}}
    with pytest.raises(ConfigError, match=r"model 'm': accuracy is 1\.5, expected a share"):
        read_settings(given=models, environment={}).model_configs()
    models = {"models": {"m": {"path": tmp_path, "batching": "slo"}}}
    with pytest.raises(ConfigError, match="model 'm': batching is 'slo'"):
        read_settings(given=models, environment={}).model_configs()


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        read_settings(tmp_path / "none.toml")


def test_every_key_can_be_typed(file):
    typed = (
        "limits.max_body_bytes=7",
        "defaults.slo_quantile=0.9",
        "defaults.batch_sizes=1,2",
        'models."a.b".path=/models/ab',
        "models.topic.versions=4,5",
        "otlp_endpoint=http://localhost:4318/v1/traces?x=1",
    )
    settings = read_settings(
        file,
        {"limits": {"max_body_bytes": 6}},
        {"APPARATE_SERVE_DEFAULTS__SLO_QUANTILE": "1"},
        typed,
    )
    assert settings.limits.max_body_bytes == 7
    assert settings.otlp_endpoint == "http://localhost:4318/v1/traces?x=1"
    sentiment, topic, dotted = settings.model_configs()
    assert sentiment.service.engine.batching.slo_quantile == 0.9
    assert topic.service.batch_sizes == (1, 2) and topic.versions == ("4", "5")
    assert (dotted.name, str(dotted.path)) == ("a.b", "/models/ab")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_body_bytes", "'max_body_bytes': expected KEY=VALUE with a key as in the file"),
        ("=1", "expected KEY=VALUE"),
        ("a b=1", "expected KEY=VALUE"),
        ("[limits]=1", "expected KEY=VALUE"),
        ("limits.max_bodybytes=1", "limits.max_bodybytes is no setting: did you mean 'max_body_b"),
        ("limits.max_body_bytes=many", "limits.max_body_bytes is 'many'"),
        ("limits=1", "limits is '1'"),
        ("defaults.accuracy.high=1", "defaults.accuracy is {'high': '1'}"),
    ],
)
def test_what_is_typed_wrong_is_named(text, said):
    with pytest.raises(ConfigError) as error:
        read_settings(environment={}, assigned=[text])
    assert said in str(error.value)

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from artifacts.config import StoreConfig
from chassis.config import ConfigError, ServerConfig, read, setting, settings


@dataclass(frozen=True)
class StoreSettings:
    """A class of another library, which knows chassis only by the metadata."""

    endpoint: str = field(metadata={"env": "X_ENDPOINT", "doc": "where the store is"})
    retries: int = field(default=3, metadata={"env": "X_RETRIES", "doc": "how often", "minimum": 0})

    def __post_init__(self) -> None:
        if ":" not in self.endpoint:
            raise ValueError(f"X_ENDPOINT is {self.endpoint!r}: expected host:port")


@dataclass(frozen=True)
class Settings:
    store: StoreSettings
    models: tuple[str, ...] = setting("X_MODELS", "models to load", default=(), choices=("base", "large"))
    sizes: tuple[int, ...] = setting("X_SIZES", "batch sizes", default=(1, 2))
    folder: Path | None = setting("X_FOLDER", "cache", default=None)
    rate: float = setting("X_RATE", "calls per second", default=1.0, minimum=0, maximum=10)
    warm: bool = setting("X_WARM", "warm up", default=True)
    password: str = setting("X_PASSWORD", "password", default="", secret=True)
    pin: int = setting("X_PIN", "pin", default=0, secret=True)
    derived: int = 7


def test_every_type_is_read_and_defaults_fill_the_rest() -> None:
    environ = {
        "X_ENDPOINT": "store:1",
        "X_MODELS": "base, large",
        "X_SIZES": "4,8",
        "X_FOLDER": "/models",
        "X_RATE": "2.5",
        "X_WARM": "Off",
        "X_PASSWORD": "hunter2",
    }
    assert read(Settings, environ) == Settings(
        store=StoreSettings("store:1", 3),
        models=("base", "large"),
        sizes=(4, 8),
        folder=Path("/models"),
        rate=2.5,
        warm=False,
        password="hunter2",
    )


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    assert read(Settings, {"X_ENDPOINT": "store:1", "X_RATE": "", "X_FOLDER": ""}) == Settings(StoreSettings("store:1"))


def test_every_mistake_is_reported_at_once() -> None:
    environ = {
        "X_RETRIES": "-1",
        "X_MODELS": "base,huge",
        "X_SIZES": "4,many",
        "X_RATE": "nan",
        "X_WARM": "perhaps",
    }
    with pytest.raises(ConfigError) as caught:
        read(Settings, environ)
    assert caught.value.problems == (
        "X_ENDPOINT is not set: where the store is",
        "X_RETRIES is '-1': expected a number of at least 0",
        "X_MODELS is 'base,huge': expected one of base, large",
        "X_SIZES is '4,many': expected a whole number",
        "X_RATE is 'nan': expected a finite number",
        "X_WARM is 'perhaps': expected on or off",
    )
    assert all(problem in str(caught.value) for problem in caught.value.problems)


def test_what_a_constructor_refuses_is_reported_with_the_rest() -> None:
    with pytest.raises(ConfigError) as caught:
        read(Settings, {"X_ENDPOINT": "nowhere", "X_RATE": "11"})
    assert caught.value.problems == (
        "X_ENDPOINT is 'nowhere': expected host:port",
        "X_RATE is '11': expected a number from 0 to 10",
    )


def test_rules_about_several_settings_are_asked_as_far_as_settings_are_there() -> None:
    @dataclass(frozen=True)
    class Range:
        name: str = setting("X_NAME", "name")
        low: int = setting("X_LOW", "least", default=0)
        high: int = setting("X_HIGH", "most", default=9)

        def problems(self) -> Iterator[str]:
            if self.low > self.high:
                yield f"X_LOW is {self.low}: expected at most X_HIGH, {self.high}"
            if len(self.name) > self.high:
                yield "X_NAME is longer than X_HIGH"

    with pytest.raises(ConfigError) as caught:
        read(Range, {"X_LOW": "10"})
    assert caught.value.problems == ("X_NAME is not set: name", "X_LOW is 10: expected at most X_HIGH, 9")


def test_a_mistake_in_such_a_rule_is_not_hidden() -> None:
    @dataclass(frozen=True)
    class Broken:
        name: str = setting("X_NAME", "name")

        def problems(self) -> Iterator[str]:
            yield "".misspelt  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="misspelt"):
        read(Broken, {})


def test_secrets_appear_neither_in_errors_nor_in_the_repr() -> None:
    with pytest.raises(ConfigError) as caught:
        read(Settings, {"X_ENDPOINT": "store:1", "X_PIN": "s3cret"})
    assert "s3cret" not in str(caught.value)
    assert "X_PIN" in str(caught.value)
    assert "hunter2" not in repr(Settings(StoreSettings("store:1"), password="hunter2"))
    assert "hunter2" not in repr(ServerConfig(token="hunter2"))


def test_the_configuration_is_frozen() -> None:
    config = ServerConfig(token="x")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 1  # type: ignore[misc]


def test_a_type_that_no_text_can_give_is_the_programmers_mistake() -> None:
    @dataclass(frozen=True)
    class Broken:
        table: dict[str, str] = setting("X_TABLE", "table", default=None)

    with pytest.raises(TypeError, match="dict"):
        read(Broken, {"X_TABLE": "a=b"})


def test_a_token_is_required_while_auth_is_on() -> None:
    with pytest.raises(ConfigError, match="DARKROOM_TOKEN") as caught:
        read(ServerConfig, {})
    assert len(caught.value.problems) == 1
    assert read(ServerConfig, {"DARKROOM_AUTH": "off"}).auth is False
    assert read(ServerConfig, {"DARKROOM_TOKEN": "x"}).token == "x"


@pytest.mark.parametrize("token", ["hunter2\n", " hunter2", "hunter\x002", "hünter2"])
def test_a_token_that_no_header_can_carry_is_refused_without_repeating_it(token: str) -> None:
    with pytest.raises(ConfigError, match="DARKROOM_TOKEN is not printable") as caught:
        read(ServerConfig, {"DARKROOM_TOKEN": token})
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ("DARKROOM_TLS_CERTIFICATE_FILE", "DARKROOM_TLS_KEY_FILE"),
        ("DARKROOM_TLS_KEY_FILE", "DARKROOM_TLS_CERTIFICATE_FILE"),
    ],
)
def test_half_a_tls_pair_is_refused(given: str, lacking: str) -> None:
    with pytest.raises(ConfigError, match=f"{lacking} is not set although {given} is"):
        read(ServerConfig, {"DARKROOM_TOKEN": "x", given: "server.pem"})


def test_rules_about_several_settings_are_reported_beside_wrong_values() -> None:
    environ = {"DARKROOM_PORT": "70000", "DARKROOM_LOG_LEVEL": "loud", "DARKROOM_TLS_KEY_FILE": "k.pem"}
    with pytest.raises(ConfigError) as caught:
        read(ServerConfig, environ)
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "DARKROOM_PORT",
        "DARKROOM_LOG_LEVEL",
        "DARKROOM_TOKEN",
        "DARKROOM_TLS_CERTIFICATE_FILE",
    ]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_TOKEN", "from the environment")
    assert read(ServerConfig).token == "from the environment"


@dataclass(frozen=True)
class Pot:
    """Two settings that belong together."""

    size: int = setting("X_POT_SIZE", "litres")
    colour: str = setting("X_POT_COLOUR", "a colour", default="red")


@dataclass(frozen=True)
class Plant:
    """A configuration with a part that may be left out."""

    pot: Pot | None = None


def test_a_part_that_may_be_left_out_is_none_until_one_of_its_variables_is_set() -> None:
    assert read(Plant, {}).pot is None
    assert read(Plant, {"X_POT_SIZE": "3"}).pot == Pot(3)
    with pytest.raises(ConfigError, match="X_POT_SIZE is not set"):
        read(Plant, {"X_POT_COLOUR": "blue"})
    assert not any(item.required for item in settings(Plant))


def test_settings_are_listed_in_order_with_nested_ones() -> None:
    listed = list(settings(Settings))
    assert [item.env for item in listed[:3]] == ["X_ENDPOINT", "X_RETRIES", "X_MODELS"]
    assert listed[0].required
    assert not listed[1].required


def test_every_setting_of_a_server_is_explained() -> None:
    assert all(item.doc and item.env.startswith("DARKROOM_") for item in settings(ServerConfig))


@dataclass(frozen=True)
class Store:
    """As another library declares it: not secret, but it may lie in a file all the same."""

    user: str = field(metadata={"env": "X_USER", "doc": "a user", "by_file": True})
    password: str = setting("X_PASSWORD", "password", secret=True)
    place: str = setting("X_PLACE", "place", default="here")


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "user").write_text("me")
    (tmp_path / "password").write_bytes(b" with spaces \r\n\n")
    environ = {"X_USER_FILE": str(tmp_path / "user"), "X_PASSWORD_FILE": str(tmp_path / "password")}
    assert read(Store, environ) == Store("me", " with spaces ")
    assert read(Store, {**environ, "X_USER": "", "X_PLACE_FILE": "/no such file"}).place == "here"


def test_what_is_wrong_with_the_file_of_a_secret_is_said_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    def problem(path: str) -> str:
        with pytest.raises(ConfigError) as caught:
            read(Store, {"X_USER": "me", "X_PASSWORD_FILE": path})
        (found,) = caught.value.problems
        return found

    assert problem("/nowhere/at/all") == (
        "X_PASSWORD_FILE is '/nowhere/at/all': the file cannot be read: No such file or directory"
    )
    assert problem(str(tmp_path)).endswith("the file cannot be read: Is a directory")
    assert problem(str(tmp_path / "empty")).endswith("the file is empty: expected the value in it")
    assert problem(str(tmp_path / "binary")).endswith("expected a file of UTF-8 text")


def test_a_value_and_a_file_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "user").write_text("me")
    with pytest.raises(ConfigError) as caught:
        read(Store, {"X_USER": "you", "X_USER_FILE": str(tmp_path / "user"), "X_PASSWORD": "hunter2"})
    assert caught.value.problems == ("X_USER and X_USER_FILE are both set: keep one of them",)


def test_a_part_that_may_be_left_out_is_there_if_one_of_its_values_is_in_a_file(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class House:
        store: Store | None = None

    (tmp_path / "user").write_text("me")
    with pytest.raises(ConfigError, match="X_PASSWORD is not set"):
        read(House, {"X_USER_FILE": str(tmp_path / "user")})


def test_the_value_in_a_file_has_to_keep_the_rules_of_its_setting(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("s3cret\n")
    with pytest.raises(ConfigError) as caught:
        read(Settings, {"X_ENDPOINT": "store:1", "X_PIN_FILE": str(tmp_path / "pin")})
    assert caught.value.problems == (
        "X_PIN is a value that is not shown because it is secret: expected a whole number",
    )


def test_the_store_s_credentials_and_every_token_may_lie_in_files() -> None:
    names = {item.env for part in (StoreConfig, ServerConfig) for item in settings(part) if item.by_file}
    assert names == {"DARKROOM_S3_ACCESS_KEY", "DARKROOM_S3_SECRET_KEY", "DARKROOM_TOKEN"}

from dataclasses import dataclass

from chassis import settings_table
from chassis.config import ServerConfig, setting


@dataclass(frozen=True)
class Settings:
    """A setting of each kind."""

    name: str = setting("X_NAME", "a name")
    level: str = setting("X_LEVEL", "a | b", default="low", choices=("low", "high"))
    rate: float = setting("X_RATE", "a rate", default=2.0, minimum=0)
    sizes: tuple[int, ...] = setting("X_SIZES", "sizes", default=(1, 2))
    key: str = setting("X_KEY", "a key", default="hidden-default", secret=True)


def test_the_text_table_is_aligned() -> None:
    assert settings_table.as_text(Settings).splitlines() == [
        "variable  value                 default     meaning",
        "X_NAME    text                  (required)  a name",
        "X_LEVEL   low or high           low         a | b",
        "X_RATE    number of at least 0  2           a rate",
        "X_SIZES   list of whole number  1,2         sizes",
        "X_KEY     text, secret          (secret)    a key; or X_KEY_FILE, a file that holds it",
    ]


def test_every_setting_of_a_server_is_in_its_table() -> None:
    assert settings_table.as_text(ServerConfig).count("DARKROOM_AUTH") == 2  # its own line, and that of the token

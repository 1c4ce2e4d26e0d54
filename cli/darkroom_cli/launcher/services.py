"""Which services `darkroom up` starts, and the environment of each. The one place that knows all of them."""

import os
import secrets
from pathlib import Path

from artifacts.config import StoreConfig

from darkroom_cli.connection import Connection, given_token
from darkroom_cli.launcher.child import Child

HOST = "127.0.0.1"
# Where a person's secrets may lie. The services get their values, and would not know which of the two counts.
_FILES = (
    "DARKROOM_TOKEN_FILE",
    "DARKROOM_ENGINE_TOKEN_FILE",
    "DARKROOM_S3_ACCESS_KEY_FILE",
    "DARKROOM_S3_SECRET_KEY_FILE",
)


def models_folder() -> Path:
    """DARKROOM_MODELS, by default the tiny models of this checkout."""
    checkout = Path(__file__).parents[3] / "models" / "tiny"
    return Path(os.environ.get("DARKROOM_MODELS", checkout)).absolute()


def token(data: Path) -> str:
    """DARKROOM_TOKEN, or one made at the first start and kept in the data folder (mode 0600). Raises ConfigError."""
    if given := given_token():
        return given
    path = data / "token"
    if not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
    return path.read_text().strip()


def connection(ports: dict[str, int], secret: str) -> Connection:
    """Where clients will find the services."""
    return Connection(
        captioner=f"{HOST}:{ports['captioner']}",
        trainer=f"{HOST}:{ports['trainer']}",
        converter=f"{HOST}:{ports['converter']}",
        webui=f"{HOST}:{ports['webui']}",
        http=f"http://{HOST}:{ports['http']}",
        token=secret,
    )


def children(data: Path, store: StoreConfig, ports: dict[str, int], secret: str) -> list[Child]:
    """The services, in the order in which they start; none is started."""
    models = models_folder()
    shared = {
        **dict.fromkeys(_FILES, ""),
        "DARKROOM_HOST": HOST,
        "DARKROOM_TOKEN": secret,
        "DARKROOM_METRICS_PORT": "0",
        # Nobody balances load here: a person at Ctrl-C waits for this.
        "DARKROOM_DRAIN_SECONDS": "3",
        "DARKROOM_S3_ENDPOINT": store.endpoint,
        "DARKROOM_S3_ACCESS_KEY": store.access_key,
        "DARKROOM_S3_SECRET_KEY": store.secret_key,
        "DARKROOM_S3_BUCKET": store.bucket,
        "DARKROOM_S3_REGION": store.region,
        "DARKROOM_MODELS": str(models),
        "DARKROOM_CONTROLNETS": os.environ.get("DARKROOM_CONTROLNETS", str(models)),
        "DARKROOM_LORAS": os.environ.get("DARKROOM_LORAS", ""),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Spinning OpenMP threads of several processes on the same cores are several times slower than sleeping ones.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    own = {
        "captioner": {
            "DARKROOM_CAPTION_MODEL": os.environ.get("DARKROOM_CAPTION_MODEL", str(models / "blip2-tiny")),
            "DARKROOM_RETRIEVAL_MODEL": os.environ.get("DARKROOM_RETRIEVAL_MODEL", str(models / "blip2-itm-tiny")),
        },
        "trainer": {"DARKROOM_STATE_DIR": str(data / "trainer"), "DARKROOM_STOP_RUNS": "on"},
        "converter": {},
        "engine": {"DARKROOM_CACHE_DIR": str(data / "cache")},
        "gateway": {
            "DARKROOM_HTTP_PORT": str(ports["http"]),
            "DARKROOM_ENGINES": f"http://{HOST}:{ports['engine']}",
            "DARKROOM_ENGINE_TOKEN": secret,
        },
    }
    modules = {"engine": "webui_engine", "gateway": "webui_gateway"}
    port_of = {"gateway": "webui"}
    return [
        Child(
            name=name,
            module=modules.get(name, name),
            env={
                **shared,
                **extra,
                "DARKROOM_PORT": str(ports[port_of.get(name, name)]),
                "DARKROOM_ENDPOINT_FILE": str(data / "run" / f"{name}.json"),
            },
            log_file=data / "logs" / f"{name}.log",
            endpoint_file=data / "run" / f"{name}.json",
        )
        for name, extra in own.items()
    ]

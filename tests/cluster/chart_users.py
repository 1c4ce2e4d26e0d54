"""MinIO users as docs/operators.md makes them: one for each service, with the policy that the chart renders for it."""

import json
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from artifacts.store import ObjectStore, StoreConfig
from minio import MinioAdmin
from minio.credentials import StaticProvider

from tests.cluster.chart_release import CHART, SMALL
from tests.cluster.harness import store as minio
from tests.cluster.harness.client import Cluster

# Whose credentials a value of the chart names.
VALUES: Final = {
    "captioner": "captioner.store.existingSecret",
    "trainer": "trainer.store.existingSecret",
    "dreambooth": "trainer.job.store.existingSecret",
    "converter": "converter.store.existingSecret",
    "webui-gateway": "webuiGateway.store.existingSecret",
    "webui-engine": "webuiEngine.store.existingSecret",
    "bucket-setup": "store.setup.existingSecret",
}


@dataclass(frozen=True)
class User:
    """One service's credentials."""

    service: str
    access_key: str
    secret_key: str

    @property
    def secret(self) -> dict[str, Any]:
        """The Secret for the chart."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"store-{self.service}"},
            "stringData": {"access-key": self.access_key, "secret-key": self.secret_key},
        }


@contextmanager
def restricted_users(cluster: Cluster, bucket: str) -> Iterator[dict[str, User]]:
    """A user for each policy of a release with this bucket, by service; users, policies and bucket are removed at the end."""
    policies = rendered_policies(cluster, bucket)
    admin = _admin(cluster)
    users = {name: User(name, f"{bucket}-{name}"[-60:], secrets.token_hex(16)) for name in policies}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, user in users.items():
                file = Path(folder) / f"{name}.json"
                file.write_text(policies[name])
                admin.policy_add(user.access_key, str(file))
                admin.user_add(user.access_key, user.secret_key)
                admin.policy_set(user.access_key, user=user.access_key)
        yield users
    finally:
        for user in users.values():
            remove_user(cluster, user.access_key, user.access_key)
        remove_bucket(cluster, bucket)


def remove_user(cluster: Cluster, access_key: str, policy: str) -> None:
    """Remove a user and the policy made for it, where they are there."""
    admin = _admin(cluster)
    if access_key in json.loads(admin.user_list()):
        admin.user_remove(access_key)
    if policy in json.loads(admin.policy_list()):
        admin.policy_remove(policy)


def _admin(cluster: Cluster) -> MinioAdmin:
    keys = StaticProvider(minio.ACCESS_KEY, minio.SECRET_KEY)
    return MinioAdmin(endpoint=minio.address(cluster), credentials=keys, secure=False)


def rendered_policies(cluster: Cluster, bucket: str) -> dict[str, str]:
    """The policy documents of the chart, by service."""
    shown = ("--show-only=templates/store/policies.yaml", f"--set=store.bucket={bucket}", f"--values={SMALL}")
    rendered = yaml.safe_load(cluster.helm("template", "darkroom", str(CHART), *shown))
    return {name.removesuffix(".json"): text for name, text in rendered["data"].items()}


def settings(users: Mapping[str, User]) -> list[str]:
    """Arguments of Helm that give each service its own Secret."""
    return [f"--set={value}={users[name].secret['metadata']['name']}" for name, value in VALUES.items()]


def store_as(cluster: Cluster, bucket: str, user: User | None = None) -> ObjectStore:
    """The bucket as a user sees it; without one, as its owner."""
    keys = (user.access_key, user.secret_key) if user else (minio.ACCESS_KEY, minio.SECRET_KEY)
    return ObjectStore(StoreConfig(f"http://{minio.address(cluster)}", *keys, bucket))


def remove_bucket(cluster: Cluster, bucket: str) -> None:
    """Remove the bucket and everything in it, if it is there."""
    store = store_as(cluster, bucket)
    store.ensure_bucket()
    store.delete_bucket()

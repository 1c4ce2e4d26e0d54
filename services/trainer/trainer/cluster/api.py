"""The calls of the Kubernetes API that the trainer makes, in one namespace. The only module that knows the client.

Answers are read as JSON and not as the client's models: a cluster may be newer than the client, and a Job that is adopted
keeps fields that the client does not know. Every error is one of `errors`.
"""

import http.client
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from trainer.cluster.errors import Changed, ClusterForbidden, ClusterUnavailable, Expired, Missing
from trainer.cluster.refusals import refusal

FIELD_MANAGER = "darkroom-trainer"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_KUBECONFIG = "~/.kube/config"
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 20.0
_WATCH_MARGIN_SECONDS = 15.0
_LOG_BYTES = 4 * 1024 * 1024
_MERGE_PATCH = "application/merge-patch+json"

Json = dict[str, Any]
log = logging.getLogger(__name__)


class ClusterApi:
    """One namespace of one cluster."""

    def __init__(self, configuration: client.Configuration, namespace: str) -> None:
        self.namespace = namespace
        self._client = client.ApiClient(configuration)

    @classmethod
    def connect(cls, namespace: str) -> "ClusterApi":
        """By the account of the pod this runs in, else by KUBECONFIG. namespace "": that of the account.

        Raises ClusterForbidden if there is neither.
        """
        configuration = client.Configuration()
        configuration.retries = False
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                return cls(configuration, namespace or _NAMESPACE_FILE.read_text().strip())
            files = os.environ.get("KUBECONFIG", _KUBECONFIG)  # the client itself looks only when it is imported
            config.load_kube_config(files, client_configuration=configuration)  # type: ignore[no-untyped-call]
            _, context = config.list_kube_config_contexts(files)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            raise ClusterForbidden(f"neither this pod's account nor KUBECONFIG can be used ({error})") from error
        return cls(configuration, namespace or context["context"].get("namespace", "default"))

    def create_job(self, job: Mapping[str, Any], dry_run: bool = False) -> Json:
        """Create a Job; dry_run: only ask whether it would be. Raises Taken, JobInvalid and every other refusal."""
        options = {"fieldValidation": "Strict", "fieldManager": FIELD_MANAGER}
        if dry_run:
            options["dryRun"] = "All"
        what = f"create Job {job['metadata']['name']}"
        return self._json("POST", self._path("jobs"), what, options, job)

    def create_service(self, service: Mapping[str, Any]) -> Json:
        """Create a Service. Raises Taken."""
        options = {"fieldValidation": "Strict", "fieldManager": FIELD_MANAGER}
        return self._json("POST", self._path("services"), "create a Service", options, service)

    def job(self, name: str) -> Json:
        """One Job as it is now. Raises Missing."""
        return self._json("GET", self._path("jobs", name), f"read Job {name}")

    def patch_job(self, name: str, uid: str, patch: Mapping[str, Any]) -> Json:
        """Change fields of a Job if it still is that one. Raises Missing, or Changed if it is another."""
        about = {**patch.get("metadata", {}), "uid": uid}
        options = {"fieldValidation": "Strict", "fieldManager": FIELD_MANAGER}
        body = {**patch, "metadata": about}
        return self._json("PATCH", self._path("jobs", name), f"change Job {name}", options, body)

    def delete_job(self, name: str, uid: str) -> None:
        """Ask for the end of a Job and its pods; it stays until they are gone. One that is gone, or another, is fine."""
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        try:
            self._json("DELETE", self._path("jobs", name), f"delete Job {name}", body=body)
        except (Missing, Changed):
            return

    def listed(self, kind: str, selector: str) -> tuple[list[Json], str]:
        """All objects with these labels, and the version from which a watch goes on. kind: "jobs" or "pods"."""
        answer = self._json("GET", self._path(kind), f"list {kind}", {"labelSelector": selector})
        return answer["items"], answer["metadata"]["resourceVersion"]

    def events(self, uid: str) -> list[Json]:
        """What the cluster says about one object."""
        found = self._json("GET", self._path("events"), "list events", {"fieldSelector": f"involvedObject.uid={uid}"})
        return list(found["items"])

    def pod_log(self, pod: str, container: str) -> bytes:
        """The end of what the program of a pod printed. Raises Missing, and ClusterUnavailable if its node does not answer."""
        options = {"container": container, "limitBytes": str(_LOG_BYTES), "tailLines": "20000"}
        with self._open("GET", f"{self._path('pods', pod)}/log", f"read the log of pod {pod}", options) as response:
            data: bytes = response.read()
        return data

    @contextmanager
    def watch(self, kind: str, selector: str, version: str, seconds: int) -> Iterator["Watch"]:
        """Follow changes since a version for so long at most."""
        options = {"watch": "true", "labelSelector": selector, "resourceVersion": version}
        options |= {"timeoutSeconds": str(seconds), "allowWatchBookmarks": "true"}
        silence = seconds + _WATCH_MARGIN_SECONDS
        with self._open("GET", self._path(kind), f"watch {kind}", options, read_seconds=silence) as response:
            yield Watch(response, f"watch {kind}")

    def close(self) -> None:
        """Close idle connections."""
        self._client.rest_client.close()

    def _path(self, kind: str, name: str = "") -> str:
        group = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
        return f"{group}/namespaces/{quote(self.namespace)}/{kind}" + (f"/{quote(name)}" if name else "")

    def _json(
        self,
        method: str,
        path: str,
        what: str,
        options: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Json:
        with self._open(method, path, what, options or {}, body) as response:
            answer: Json = json.loads(response.read())
        return answer

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        what: str,
        options: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        read_seconds: float = _READ_SECONDS,
    ) -> Iterator[Any]:
        """The answer's body, still to be read. Errors while reading it are translated, too."""
        try:
            response = self._send(method, path, options, body, read_seconds)
            try:
                if not 200 <= response.status < 300:
                    raise refusal(response.status, _status(response.read()), what)
                yield response
            finally:
                response.close()  # goes back to the pool if everything was read
        except ApiException as error:  # TLS
            raise ClusterUnavailable(what, str(error.reason)) from error
        except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise ClusterUnavailable(what, f"{type(error).__name__} {error}") from error

    def _send(
        self, method: str, path: str, options: Mapping[str, str], body: Mapping[str, Any] | None, read_seconds: float
    ) -> Any:
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER}
        if body is not None:
            headers["Content-Type"] = _MERGE_PATCH if method == "PATCH" else "application/json"
        for setting in self._client.configuration.auth_settings().values():
            headers[setting["key"]] = setting["value"]
        url = f"{self._client.configuration.host}{path}" + (f"?{urlencode(options)}" if options else "")
        timeout = (_CONNECT_SECONDS, read_seconds)
        return self._client.call_api(method, url, headers, body, _request_timeout=timeout).response


class Watch:
    """A stream of changes."""

    def __init__(self, response: Any, what: str) -> None:
        self._response = response
        self._what = what

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        """(ADDED, MODIFIED, DELETED or BOOKMARK, object). Raises Expired."""
        buffer = b""
        for part in self._response.stream(amt=None, decode_content=False):
            *lines, buffer = (buffer + part).split(b"\n")
            for line in filter(None, lines):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    if status.get("code") == 410:
                        raise Expired(str(status.get("message")))
                    raise refusal(int(status.get("code", 500)), status, self._what)
                yield event["type"], event["object"]

    def stop(self) -> None:
        """End it from another thread."""
        try:
            self._response.shutdown()
        except (ValueError, OSError) as error:  # over already
            log.debug("the watch is over: %s", error)


def _status(data: bytes) -> Json:
    try:
        found = json.loads(data)
    except ValueError:
        return {"message": data[:300].decode(errors="replace")}
    return found if isinstance(found, dict) else {}

"""The cluster by hand: `python -m tests.cluster.harness up|down|status|kubeconfig|build`. See tests/cluster/README.md."""

import argparse
import sys

from tests.cluster.harness.binaries import BuildError, build_all, search_path
from tests.cluster.harness.cluster import is_up, keep_logs, up
from tests.cluster.harness.layout import KUBECONFIG, STATE
from tests.cluster.harness.processes import NotReady, recorded
from tests.cluster.harness.requirements import Unusable, require_machine
from tests.cluster.harness.store import ENDPOINT
from tests.cluster.harness.teardown import tear_down


def main() -> int:
    """Run one command; 1 with a sentence on standard error where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.harness", description=__doc__.split("`")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the programs into the cache")
    commands.add_parser("up", help="start the cluster and print how to use it")
    commands.add_parser("down", help="remove it, also after a crash").add_argument("--keep-logs", action="store_true")
    commands.add_parser("status", help="say whether it is up; exit 1 if not")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except (Unusable, BuildError, NotReady) as error:
        print(error, file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "build":
            require_machine()
            build_all()
        case "up":
            up()
            print(_usage())
        case "down":
            if arguments.keep_logs:
                print(f"Logs are in {keep_logs()}")
            tear_down()
        case "status":
            return _status()
        case "kubeconfig":
            print(KUBECONFIG)
    return 0


def _usage() -> str:
    return f"""\
The cluster is up. In a shell of yours:
  export KUBECONFIG={KUBECONFIG}
  export PATH={search_path().split("/usr/sbin")[0].rstrip(":")}:$PATH
Its store (MinIO) is {ENDPOINT} for pods. `make cluster-down` removes everything."""


def _status() -> int:
    if not STATE.exists():
        print("no cluster")
        return 1
    print("up" if is_up() else "half up")
    for process in recorded():
        print(f"  {process.name:<24} pid {process.pid:<8} {'runs' if process.alive else 'has ended'}")
    return 0 if is_up() else 1


if __name__ == "__main__":
    sys.exit(main())

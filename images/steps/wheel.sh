# Builds wheels of folders of this repository into /dist, without the network. Arguments: the folders.
set -eu
export PATH="/opt/tools/bin:$PATH"
pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --wheel-dir /dist "$@"

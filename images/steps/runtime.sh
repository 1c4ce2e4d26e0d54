# What is below everything else: the user, its folder, an empty environment, and the bytecode of Python's own library, which
# public images leave out and a read-only root could never write.
set -eu
useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin darkroom
install --directory --owner=10001 --group=10001 /var/lib/darkroom
python3 -m compileall -q "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
python3 -m venv --without-pip /opt/darkroom

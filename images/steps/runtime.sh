# What is below everything else: the user, its folder, an empty environment, and the bytecode of Python's own library, which
# public images leave out and a read-only root could never write.
set -eu
useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin darkroom
install --directory --owner=10001 --group=10001 /var/lib/darkroom
python3 -m compileall -q "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
python3 -m venv --without-pip /opt/darkroom
# A container's first process ignores SIGTERM until it has a handler: a pod that is deleted while Python still imports would be
# waited for until its grace is over. So every Python that is first has one from its start on; programs set their own later.
cat > "$(echo /opt/darkroom/lib/python3*/site-packages)/darkroom-first-process.pth" << 'END'
import os, signal; os.getpid() == 1 and signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
END

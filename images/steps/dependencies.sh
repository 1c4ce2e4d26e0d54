# Installs what the lock lists for this image into /opt/darkroom.
set -eu
. /run/steps/install.sh
install --no-deps --require-hashes --requirement /usr/share/darkroom/requirements.txt

# Sourced by the steps that fill /opt/darkroom. Their uv is thrown away: no image needs one.
. /run/steps/settings.sh
python3 -m venv /tmp/installer
trap 'rm -rf /tmp/installer /opt/darkroom/.lock' EXIT  # uv leaves a lock that everybody may write
sed -n '/^uv==/,/[^\\]$/p' /run/steps/tools.txt > /tmp/installer/uv.txt
/tmp/installer/bin/pip install --quiet --require-hashes --requirement /tmp/installer/uv.txt
install() { /tmp/installer/bin/uv pip install --quiet --compile-bytecode --python /opt/darkroom/bin/python "$@"; }

# Makes /opt/tools: the programs that split the lock, build our wheels and write the bill of materials. No image keeps them.
set -eu
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"BASE has Python {sys.version.split()[0]}; Darkroom needs 3.11 or newer")'
. /run/steps/settings.sh
python3 -m venv /opt/tools
/opt/tools/bin/pip install --quiet --require-hashes --requirement /run/steps/tools.txt

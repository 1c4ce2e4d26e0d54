# Installs our own code below /source/opt/darkroom, to be laid over /opt/darkroom, and writes the bill of materials
# (CycloneDX) of the whole environment. Argument: the folder of the image's own distribution. Needs no network.
set -eu
export PATH="/opt/tools/bin:$PATH"
cd /src
sh /run/steps/wheel.sh $(grep -v '^\./protos$' /lock/source.txt)
uv pip install --quiet --offline --no-cache --no-deps --compile-bytecode --python /opt/darkroom/bin/python \
    --prefix /source/opt/darkroom /dist/*.whl
# As if they had come from an index: the folder of the build is no one's business.
find /source \( -name direct_url.json -o -name .lock \) -delete  # uv's lock may be written by everybody
find /source -name RECORD -exec sed -i '/direct_url.json/d' {} +
PYTHONPATH=$(echo /source/opt/darkroom/lib/python3*/site-packages) cyclonedx-py environment --output-reproducible \
    --pyproject "$1/pyproject.toml" --output-file /source/usr/share/darkroom/sbom.cdx.json /opt/darkroom/bin/python

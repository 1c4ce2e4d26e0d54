# Sourced by the steps that fetch packages: from which index and with which certificates. Both belong to the machine that
# builds. They come as build secrets (see images/network.py), so no layer keeps them.
if [ -f /run/secrets/network ]; then . /run/secrets/network; fi
if [ -f /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi
export PIP_CACHE_DIR=/run/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export UV_CACHE_DIR=/run/cache/uv UV_LINK_MODE=copy

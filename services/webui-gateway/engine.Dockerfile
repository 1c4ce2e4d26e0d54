# The engine that draws. `make images IMAGES=webui-engine`, or from the repository's root: docker build -f services/webui-gateway/engine.Dockerfile .
ARG BASE=docker.io/library/python:3.13-slim-bookworm

# Empty; `--build-context wheels=DIR` puts a folder with a wheel of torch in its place.
FROM scratch AS wheels

# Programs of the build.
FROM ${BASE} AS tools
ARG STEPS
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    --mount=type=secret,id=ca --mount=type=secret,id=network --mount=type=cache,target=/run/cache \
    sh /run/steps/tools.sh

# Splits uv.lock: what comes from the index, and which folders of this repository.
FROM tools AS lock
WORKDIR /src
COPY pyproject.toml uv.lock requirements-torch.txt ./
COPY models/tiny/pyproject.toml models/tiny/
COPY protos/pyproject.toml protos/
COPY libs libs
COPY services services
COPY cli cli
ARG STEPS
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    sh /run/steps/lock.sh darkroom-webui-gateway torch

FROM tools AS protos
COPY protos /src/protos
ARG STEPS
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    sh /run/steps/wheel.sh /src/protos

FROM ${BASE} AS runtime
# A digest of images/steps, for engines that do not look into mounts before they take a layer from their cache.
ARG STEPS
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    sh /run/steps/runtime.sh

FROM runtime AS torch
COPY requirements-torch.txt /usr/share/darkroom/
ARG STEPS
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    --mount=type=bind,from=wheels,target=/run/wheels \
    --mount=type=secret,id=ca --mount=type=secret,id=network --mount=type=cache,target=/run/cache \
    sh /run/steps/torch.sh

# Everything from the index: a layer that changes with the lock only.
FROM torch AS dependencies
COPY --from=lock /lock/requirements.txt /usr/share/darkroom/
ARG STEPS
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    --mount=type=secret,id=ca --mount=type=secret,id=network --mount=type=cache,target=/run/cache \
    sh /run/steps/dependencies.sh

# Our own code: the last layer, made in seconds and without the network.
FROM dependencies AS source
COPY --from=tools /opt/tools /opt/tools
COPY --from=protos /dist /dist
COPY --from=lock /lock/source.txt /lock/
COPY LICENSE /source/usr/share/darkroom/
COPY libs /src/libs
COPY services/webui-gateway /src/services/webui-gateway
ARG STEPS
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    sh /run/steps/source.sh services/webui-gateway

FROM dependencies
ENV PATH=/opt/darkroom/bin:${PATH} HOME=/tmp TMPDIR=/tmp PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false OMP_WAIT_POLICY=PASSIVE \
    DARKROOM_HOST=0.0.0.0 DARKROOM_PORT=7861 DARKROOM_METRICS_PORT=9090 \
    DARKROOM_CACHE_DIR=/var/lib/darkroom
EXPOSE 7861 9090
VOLUME ["/tmp", "/var/lib/darkroom"]
USER 10001:10001
ENTRYPOINT ["python", "-m", "webui_engine"]
COPY --from=source /source /
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="darkroom-webui-engine" \
      org.opencontainers.image.description="Stable Diffusion behind the A1111 REST API" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"

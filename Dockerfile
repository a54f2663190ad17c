# Two images: the server, and what images of workers are built from.
#
#   docker build --tag plait .
#   docker build --tag plait-worker --target worker .
#
#   docker run --read-only --tmpfs /tmp --publish 127.0.0.1:7480:7480 --volume plait:/var/lib/plait plait serve --insecure
#
# Both run as the user 10001 with a root file system that may be read-only: all that is written stands under
# /var/lib/plait (the store), and /tmp. docs/operations.md says more.

FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements/build.lock requirements/server.lock requirements/worker.lock requirements/
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.lock \
    && python -m venv --without-pip /opt/server \
    && python -m venv --without-pip /opt/worker \
    && pip --python /opt/server/bin/python install \
        --no-cache-dir --require-hashes --only-binary :all: -r requirements/server.lock \
    && pip --python /opt/worker/bin/python install \
        --no-cache-dir --require-hashes --only-binary :all: -r requirements/worker.lock
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/server/bin/python install --no-cache-dir --no-deps /wheels/plait-*.whl \
    && pip --python /opt/worker/bin/python install --no-cache-dir --no-deps /wheels/plait-*.whl \
    && mkdir -p /var/lib/plait /app

FROM python:3.13-slim AS worker
COPY --from=build /opt/worker /opt/worker
COPY --from=build --chown=10001:10001 /app /app
# Nothing is compiled at run time: the root file system may be read-only.
ENV PATH=/opt/worker/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
# The modules of an image that is built from this one: COPY my_module.py /app/
WORKDIR /app
STOPSIGNAL SIGTERM
# A worker has no port: the server knows whether it lives, and `plait worker` starts its processes again.
HEALTHCHECK NONE
ENTRYPOINT ["plait", "worker"]
CMD ["--help"]

FROM python:3.13-slim AS server
COPY --from=build /opt/server /opt/server
# A volume that is made here belongs to the user, too.
COPY --from=build --chown=10001:10001 /var/lib/plait /var/lib/plait
ENV PATH=/opt/server/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A container is reached from outside, so the server starts only with TLS and tokens, or with --insecure.
ENV PLAIT_LISTEN=0.0.0.0:7480 PLAIT_STORE=/var/lib/plait/plait.db PLAIT_CREATE=true
USER 10001:10001
WORKDIR /var/lib/plait
VOLUME /var/lib/plait
EXPOSE 7480
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["plait", "health"]
ENTRYPOINT ["plait"]
CMD ["serve"]

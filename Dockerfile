# The server as an image:
#
#   docker build --tag plait .
#   docker run --publish 127.0.0.1:7480:7480 --volume plait:/var/lib/plait plait

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/plait
COPY requirements/server.lock requirements/
RUN /opt/plait/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/server.lock
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && /opt/plait/bin/pip install --no-cache-dir --no-deps /wheels/plait-*.whl

FROM python:3.13-slim
RUN useradd --system --create-home --home-dir /var/lib/plait plait
COPY --from=build /opt/plait /opt/plait
ENV PATH=/opt/plait/bin:$PATH
USER plait
WORKDIR /var/lib/plait
# The journal; without a volume it ends with the container.
VOLUME /var/lib/plait
EXPOSE 7480
STOPSIGNAL SIGTERM
ENTRYPOINT ["plait"]
# A container has a network of its own, and this version no protection: publish the port on 127.0.0.1 alone.
CMD ["serve", "--insecure", "--listen", "0.0.0.0:7480", "--store", "/var/lib/plait/plait.db", "--create"]

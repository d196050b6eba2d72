# The gateway's image: `docker build -t retrieve-gateway .`, or `scripts/image`, which also tries it out.

FROM docker.io/library/rust:1.95-slim-trixie AS build
WORKDIR /build
COPY . .
ARG RETRIEVE_BUILD_COMMIT=unknown
# The cache mounts keep the compiled dependencies between builds. Cargo goes by time stamps, and those of a checkout may
# be older than the cache, so the gateway's own code is always compiled anew.
RUN --mount=type=cache,id=retrieve-gateway-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=retrieve-gateway-target,target=/build/target \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --bin retrieve-gateway \
    && cp target/release/retrieve-gateway /retrieve-gateway

FROM docker.io/library/debian:trixie-slim
# A new volume takes owner and mode from this folder. Nothing in the image may raise its privileges, so Debian's own
# setuid and setgid bits go too.
RUN install --directory --owner=10001 --group=10001 --mode=700 /data \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=build /retrieve-gateway /usr/local/bin/retrieve-gateway

# A number, because Kubernetes can tell only of a number that it isn't root.
USER 10001:10001
# The settings' defaults are relative to this folder: the queue is in /data, and integrations are read from
# /config/integrations.toml if it is mounted. They aren't repeated as ENV, which would forbid RETRIEVE_QUEUE_FILE.
WORKDIR /
# The C library gives threads arenas of their own, and each keeps what was freed in it: with two of them large bodies leave
# half as much memory behind.
ENV MALLOC_ARENA_MAX=2
VOLUME /data
# The private listener isn't exposed: by default it answers inside the container alone.
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["retrieve-gateway", "health"]
ENTRYPOINT ["/usr/local/bin/retrieve-gateway"]
CMD ["serve"]

ARG RETRIEVE_BUILD_COMMIT=unknown
LABEL org.opencontainers.image.title="retrieve-gateway" \
      org.opencontainers.image.description="A webhook gateway: answers 200 once the webhook is a durable JSON job" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$RETRIEVE_BUILD_COMMIT" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim"

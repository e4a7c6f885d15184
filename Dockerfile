# syntax=docker/dockerfile:1

# The version of rust-toolchain.toml.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The binaries leave the cache mount in the same step: after it the mount is gone.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin lanekeeper --bin lanekeeper-lab \
    && cp target/release/lanekeeper target/release/lanekeeper-lab /usr/local/bin/

FROM debian:bookworm-slim
# The certificates of public authorities, for https targets and amqps brokers.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin lanekeeper \
    && install --directory --owner lanekeeper --mode 0700 /var/lib/lanekeeper
COPY --from=build /usr/local/bin/lanekeeper /usr/local/bin/lanekeeper-lab /usr/local/bin/
USER lanekeeper
# Where a ledger in a file is, by default: keep it in a volume.
WORKDIR /var/lib/lanekeeper
# Lanekeeper is process 1 and gets the signal itself: SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["lanekeeper"]
CMD ["--help"]

# The one binary `kadr` in a small image: kadr api, kadr orchestrator, kadr runner, kadr inference (see compose.yaml).
# No NATS server and no weights inside: the first is a service of its own, the second have a licence of their own.
# Checked for form only (scripts/check-containers.py): no engine has built this file yet.

FROM rust:1.95.0-bookworm AS build
# Without nasm, openh264 is built without its assembler and decodes 2 to 3 times slower, in silence.
RUN apt-get update \
 && apt-get install -y --no-install-recommends nasm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p kadr

FROM debian:bookworm-slim
# Certificates for weights fetched by https; openh264 is C++ and linked against the system's libstdc++.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin kadr \
 && install -d -o kadr -g kadr /data /models
COPY --from=build /src/target/release/kadr /usr/local/bin/kadr
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/kadr/
# Inference computes one frame a thread; without it candle counts the cores anew for every product.
ENV KADR_DATA=/data KADR_MODELS=/models
USER kadr
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8080 8554
STOPSIGNAL SIGTERM
ENTRYPOINT ["kadr"]
CMD ["--help"]

# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin haldane \
    && install -D -m 0755 target/release/haldane /out/usr/local/bin/haldane \
    && install -d -m 0755 /out/etc/haldane \
    && install -d -o 65532 -g 65532 -m 0750 /out/var/lib/haldane

FROM debian:bookworm-slim
COPY --from=build /out/ /
COPY config/minimal.yaml /etc/haldane/haldane.yaml
USER 65532:65532
VOLUME /var/lib/haldane
EXPOSE 8080 9900
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/haldane", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/haldane"]
CMD ["run"]

# Images without a shell or a package manager: the program, the C library it links to, three small
# files in /etc and Debian's certificate authorities, by which https:// backends and Marathons are
# verified. `docker build .` builds the router; `--target marathon-sync`, `--target demo-backend` and
# `--target fake-marathon` build the others.
#
# There is no ENTRYPOINT, so a container definition that starts a Hipache image with
# `/usr/local/bin/hipache -c FILE` keeps its command line.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bins -p router -p marathon-sync -p demo

# One file tree an image under /images. The C library comes along as a shared library instead of
# being linked in: looking up names (in /etc/hosts, by DNS, in /etc/passwd) works in a dynamically
# linked glibc only. Debian 12's has those look-ups inside libc.so.6 and loads no further modules.
RUN set -eu; \
    for program in router marathon-sync demo-backend fake-marathon; do \
        tree=/images/$program; \
        mkdir -p "$tree/usr/local/bin"; \
        strip --strip-debug -o "$tree/usr/local/bin/$program" "target/release/$program"; \
        ldd "target/release/$program" \
            | sed -n -e 's|.*=> \(/[^ ]*\) .*|\1|p' -e 's|^[[:space:]]*\(/[^ ]*\) .*|\1|p' \
            | xargs -I '{}' cp -L --parents '{}' "$tree"; \
    done; \
    ln -s router /images/router/usr/local/bin/hipache; \
    mkdir -p /images/base/etc /images/log/hipache; \
    printf '%s\n' \
        'root:x:0:0:root:/:/sbin/nologin' \
        'www-data:x:33:33:www-data:/:/sbin/nologin' \
        'nobody:x:65534:65534:nobody:/:/sbin/nologin' > /images/base/etc/passwd; \
    printf '%s\n' 'root:x:0:' 'www-data:x:33:' 'nogroup:x:65534:' > /images/base/etc/group; \
    printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' > /images/base/etc/nsswitch.conf; \
    cp -L --parents /etc/ssl/certs/ca-certificates.crt /images/base; \
    cp -r /images/base/etc /images/router/; \
    chroot /images/router /usr/local/bin/router --version; \
    chroot /images/router /usr/local/bin/hipache --version; \
    chroot /images/demo-backend /usr/local/bin/demo-backend --version; \
    rm -r /images/router/etc

FROM scratch AS base
COPY --from=build /images/base/ /
ENV PATH=/usr/local/bin
# www-data, which is also Hipache's default for its settings `user` and `group`. A number, because
# some orchestrators refuse a name when they have to prove that it is not root.
USER 33:33

FROM base AS demo-backend
COPY --from=build /images/demo-backend/ /
EXPOSE 8000
CMD ["/usr/local/bin/demo-backend", "--listen", "0.0.0.0:8000"]

FROM base AS fake-marathon
COPY --from=build /images/fake-marathon/ /
EXPOSE 8080
CMD ["/usr/local/bin/fake-marathon", "--listen", "0.0.0.0:8080"]

FROM base AS marathon-sync
COPY --from=build /images/marathon-sync/ /
CMD ["/usr/local/bin/marathon-sync"]

FROM base AS router
COPY --from=build /images/router/ /
# Hipache's default access log is /var/log/hipache/access.log.
COPY --from=build --chown=33:33 /images/log/ /var/log/
EXPOSE 80 443
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/router", "healthcheck"]
# Flags and not ENV: an environment variable would override the config.json of a swapped Hipache.
CMD ["/usr/local/bin/router", "--listen", "0.0.0.0:80", "--access-log", "stdout"]

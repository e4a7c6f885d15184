# RabbitMQ 4.0 on a machine that has another: Debian trixie's, in a folder of its own. To be sourced by scripts/broker.
# shellcheck shell=bash

readonly ROOT_SUITE=trixie # the Debian release that has RabbitMQ 4.0
readonly ROOT_SERVER=/usr/lib/rabbitmq/bin/rabbitmq-server
readonly ROOT_DIR=/broker # where a broker's DIR is within the folder
readonly ROOT_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly ROOT_MIRROR_DEFAULT=http://deb.debian.org/debian
readonly ROOT_LOG_LINES=15

root_folder() { echo "${LANEKEEPER_RABBITMQ_4_ROOT:-/var/cache/lanekeeper/rabbitmq-4}"; }

# A folder gets its name only when it is complete.
root_made() { [[ -x "$(root_folder)$ROOT_SERVER" ]]; }

# True if a process may mount things for itself and change its root.
root_enterable() {
    [[ "$(id -u)" == 0 ]] && command -v chroot >/dev/null && command -v unshare >/dev/null &&
        unshare --mount --propagation private true 2>/dev/null
}

root_makeable() { root_enterable && command -v apt-get >/dev/null && command -v flock >/dev/null; }

# Sets `enter` to what stands before a command that is to run in the folder, with DIR at /broker. The mounts are seen
# by that command and its children only, and go with the last of them, however it ends.
root_enter() { # ROOT DIR
    # shellcheck disable=SC2016,SC2034 # it is for the shell that runs it; scripts/broker uses it
    enter=(unshare --mount --propagation private -- /bin/sh -euc '
        root="$1" dir="$2"
        shift 2
        mount --rbind /proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind "$dir" "$root'"$ROOT_DIR"'"
        export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
        exec chroot "$root" /usr/bin/env --chdir='"$ROOT_DIR"' "$@"' sh "$1" "$2")
}

# Where apt on this machine gets Debian from, as far as debootstrap can do the same.
root_mirror() {
    local found
    # shellcheck disable=SC2016 # these are apt's
    found="$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL) $(COMPONENT)' 'Identifier: Packages' |
        awk '$1 ~ /^https?:/ && $2 == "Debian" && $3 == "Debian" && $4 == "main" { print $1; exit }')" || true
    echo "${found:-$ROOT_MIRROR_DEFAULT}"
}

# The proxy that apt takes to get there, for debootstrap, which knows only the environment.
root_proxy() { # URL
    local scheme="${1%%:*}" host="${1#*://}" key proxy=''
    host="${host%%[:/]*}"
    for key in "Acquire::$scheme::Proxy::$host" "Acquire::$scheme::Proxy"; do
        if [[ -z "$proxy" ]]; then eval "$(apt-config shell proxy "$key")"; fi
    done
    case "$proxy" in
    '') ;;
    DIRECT) unset "${scheme}_proxy" ;;
    *) export "${scheme}_proxy=$proxy" ;;
    esac
}

root_want() {
    want_program debootstrap debootstrap debootstrap
    want_program gpgv gpgv gpgv
    if [[ ! -r "$ROOT_KEYRING" ]]; then want "Debian's keys" debian-archive-keyring; fi
}

# Makes the folder, once for all who want it. Killed in between, it leaves a folder of another name, which the next one
# removes.
root_make() {
    local root new mirror started=$SECONDS
    root="$(root_folder)"
    new="$root.new"
    mkdir -p "$(dirname "$root")"
    exec 8>"$root.lock" # debootstrap holds it too, should it outlive us
    flock 8
    if ! root_made; then
        root_want
        install_missing
        mirror="$(root_mirror)"
        say "setting up RabbitMQ 4.0 of Debian $ROOT_SUITE in $root (this can take a minute or two)"
        rm -rf --one-file-system "$new" "$root"
        (
            root_proxy "$mirror"
            # What debootstrap mounts is gone with it.
            exec unshare --mount --propagation private debootstrap --variant=minbase --include=rabbitmq-server \
                --force-check-gpg --keyring="$ROOT_KEYRING" "$ROOT_SUITE" "$new" "$mirror"
        ) >"$root.log" 2>&1 || {
            say "debootstrap failed. The end of its messages ($root.log):"
            tail -n "$ROOT_LOG_LINES" "$root.log" >&2
            die "cannot set up RabbitMQ 4.0. Where a signature or key is missing: apt-get install debian-archive-keyring"
        }
        rm -rf "$new"/var/cache/apt/archives/*.deb "$new"/var/lib/apt/lists/*
        mkdir "$new$ROOT_DIR"
        echo '127.0.0.1 localhost' >"$new/etc/hosts"
        [[ -x "$new$ROOT_SERVER" ]] || die "Debian $ROOT_SUITE was set up in $new, but without $ROOT_SERVER"
        mv "$new" "$root"
        say "set up RabbitMQ 4.0 in $((SECONDS - started)) s; it stays in $root"
    fi
    exec 8>&-
}

# Sets `kind` and `root`, as scripts/broker says under --rabbitmq 4.
choose_4() {
    kind=node
    if server_is_4; then return; fi
    root="$(root_folder)"
    if root_made && root_enterable; then
        return
    elif docker_answers; then
        kind=docker root=''
    elif root_makeable; then
        root_make
    else
        die "no RabbitMQ 4 is available. One of these is needed:
  - a rabbitmq-server of version 4 installed
  - a running Docker engine with docker compose
  - Debian or a relative of it, and root (debootstrap and chroot)"
    fi
}

# Prints the packages that choose_4 would install.
packages_4() {
    if server_is_4 || { root_made && root_enterable; } || docker_answers || ! root_makeable; then return; fi
    root_want
    echo ${needed[@]+"${needed[@]}"}
}

server_is_4() {
    local server
    server="$(server_find)" && [[ "$(server_version "$server")" == 4.* ]]
}

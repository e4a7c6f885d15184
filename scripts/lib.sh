# Shared by the scripts beside it; to be sourced. Runs in bash 3.2 too, which is what macOS has: no
# associative arrays, no `wait -n`, no ${x,,}.
# shellcheck shell=bash

# Messages name the script that speaks.
say() { echo "$(basename "$0"): $*" >&2; }

die() {
    say "$*"
    exit 1
}

as_root() {
    if [[ "$(id -u)" == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# True where packages can be installed without asking anybody: apt-get, and root or sudo without a password.
can_install() {
    command -v apt-get >/dev/null || return 1
    [[ "$(id -u)" == 0 ]] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

apt_install() { # PACKAGE…
    say "installing $* with apt-get (this can take a minute)"
    {
        as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    } >&2 || die "apt-get could not install $*; its messages are above"
}

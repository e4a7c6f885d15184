# What a script needs from the machine: it is looked for, and what is missing is installed after the person agreed. To be
# sourced after lib.sh, in the project's directory. Runs in bash 3.2, as lib.sh does.
# shellcheck shell=bash

# ---------------------------------------------------------------------------------------------------
# What is missing. A script says what it wants, once for each thing, and then installs all of it at once.

missing=''       # the names, for people
packages=()      # the packages of Debian that have them
rust_from=''     # where Rust comes from: toolchain (rustup is here), rustup (a package) or installer; empty: it is here
other_ways=''    # what helps as well, for the message that nothing can be installed here
with_yes="$0"    # the command that installs without a question; a script that needs arguments sets it

readonly RUST_INSTALLER=https://sh.rustup.rs
readonly CERTIFICATES=/etc/ssl/certs/ca-certificates.crt # where Debian has them

want() { # NAME PACKAGE…
    case ", $missing, " in *", $1, "*) return ;; esac
    missing="${missing:+$missing, }$1"
    shift
    needed+=("$@")
}

# The path of a program. Unlike `command -v` it does not find what bash has built in, which other programs cannot run.
program() { type -P "$1"; }

want_program() { # PROGRAM NAME PACKAGE…
    if program "$1" >/dev/null; then return; fi
    shift
    want "$@"
}

# A compiler without the headers of the C library is of no use: Debian's gcc comes without them.
want_c_compiler() {
    if program cc >/dev/null && echo '#include <stdlib.h>' | cc -x c -fsyntax-only - 2>/dev/null; then return; fi
    want "a C compiler" gcc libc6-dev
}

# Without certificates of public authorities nothing can be fetched by https.
want_certificates() {
    if [[ ! -e "$CERTIFICATES" ]] && program apt-get >/dev/null; then want "certificates" ca-certificates; fi
}

want_pip() {
    want_program python3 "Python" python3
    if ! python3 -m pip --version >/dev/null 2>&1; then want "pip" python3-pip; fi
}

want_npm() {
    want_program node "Node.js" nodejs
    want_program npm "npm" npm
}

# COMMAND prints the packages that have to be installed for the server: none if there is one.
want_server() { # NAME COMMAND…
    local name="$1" printed
    shift
    printed="$("$@")" || exit 1
    # shellcheck disable=SC2086 # several words
    if [[ -n "$printed" ]]; then want "$name" $printed; fi
}

# ---------------------------------------------------------------------------------------------------
# Rust

rust_version() { sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml | head -n 1; }
rust_channel() { sed -n 's/^channel = "\(.*\)".*/\1/p' rust-toolchain.toml; }

# A cargo that was installed after this shell was started is not in its PATH.
find_cargo() {
    local bin="${CARGO_HOME:-$HOME/.cargo}/bin"
    if [[ -x "$bin/cargo" ]] && { [[ "${1:-}" == first ]] || ! program cargo >/dev/null; }; then PATH="$bin:$PATH"; fi
}

# True if cargo is rustup's, which then takes the version from rust-toolchain.toml.
is_rustups() {
    local cargo
    cargo="$(program cargo)" && [[ -x "${cargo%/*}/rustup" ]]
}

# True if what cargo calls is new enough, and has what is asked for. It never makes rustup fetch anything.
rust_works() { # SUBCOMMAND…
    local found oldest subcommand
    if is_rustups && [[ -z "${RUSTUP_TOOLCHAIN:-}" ]]; then
        rustup toolchain list 2>/dev/null | grep -qE "^$(rust_channel)(-| |\$)" || return 1
    fi
    found="$(RUSTUP_AUTO_INSTALL=0 cargo --version 2>/dev/null)" || return 1
    found="${found#cargo }"
    oldest="$(rust_version)"
    if ((${found%%.*} == ${oldest%%.*})); then found="${found#*.}" oldest="${oldest#*.}"; fi
    ((${found%%.*} >= ${oldest%%.*})) || return 1
    for subcommand in "$@"; do
        RUSTUP_AUTO_INSTALL=0 cargo "$subcommand" --version >/dev/null 2>&1 || return 1
    done
}

# SUBCOMMANDs are the parts of cargo that are needed in addition to `cargo build`: fmt, clippy.
want_rust() { # SUBCOMMAND…
    rust_subcommands=("$@")
    find_cargo
    if rust_works "$@"; then return; fi
    want_certificates
    if is_rustups; then
        rust_from=toolchain
        want "Rust $(rust_channel)"
    elif ! program cargo >/dev/null && can_install && apt_has rustup; then
        rust_from=rustup
        want "Rust $(rust_channel)" rustup
    else
        rust_from=installer
        want "Rust $(rust_channel)"
        want_program curl "curl" curl
    fi
}

install_rust() {
    local script fallback
    if [[ "$rust_from" == installer ]]; then
        script="$(mktemp "${TMPDIR:-/tmp}/rustup-init.XXXXXX")"
        curl --proto '=https' --tlsv1.2 --silent --show-error --fail --output "$script" "$RUST_INSTALLER" ||
            die "cannot fetch Rust's installer from $RUST_INSTALLER"
        # A Rust that is too old stays where it is; ours comes first in the PATH.
        RUSTUP_INIT_SKIP_PATH_CHECK=yes sh "$script" -y --profile minimal --default-toolchain none >&2 ||
            die "Rust's installer failed; its messages are above"
        rm -f "$script"
        find_cargo first
    fi
    if rust_works ${rust_subcommands[@]+"${rust_subcommands[@]}"}; then return; fi
    say "fetching Rust $(rust_channel) with rustup (this can take a minute)"
    if ! rustup toolchain install "$(rust_channel)" --no-self-update --profile minimal --component rustfmt \
        --component clippy >&2; then
        # Without a network the machine's own Rust may do.
        fallback="$(rustup default 2>/dev/null | sed 's/ .*//')"
        export RUSTUP_TOOLCHAIN="$fallback"
        if [[ -z "$fallback" ]] || ! rust_works ${rust_subcommands[@]+"${rust_subcommands[@]}"}; then
            die "rustup could not install Rust $(rust_channel); its messages are above"
        fi
        say "using $fallback of this machine instead: lints may differ"
    fi
    rust_works ${rust_subcommands[@]+"${rust_subcommands[@]}"} || die "Rust is installed, but does not work: cargo --version"
}

# ---------------------------------------------------------------------------------------------------
# Installing

# CI=true says that no person is there, as it does for other tools.
agreed() {
    case "${LANEKEEPER_YES:-${CI:-}}" in
    '' | 0 | false | no) return 1 ;;
    esac
}

# Scripts call it for --yes; the scripts that they start inherit it.
agree() { export LANEKEEPER_YES=1; }

# Looked at once: later on, input may come from a pipe of our own.
if [[ -t 0 && -t 2 ]]; then readonly TERMINAL=yes; else readonly TERMINAL=''; fi
at_terminal() { [[ -n "$TERMINAL" ]]; }

as_root() {
    if [[ "$(id -u)" == 0 ]]; then
        "$@"
    elif at_terminal; then
        sudo "$@" # may ask for the password
    else
        sudo -n "$@"
    fi
}

# True if packages can be installed from here: apt-get, and root, or a sudo that asks nothing or can ask a person.
can_install() {
    program apt-get >/dev/null || return 1
    if [[ "$(id -u)" != 0 ]]; then
        program sudo >/dev/null && { at_terminal || sudo -n true 2>/dev/null; }
    fi
}

apt_has() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [0-9]'; } # PACKAGE

# How a person installs the packages.
package_command() {
    local package names=''
    if program apt-get >/dev/null; then
        echo "apt-get update && apt-get install --no-install-recommends ${needed[*]}   (as root)"
        return
    fi
    # Some have no name there.
    for package in "${needed[@]}"; do
        package="$(package_elsewhere "$package")"
        names="$names${package:+ $package}"
    done
    if program dnf >/dev/null; then
        echo "dnf install$names   (as root)"
    elif program pacman >/dev/null; then
        echo "pacman -S --needed$names   (as root)"
    elif program brew >/dev/null; then
        case " ${needed[*]} " in *' gcc '*) echo -n 'xcode-select --install; ' ;; esac
        echo "brew install$names"
    else
        echo "the package manager of this system: ${needed[*]} are the names on Debian"
    fi
}

# What Fedora, Arch or Homebrew call a package of Debian.
package_elsewhere() { # PACKAGE
    case "$1" in
    libc6-dev | ca-certificates) ;; # part of another
    gcc) if ! program brew >/dev/null; then echo gcc; fi ;; # xcode-select has it
    rabbitmq-server) if program dnf >/dev/null; then echo "$1"; else echo rabbitmq; fi ;;
    postgresql) if program dnf >/dev/null; then echo postgresql-server; else echo "$1"; fi ;;
    prometheus) if program dnf >/dev/null; then echo golang-github-prometheus; else echo "$1"; fi ;;
    chromium-driver) if program dnf >/dev/null || program brew >/dev/null; then echo chromedriver; fi ;; # or with chromium
    python3-pip) if program dnf >/dev/null; then echo "$1"; elif program pacman >/dev/null; then echo python-pip; fi ;;
    python3) if program dnf >/dev/null; then echo "$1"; else echo python; fi ;;
    nodejs) if program brew >/dev/null; then echo node; else echo "$1"; fi ;;
    npm) if ! program brew >/dev/null; then echo "$1"; fi ;;
    iproute2) if program dnf >/dev/null; then echo iproute; elif program brew >/dev/null; then :; else echo "$1"; fi ;;
    procps) if program brew >/dev/null; then :; else echo procps-ng; fi ;;
    *) echo "$1" ;;
    esac
}

# Says what is missing and how it comes, and asks, unless the person agreed before.
ask() {
    local answer
    say "this machine lacks: $missing"
    if ((${#needed[@]} > 0)); then
        if ! can_install; then
            say "install it with: $(package_command)"
            if [[ "$rust_from" == installer ]]; then say "and Rust as https://rustup.rs says"; fi
            die "nothing was installed${other_ways:+. Instead of installing a server, one of these will do:
$other_ways}"
        fi
        say "to be installed with apt-get, as root: ${needed[*]}"
    fi
    case "$rust_from" in
    toolchain | rustup) say "to be fetched by rustup, into ${RUSTUP_HOME:-$HOME/.rustup}: Rust $(rust_channel)" ;;
    installer)
        say "to be installed with the installer of $RUST_INSTALLER: Rust $(rust_channel), into ${CARGO_HOME:-$HOME/.cargo}" \
            "and ${RUSTUP_HOME:-$HOME/.rustup}; your shell's profile gets a line for the PATH"
        ;;
    esac
    # Whoever has rustup expects it to fetch what a project names.
    if agreed || { [[ "$rust_from" == toolchain ]] && ((${#needed[@]} == 0)); }; then return; fi
    at_terminal || die "nothing was installed, since nobody can be asked here. To install it: $with_yes --yes"
    read -r -p "Install it? [y/N] " answer || true
    case "$answer" in
    y | Y | yes) agree ;;
    *) die "nothing was installed" ;;
    esac
}

# Installs what was wanted; ends the script if that cannot be done.
install_missing() {
    if [[ -z "$missing" ]]; then return; fi
    ask
    if ((${#needed[@]} > 0)); then
        say "installing ${needed[*]} (this can take a minute or two)"
        install_packages "${needed[@]}" >&2 || die "apt-get could not install them; its messages are above"
    fi
    if [[ -n "$rust_from" ]]; then install_rust; fi
    missing='' needed=() rust_from=''
}

# The Debian package of a server starts a service on the standard port, now and at every boot. Nobody asked for that one:
# a policy keeps it from starting while it is installed (the way that Debian provides), unless the machine has a policy
# already, which then decides.
install_packages() ( # PACKAGE…; in a subshell, for its trap
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e "$policy" ]]; then
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    as_root apt-get update -qq || exit 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" || exit 1
    if [[ -d /run/systemd/system ]]; then
        for package in "$@"; do
            case "$package" in
            rabbitmq-server | postgresql | prometheus)
                as_root systemctl disable --quiet "$package" || true
                say "the system's own $package was not started, and is off at boot"
                ;;
            esac
        done
    fi
)

# ---------------------------------------------------------------------------------------------------
# Libraries of other languages, into a folder of the project. What the machine has of them is neither looked at nor changed.

pip_has() { [[ -d "$1/$2-$3.dist-info" ]]; } # DIR NAME VERSION

# Whole or not at all. Settings with which people keep pip out of the system would keep it out of the folder too.
pip_into() { # DIR NAME==VERSION…
    local dir="$1"
    shift
    rm -rf "$dir" "$dir.new"
    PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore \
        python3 -m pip install --quiet --disable-pip-version-check --target "$dir.new" "$@" ||
        die "pip could not install $*; its messages are above"
    mv "$dir.new" "$dir"
}

npm_has() { grep -q "\"version\": \"$3\"" "$1/node_modules/$2/package.json" 2>/dev/null; } # DIR NAME VERSION

npm_into() { # DIR NAME@VERSION…
    local dir="$1"
    shift
    rm -rf "$dir" "$dir.new"
    mkdir -p "$dir.new"
    npm install --loglevel=error --no-audit --no-fund --no-save --global=false --prefix "$dir.new" "$@" >/dev/null ||
        die "npm could not install $*; its messages are above"
    mv "$dir.new" "$dir"
}

# ---------------------------------------------------------------------------------------------------
# What cargo builds. Its folder is not always `target`: CARGO_TARGET_DIR, build.target-dir and build.target move it.

target_directory() {
    cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Builds with `cargo build ARGS…` and prints the path of the program called NAME, wherever cargo puts it.
build_program() { # NAME ARGS…
    local name="$1" path
    shift
    path="$(cargo build --locked --message-format=json-render-diagnostics "$@" |
        sed -n 's/.*"name":"'"$name"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)" || return 1
    [[ -x "$path" ]] || die "cargo built no program $name"
    echo "$path"
}

# Builds lanekeeper and lanekeeper-lab, which looks for it beside itself, as they are released; prints the path of the latter.
build_lab() { build_program lanekeeper-lab --release --package lanekeeper --package lanekeeper-lab --bins "$@"; }

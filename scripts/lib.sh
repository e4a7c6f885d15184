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

# A Debian package starts a service of the system's own, on the standard port and at every boot. Nobody asked
# for that one: it is kept from starting by a policy for the time of the installation (the way that Debian
# provides), unless the machine has a policy already, which then decides.
install_server() { # PACKAGE SERVICE
    local policy=/usr/sbin/policy-rc.d guarded='' service='was not started'
    if [[ ! -e "$policy" ]]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        guarded=yes
        # shellcheck disable=SC2064 # the path as it is now
        trap "as_root rm -f '$policy'" EXIT
    fi
    apt_install "$1"
    if [[ -n "$guarded" ]]; then
        as_root rm -f "$policy"
        trap - EXIT
    else
        service="was started or not as the machine's own $policy says"
    fi
    if [[ -d /run/systemd/system ]]; then
        as_root systemctl disable --quiet "$2" >&2 || true
        service="$service, and is off at boot"
    fi
    say "installed $1; its system service $service"
}

# ---------------------------------------------------------------------------------------------------
# Processes, always by id. An id out of a file may by now be somebody else's, so it counts as ours only
# if its command line carries a mark that we put there. A zombie has no command line and counts as gone.

command_line() {
    if [[ -d /proc/self ]]; then
        { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true
    else
        ps -ww -o args= -p "$1" 2>/dev/null || true
    fi
}

is_ours() { # PID MARK
    [[ -n "$1" ]] && [[ "$(command_line "$1")" == *"$2"* ]]
}

wait_gone() { # PID MARK SECONDS
    local deadline=$((SECONDS + $3))
    while is_ours "$1" "$2"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

kill_ours() { # SIGNAL PID MARK
    if is_ours "$2" "$3"; then kill -s "$1" "$2" 2>/dev/null || true; fi
}

# Runs a command in the background in a process group of its own, so that Ctrl-C at the terminal does not
# reach it; sets `launched` to its process id.
launch() { # LOG COMMAND…
    local log="$1"
    shift
    set -m
    (
        trap '' HUP
        # Whatever we inherited (a lock, a pipe somebody waits on) must not be held open by a broker.
        for ((fd = 3; fd < 255; fd++)); do eval "exec $fd>&-"; done
        exec "$@"
    ) </dev/null >>"$log" 2>&1 &
    launched=$!
    disown "$launched"
    set +m
}

# ---------------------------------------------------------------------------------------------------
# Ports

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Sets each of the named variables to a port that is free now, below the range from which Linux and macOS
# take the ports of outgoing connections.
choose_ports() { # NAME…
    local variable candidate taken=' '
    for variable in "$@"; do
        while :; do
            candidate=$((21000 + RANDOM % 11000))
            if [[ "$taken" != *" $candidate "* ]] && ! port_open "$candidate"; then break; fi
        done
        taken="$taken$candidate "
        printf -v "$variable" '%s' "$candidate"
    done
}

# Two starts on one DIR must not run at once.
lock() { # DIR
    local holder
    mkdir -p "$1"
    while ! (
        set -C
        echo "$$" >"$1/lock"
    ) 2>/dev/null; do
        holder="$(cat "$1/lock" 2>/dev/null || true)"
        if [[ -n "$holder" ]] && ! kill -0 "$holder" 2>/dev/null; then
            rm -f "$1/lock"
        else
            sleep 0.1
        fi
    done
    locked="$1"
}

unlock() {
    if [[ -n "$locked" ]]; then rm -f "$locked/lock"; fi
    locked=''
}

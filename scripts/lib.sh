# Shared by the scripts beside it; to be sourced. Runs in bash 3.2 too, which is what macOS has: no
# associative arrays, no `wait -n`, no ${x,,}.
# shellcheck shell=bash

# Messages name the script that speaks.
say() { echo "$(basename "$0"): $*" >&2; }

die() {
    say "$*"
    exit 1
}

# Prints the comment at the top of a script, which is its help, and ends.
help_of() { # SCRIPT
    awk 'NR == 1 || NR == 2 && /^#$/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$1"
    exit
}

# ---------------------------------------------------------------------------------------------------
# Processes, always by id. An id from a file may belong to another program by now, so it counts as ours only
# if its command line has a mark that we put there. A zombie has no command line and counts as gone.

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

# Runs a command for at most so long, as `timeout` does, which macOS lacks. Exit code 124: it was ended.
time_limit() { # SECONDS COMMAND…
    local process deadline=$((SECONDS + $1))
    shift
    "$@" <&0 &
    process=$!
    while kill -0 "$process" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            kill "$process" 2>/dev/null || true
            wait "$process" || true
            return 124
        fi
        sleep 0.1
    done
    wait "$process"
}

# Runs a command in the background in a process group of its own, so that Ctrl-C at the terminal does not
# reach it; sets `launched` to its process id.
launch() { # LOG COMMAND…
    local log="$1"
    shift
    set -m
    (
        trap '' HUP
        # A broker must not hold open what we inherited (a lock, a pipe that another process waits on).
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

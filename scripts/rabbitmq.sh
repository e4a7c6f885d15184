# Where RabbitMQ and Erlang are on this machine; to be sourced by scripts/broker and scripts/cluster after lib.sh, before
# rabbitmq4.sh. `root` is the folder that RabbitMQ runs in, empty for the machine itself.
# shellcheck shell=bash

server_find() {
    if [[ -n "${LANEKEEPER_RABBITMQ_SERVER+set}" ]]; then
        [[ -n "$LANEKEEPER_RABBITMQ_SERVER" ]] || return 1
        [[ -x "$LANEKEEPER_RABBITMQ_SERVER" ]] ||
            die "LANEKEEPER_RABBITMQ_SERVER names no program: $LANEKEEPER_RABBITMQ_SERVER"
        echo "$LANEKEEPER_RABBITMQ_SERVER"
        return
    fi
    # Packages of Debian, Fedora and Arch put a wrapper into the PATH that changes to the user rabbitmq and
    # insists on the system's directories; the program itself is in the first of these. It runs as any user.
    local path
    for path in /usr/lib/rabbitmq/bin/rabbitmq-server \
        /opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server /usr/local/opt/rabbitmq/sbin/rabbitmq-server \
        /opt/rabbitmq/sbin/rabbitmq-server "$(command -v rabbitmq-server || true)"; do
        if [[ -n "$path" && -x "$path" ]]; then
            echo "$path"
            return
        fi
    done
    return 1
}

# Its version, by the name of its folder, since asking it takes seconds; nothing if the folder's name has none.
server_version() { # SERVER
    local path
    for path in "${1%/*}"/../lib/rabbitmq_server-[0-9]* "${1%/*}"/../plugins/rabbit-[0-9]*; do
        if [[ -e "$path" ]]; then
            path="${path##*-}"
            echo "${path%.ez}"
            return
        fi
    done
}

# The server of this broker, as the broker's own processes see it.
server_path() {
    if [[ -n "$root" ]]; then echo "$ROOT_SERVER"; else server_find; fi
}

# Sets `enter` to what a command of this broker's tools begins with: nothing, or the way into the root folder.
enter_set() { # DIR
    enter=()
    if [[ -n "$root" ]]; then root_enter "$root" "$1"; fi
}

epmd_find() {
    local path erlang
    if [[ -n "$root" ]]; then
        echo epmd # found once in there
        return
    fi
    if path="$(command -v epmd)"; then
        echo "$path"
        return
    fi
    erlang="$(erl -noshell -eval 'io:put_chars(code:root_dir()), halt().' 2>/dev/null)" || return 1
    for path in "$erlang"/erts-*/bin/epmd; do
        if [[ -x "$path" ]]; then
            echo "$path"
            return
        fi
    done
    return 1
}

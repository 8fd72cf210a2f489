#!/bin/sh
# A place for the demo: demo.sh COMMAND [ARG...]
#
# Runs COMMAND with MITOGEN_DEMO_ADDRESSES set to one address a line: local; ssh to a throwaway
# user of this machine, over a private sshd on loopback; from there sudo to nobody; and one hop
# more. Installs openssh-server and sudo if they are missing and it may, and says so. Where it may
# not, it does the local part and says what it left out. Removes all that it made, always.
set -u
PATH=$PATH:/usr/sbin:/sbin
setup=$(dirname "$0")/../../../.ci/make/setup
folder='' user='' server='' rules=''

# Prints a process and what descends from it.
family() {
    echo "$1"
    for child in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do family "$child"; done
}

uses_uid() {
    for status in /proc/[0-9]*/status; do
        if grep -q "^Uid:[[:space:]]$1[[:space:]]" "$status" 2>/dev/null; then
            pid=${status#/proc/}
            echo "${pid%/status}"
        fi
    done
}

clean_up() {
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$server" ]; then
        # A session outlives the server, so both are looked up before either ends.
        # shellcheck disable=SC2046 # a list of numbers
        kill $(family "$server") 2>/dev/null
        wait "$server" 2>/dev/null
    fi
    [ -z "$rules" ] || rm -f "$rules"
    if [ -n "$user" ]; then
        uid=$(id -u "$user")
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            left=$(uses_uid "$uid")
            [ -n "$left" ] || break
            # shellcheck disable=SC2086 # a list of numbers
            kill -9 $left 2>/dev/null
            sleep 0.1
        done
        userdel --remove --force "$user" >/dev/null 2>&1
    fi
    [ -z "$folder" ] || rm -rf "$folder"
}

finish() {
    clean_up
    exit "$1"
}

left_out() {
    echo "demo: left out, for $1: ssh to a user of this machine, sudo from there, a third hop" >&2
}

# Sets `port`, and `server` to the process that listens there.
start_server() {
    port=20000
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        port=$((port + $(od -An -N2 -tu2 /dev/urandom) % 4000 + 1))
        cat >"$folder/config" <<END
ListenAddress 127.0.0.1:$port
HostKey $folder/host_key
AuthorizedKeysFile $folder/authorized_keys
AllowUsers $user
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
END
        "$sshd" -D -e -f "$folder/config" 2>"$folder/log" </dev/null &
        server=$!
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            grep -q 'Server listening' "$folder/log" && return 0
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        kill "$server" 2>/dev/null
        wait "$server" 2>/dev/null
        server=''
    done
    cat "$folder/log" >&2
    return 1
}

# Sets `addresses` to all four, or fails and says why.
prepare() {
    [ "$(id -u)" = 0 ] || { left_out 'want of root'; return 1; }
    [ ! -x "$setup" ] || "$setup" hosts || return 1
    for tool in ssh ssh-keygen sshd sudo visudo useradd; do
        command -v "$tool" >/dev/null || { left_out "want of $tool"; return 1; }
    done
    sshd=$(command -v sshd)
    folder=$(mktemp -d) && chmod 755 "$folder" && mkdir -p /run/sshd || return 1
    for key in host_key client_key; do
        ssh-keygen -q -t ed25519 -N '' -f "$folder/$key" || return 1
    done
    cp "$folder/client_key.pub" "$folder/authorized_keys"

    name=mgndemo$$
    useradd --create-home --shell /bin/sh --password '*' "$name" || return 1
    user=$name
    echo "$user ALL=(nobody) NOPASSWD: ALL" >"$folder/rules"
    visudo -cqf "$folder/rules" || return 1
    rules=/etc/sudoers.d/$user
    install -m 440 "$folder/rules" "$rules" || return 1
    start_server || return 1

    ssh="ssh:$user@127.0.0.1:$port?identity_file=$folder/client_key&check_host_keys=ignore"
    addresses="local
$ssh
$ssh/sudo:nobody
$ssh/sudo:nobody/local"
}

[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
trap 'finish 130' INT
trap 'finish 143' TERM
trap 'finish 129' HUP
trap 'finish 1' EXIT
if ! prepare; then
    addresses="local
local/local"
fi
MITOGEN_DEMO_ADDRESSES=$addresses "$@"
finish $?

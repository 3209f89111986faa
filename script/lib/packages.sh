# shellcheck shell=bash
# Installs Debian packages when the programs they bring are missing. Sourced, not run.
#
# Nothing installed here is started: neither a PostgreSQL cluster of the system nor its nginx.

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Whether a program is on the PATH, or in the administrator's directories, which an ordinary PATH lacks.
has_program() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]
}

has_postgres_server() {
    has_program postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

# Prints the packages to install for the tests, one per line: nothing when all programs are there.
missing_test_packages() {
    has_postgres_server || say postgresql
    { has_program psql && has_program pg_dump; } || say postgresql-client
    has_program nginx || say nginx
    # The OpenID provider of the tests, and the browser that logs in with it.
    has_program node || say nodejs
    has_program npm || say npm
    has_program chromium || say chromium
    has_program chromedriver || say chromium-driver
    has_program cc || printf '%s\n' gcc libc6-dev
}

# Installs the packages named. Uses sudo when it has to and can; says what to run when it cannot.
install_packages() {
    [ "$#" -gt 0 ] || return 0
    has_program apt-get || fail "There is no apt-get to install these with, please do it by hand: $*"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if has_program sudo && { sudo -n true 2>/dev/null || [ -t 2 ]; }; then
            as_root=(sudo)
        else
            fail "Packages are missing. As root, run: apt-get update && apt-get install $*"
        fi
    fi
    say "Installing $*"
    # The guard runs as root in one shell, so that its trap undoes what it did, whatever happens.
    "${as_root[@]}" bash -s -- "$@" <<'GUARD'
set -euo pipefail
policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.d
files=()
directories=()
restore() {
    [ "${#files[@]}" -eq 0 ] || rm -f -- "${files[@]}"
    # Those made here go when they are empty, that is when no package took them over.
    [ "${#directories[@]}" -eq 0 ] || rmdir -- "${directories[@]}" 2>/dev/null || true
}
trap restore EXIT
# Exit status 101: no service may be started (invoke-rc.d's policy layer). A machine that has a policy keeps
# it.
if [ ! -e "$policy" ]; then
    files+=("$policy")
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
# Only the first PostgreSQL server on a machine makes a cluster of its own accord.
[ -d "$clusters" ] || directories=("$clusters" "${clusters%/*}")
mkdir -p "$clusters"
files+=("$clusters/pgmoor-tests.conf")
printf 'create_main_cluster = false\n' >"$clusters/pgmoor-tests.conf"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "$@" </dev/null
GUARD
}

# shellcheck shell=bash
# The checkers CI runs besides cargo's own: buf, cargo-deny, shellcheck. Sourced, not run, after packages.sh.

readonly CARGO_DENY_VERSION=0.20.2

# Installs the pinned buf beneath target/ and sets BUF, which the sourcing script uses, to its path.
ensure_buf() {
    local directory=target/tools/buf
    if ! cmp -s script/buf/package-lock.json "$directory/package-lock.json" ||
        ! compgen -G "$directory/node_modules/@bufbuild/buf-*/bin/buf" >/dev/null; then
        local missing=()
        has_program node || missing+=(nodejs)
        has_program npm || missing+=(npm)
        install_packages "${missing[@]}"
        mkdir -p "$directory"
        cp script/buf/package.json script/buf/package-lock.json "$directory/"
        npm ci --prefix "$directory" --no-fund --no-audit --loglevel=error
    fi
    # One of the platforms' packages is installed: that of this machine.
    # shellcheck disable=SC2034 # read by the script that sources this file
    BUF=$(compgen -G "$directory/node_modules/@bufbuild/buf-*/bin/buf") ||
        fail "There is no buf for $(uname -m)."
}

# Installs the pinned cargo-deny where cargo keeps its programs, so that the next clone finds it. Takes
# minutes once.
ensure_cargo_deny() {
    if ! cargo deny --version 2>/dev/null | grep -qxF "cargo-deny $CARGO_DENY_VERSION"; then
        say "Building cargo-deny $CARGO_DENY_VERSION (once)"
        cargo install "cargo-deny@$CARGO_DENY_VERSION" --locked --force --quiet
    fi
}

ensure_shellcheck() {
    has_program shellcheck || install_packages shellcheck
}

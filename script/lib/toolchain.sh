# shellcheck shell=bash
# Makes sure that cargo of the version in rust-toolchain.toml is there. Sourced, not run, after packages.sh.

# The channel pinned in rust-toolchain.toml.
pinned_channel() {
    sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml
}

# Whether cargo is there and either obeys rust-toolchain.toml (rustup) or is new enough by itself.
has_toolchain() {
    command -v cargo >/dev/null 2>&1 || return 1
    command -v rustup >/dev/null 2>&1 && return 0
    local version
    version=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$(pinned_channel)" "$version" | sort -V | head -n 1)" = "$(pinned_channel)" ]
}

# Installs rustup (the distribution's where it has one, else by the official installer) and the pinned
# toolchain.
ensure_toolchain() {
    export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    has_toolchain && return 0
    if ! command -v rustup >/dev/null 2>&1; then
        if has_program apt-cache && apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
            install_packages rustup
        else
            has_program curl || install_packages curl ca-certificates
            say "Installing rustup"
            local installer
            installer=$(mktemp)
            curl --proto '=https' --tlsv1.2 --silent --show-error --fail --location \
                --output "$installer" https://sh.rustup.rs
            sh "$installer" -y --no-modify-path --profile minimal --default-toolchain none
            rm -f "$installer"
        fi
    fi
    # Before a cargo of the distribution that is too old.
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    rustup toolchain install "$(pinned_channel)" --profile minimal --component rustfmt --component clippy
    has_toolchain || fail "rustup is installed, but no cargo $(pinned_channel) was found on the PATH."
}

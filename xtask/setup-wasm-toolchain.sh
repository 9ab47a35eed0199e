#!/usr/bin/env bash
# Makes `cargo build --target wasm32-wasip2` work. Idempotent.
#
#   setup-wasm-toolchain.sh [--via auto|rustup|apt] [--override DIR] [--print]
#
#   auto (default): nothing to do if the active toolchain already has the target;
#         otherwise `rustup target add`, unless RUSTUP_AUTO_INSTALL=0 says that
#         rustup must not download; otherwise the apt way.
#   apt:  Debian 12 with package registries only.  rustc-web (bookworm-security)
#         + its std source compiled once for wasm32-wasip2 + wasi-libc of trixie,
#         linked into rustup under the name $NAME.
#   --override DIR  rustup override set $NAME --path DIR (plain `cargo` then works there)
#   --print         only print the toolchain to use (RUSTUP_TOOLCHAIN), after set-up
set -euo pipefail
TARGET=wasm32-wasip2
NAME=${WASM_TOOLCHAIN_NAME:-wasm}
VIA=auto OVERRIDE= PRINT=
REV=4                                    # bump to force a rebuild of std
while [ $# -gt 0 ]; do case $1 in
  --via) VIA=$2; shift 2;; --override) OVERRIDE=$2; shift 2;; --print) PRINT=1; shift;;
  *) echo "unknown argument $1" >&2; exit 2;; esac; done
log() { echo "wasm-toolchain: $*" >&2; }
finish() { # $1 = toolchain name, or empty for the active one
  [ -z "$OVERRIDE" ] || [ -z "$1" ] || rustup override set "$1" --path "$OVERRIDE" >/dev/null 2>&1
  [ -z "$PRINT" ] || echo "${1:-$(rustup show active-toolchain 2>/dev/null | cut -d' ' -f1)}"
  [ -n "$PRINT" ] || log "ready (toolchain ${1:-active})"; exit 0
}

# 1. A toolchain that has the target already, or rustup can add it.
if [ "$VIA" != apt ] && command -v rustc >/dev/null; then
  libdir=$(rustc --print target-libdir --target $TARGET 2>/dev/null || true)
  if ls "$libdir"/libcore-*.rlib >/dev/null 2>&1; then finish ""; fi
  if [ "$VIA" = rustup ] || [ "${RUSTUP_AUTO_INSTALL:-1}" != 0 ]; then
    if timeout 300 rustup target add $TARGET >&2; then finish ""; fi
    [ "$VIA" = rustup ] && { echo "rustup could not add $TARGET" >&2; exit 1; }
  fi
fi

# 2. apt.
SUDO=; [ "$(id -u)" = 0 ] || SUDO=sudo
HOST=x86_64-unknown-linux-gnu
DEST=/usr/lib/rustlib/$TARGET
STAMP=$DEST/.built-for
want() { echo "$(/usr/bin/rustc -vV | sed -n 's/^release: //p') $(/usr/bin/rustc -vV | sed -n 's/^commit-hash: //p') rev$REV"; }
if [ -x /usr/bin/rustc ] && [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(want)" ] \
   && [ -e /usr/lib/rustlib/$HOST/bin/wasm-ld ]; then
  [ -n "$PRINT" ] || log "std for $TARGET is up to date"
else
  export DEBIAN_FRONTEND=noninteractive
  need=(); for p in rustc-web cargo-web rust-web-src rust-web-llvm rust-web-clippy rustfmt-web gcc libc6-dev; do
    dpkg -s $p >/dev/null 2>&1 || need+=($p); done
  if [ ${#need[@]} -gt 0 ]; then
    log "installing ${need[*]}"
    $SUDO apt-get update -qq >&2
    $SUDO apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
  fi
  LLVM=$(/usr/bin/rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
  dpkg -s lld-$LLVM >/dev/null 2>&1 || $SUDO apt-get install -y -qq --no-install-recommends lld-$LLVM >/dev/null
  # rustc puts rustlib/HOST/bin on the PATH of the linker, and wasm-component-ld looks for wasm-ld there
  $SUDO ln -sfn /usr/bin/wasm-ld-$LLVM /usr/lib/rustlib/$HOST/bin/wasm-ld

  W=$(mktemp -d "${TMPDIR:-/tmp}/wasm-std.XXXXXX"); trap 'rm -rf "$W"' EXIT
  # wasi-libc with wasip2: bookworm's (2022) has none, trixie's does. An isolated apt view of
  # trixie fetches that one arch:all package; the machine's own sources stay as they are.
  mkdir -p "$W"/apt/lists/partial "$W"/apt/cache/archives/partial; chmod 755 "$W"
  # The mirror is the one this machine's own sources name (the suite without a dash: not -security, not -updates).
  MIRROR=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' | awk '$3 == "main" && $2 !~ /-/ {print $1; exit}')
  test -n "$MIRROR" || { echo "no Debian mirror in this machine's apt sources" >&2; exit 1; }
  echo "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR ${WASI_LIBC_SUITE:-trixie} main" > "$W/apt/sources.list"
  A=(-qq -o Dir::Etc::sourcelist="$W/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
     -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
     -o Dir::State::lists="$W/apt/lists" -o Dir::Cache="$W/apt/cache" -o APT::Sandbox::User=root
     -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
     -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
  log "fetching wasi-libc"; apt-get "${A[@]}" update >&2
  (cd "$W" && apt-get "${A[@]}" download wasi-libc >&2 && dpkg -x wasi-libc_*.deb libc)
  L=$W/libc/usr/lib/$TARGET
  test -f "$L/libc.a"

  log "compiling std of $(/usr/bin/rustc -V) for $TARGET (about a minute)"
  RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$W/target \
  RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes -Cdebuginfo=0 -Lnative=$L" \
  env -u RUSTUP_TOOLCHAIN -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER /usr/bin/cargo build -q --release --locked --target $TARGET \
    --manifest-path /usr/lib/rustlib/src/rust/library/sysroot/Cargo.toml 2>"$W/log" || { cat "$W/log" >&2; exit 1; }

  $SUDO rm -rf "$DEST"
  $SUDO install -d "$DEST/lib/self-contained"
  $SUDO install -m644 "$W"/target/$TARGET/release/deps/*.rlib "$DEST/lib/"
  # trixie's libc.a leaves pthread_{create,join,detach} to libwasi-emulated-pthread.a (they only fail);
  # std::thread names them, so debug builds and `cargo test` need both (newer wasi-libc has them in libc.a)
  { echo "create $W/libc.a"; echo "addlib $L/libc.a"
    [ ! -f "$L/libwasi-emulated-pthread.a" ] || echo "addlib $L/libwasi-emulated-pthread.a"
    echo save; echo end; } | /usr/bin/llvm-ar-$LLVM -M
  $SUDO install -m644 "$L"/crt1-command.o "$L"/crt1-reactor.o "$W/libc.a" "$DEST/lib/self-contained/"
  want | $SUDO tee "$STAMP" >/dev/null
  log "installed $(du -sh "$DEST" | cut -f1) in $DEST"
fi
if command -v rustup >/dev/null; then
  [ "$(rustup run $NAME rustc --print sysroot 2>/dev/null || true)" = /usr ] || rustup toolchain link $NAME /usr
  finish $NAME
fi
finish ""

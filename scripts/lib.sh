# shellcheck shell=bash
# What the scripts beside this file share: talk, packages, waiting, an engine that answers.
# To be sourced; sets ROOT to the repository and changes there.

set -Eeuo pipefail
# No script ends without a word.
trap 'printf "error: %s:%s: \`%s\` failed\n" "${BASH_SOURCE[0]}" "$LINENO" "$BASH_COMMAND" >&2' ERR
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

# Talk goes to stderr, like docket's own.
say() { printf '==> %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf 'hint: %s\n' "$line" >&2; done
  exit 1
}

# usage NAME: prints the comment at the head of the script.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# await SECONDS COMMAND...: runs the command until it succeeds; fails when the time is up.
await() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "needs root for: $*" "run this as root, or install sudo"
  fi
}

# install PACKAGE...: installs those Debian packages that are missing, if any is.
install() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null \
    || die "missing: ${missing[*]}" "install them by hand: this script knows Debian's apt-get only"
  say "installing ${missing[*]}"
  local quiet=(-qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update "${quiet[@]}" >&2 \
    || say "apt-get update complained; trying with the lists that are there"
  local words
  words=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${quiet[@]}" \
    "${missing[@]}" 2>&1) || {
    printf '%s\n' "$words" >&2
    die "could not install ${missing[*]}" "apt-get's words are above"
  }
}

# A server for ssh, for tests of repositories. Where it is new it is neither started nor enabled.
install_sshd() {
  [ -x /usr/sbin/sshd ] && return
  local policy=/usr/sbin/policy-rc.d made=0
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
    made=1
  fi
  install openssh-server
  if [ $made -eq 1 ]; then as_root rm -f $policy; fi
  if [ -d /run/systemd/system ]; then as_root systemctl disable --quiet ssh.service ssh.socket || true; fi
}

# What building needs beside Rust: a C compiler (ring), OpenSSL's headers (a crate compiled and never used).
install_build_tools() {
  command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null || die "no cargo" "install Rust 1.95 or later: https://rustup.rs"
  command -v cc >/dev/null || install gcc libc6-dev
  install pkg-config libssl-dev
}

engine_answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# The engine that docker talks to, in words.
engine_words() {
  docker version --format '{{.Server.Version}} (API {{.Server.APIVersion}})' 2>/dev/null
}

# http METHOD HOST:PORT PATH [BODY]: prints the body; fails if nobody answers or the status is not 2xx or 3xx.
# Bash alone: a fresh machine need not have curl.
http() {
  local method=$1 address=$2 path=$3 body=${4-} status line
  exec 9<>"/dev/tcp/${address%:*}/${address##*:}" || return 1
  printf '%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
    "$method" "$path" "$address" "$(printf %s "$body" | wc -c)" "$body" >&9
  IFS=' ' read -r -t 10 _ status _ <&9 || { exec 9>&-; return 1; }
  while IFS= read -r -t 10 line <&9 && [ "${line%$'\r'}" != "" ]; do :; done
  timeout 10 cat <&9 || true
  exec 9>&- 9<&-
  case $status in 2?? | 3??) ;; *) return 1 ;; esac
}

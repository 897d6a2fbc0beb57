#!/bin/sh
# Starts a group of three members on this machine over one dataset, serves until it is interrupted, and removes all of
# it then. Usage: deploy/group-demo.sh DATASET URI [FOLDER [FIRST_PORT]]
#
# FOLDER (/dev/shm/forebay-group, new) gets a cache directory and a tier for each member, and reader.toml: the settings
# of a client of the group that keeps nothing itself.
set -eu

dataset=$1 uri=$2 folder=${3:-/dev/shm/forebay-group} first=${4:-7070}
mkdir "$folder"
members=
trap 'kill $members 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
trap 'exit 0' INT TERM

cat > "$folder/reader.toml" <<END
cache_dir = "$folder/reader"
group = "demo"
peers = ["127.0.0.1:$first", "127.0.0.1:$((first + 1))", "127.0.0.1:$((first + 2))"]

[[tiers]]
path = "$folder/reader-tier"
quota = "64MiB"
medium = "MEM"
END
forebay --config "$folder/reader.toml" attach "$dataset" "$uri" --immutable --local-copy never

for number in 0 1 2; do
    forebay --cache-dir "$folder/m$number" --tier "$folder/t$number:256MiB:MEM" attach "$dataset" "$uri" --immutable
    forebay --cache-dir "$folder/m$number" serve --group demo --listen "127.0.0.1:$((first + number))" \
        --peers "127.0.0.1:$first" &
    members="$members $!"
done
wait

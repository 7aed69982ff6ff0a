# ground.sh: where things lie, and how the lab's scripts speak. Sourced, never run.
# shellcheck shell=bash

LAB_PARTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CHECKOUT=$(cd "$LAB_PARTS/../.." && pwd)
CACHE=${NARROWS_CACHE:-$CHECKOUT/.cache/lab}
mkdir -p "$CACHE"
# Programs are run from other folders, so a relative path would break.
CACHE=$(cd "$CACHE" && pwd)
ROOT=$CACHE/root

# progress TEXT...: one line on stderr with the seconds since the start.
progress() {
    printf '[%4ds] %s\n' "$SECONDS" "$*" >&2
}

# refuse ID WHAT WHY FIX: says what cannot be done and ends. Status 2 tells it from a failed test.
refuse() {
    printf 'error[%s]: %s\n  why: %s\n  fix: %s\n' "$1" "$2" "$3" "$4" >&2
    exit 2
}

# checksum FILE...: one checksum over the contents of all files, or over stdin.
checksum() {
    cat -- "$@" | sha256sum | cut -d' ' -f1
}

# is_fresh THING KEY: true when THING was made from what KEY describes.
is_fresh() {
    [[ -e $1 && -f $1.key && $(<"$1.key") == "$2" ]]
}

# settle TEMP THING KEY: puts a finished TEMP in THING's place. The key goes away first and comes
# back last, so that an interruption leaves at worst something that will be made again.
settle() {
    rm -f -- "$2.key"
    rm -rf -- "$2"
    mv -- "$1" "$2"
    printf '%s' "$3" >"$2.key.new"
    mv -- "$2.key.new" "$2.key"
}

# private PROGRAM ARG...: runs a program of the private Debian tree with that tree's own loader and
# libraries, so that the machine's C library does not matter. PROGRAM is a path inside the tree.
private() {
    local program=$1
    shift
    "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$ROOT/usr/lib/x86_64-linux-gnu" \
        --argv0 "${program##*/}" "$ROOT/$program" "$@"
}

# systemd.sh: systemd of the private Debian, for lab hosts and for judging the shipped units. Sourced, never run.
#
# A tree of its own beside $ROOT: only lab hosts with --systemd and the tests of the units want it.
# shellcheck shell=bash

SYSTEMD=$CACHE/systemd

# Fetched with all they depend on.
LAB_SYSTEMD_PROGRAMS=(
    systemd
    udev       # carries out what a .link says of VFs, and tells networkd that an interface is ready
    util-linux # journald's and systemctl's friends in a shell: setpriv, nsenter, lsns
)

# What a lab host gets of it. Its own units are in systemd-units: Debian's would wait for what no lab host has.
SYSTEMD_PROGRAMS=(
    usr/lib/systemd/systemd usr/lib/systemd/systemd-executor usr/lib/systemd/systemd-journald
    usr/bin/systemctl usr/bin/systemd-analyze usr/bin/journalctl usr/bin/systemd-cgls usr/bin/systemd-run
    usr/bin/nsenter
    usr/lib/systemd/systemd-networkd usr/bin/networkctl usr/lib/systemd/systemd-udevd usr/bin/udevadm
)
SYSTEMD_UNITS=(
    systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket modprobe@.service
    slices.target sockets.target paths.target timers.target shutdown.target umount.target final.target
    multi-user.target network.target
    systemd-networkd.service systemd-networkd.socket
    systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket
)
# Of all rules: other ones would name interfaces and load drivers, which the lab does itself.
UDEV_RULES=(80-net-setup-link.rules)

# get_systemd: makes $SYSTEMD.
get_systemd() {
    local key config home deb new=$SYSTEMD.new
    key=$(printf '%s\n' 1 "$LAB_SUITE" "${LAB_SYSTEMD_PROGRAMS[@]}" | checksum)
    ! is_fresh "$SYSTEMD" "$key" || return 0
    config=$(private_apt "$LAB_SUITE")
    home=$(dirname "$config")
    progress "fetching systemd..."
    apt_do "$config" apt-get update
    apt_do "$config" apt-get install --download-only "${LAB_SYSTEMD_PROGRAMS[@]}"
    rm -rf "$new"
    mkdir -p "$new"
    for deb in $(chosen_packages "$config" "${LAB_SYSTEMD_PROGRAMS[@]}"); do
        unpack_package "$deb" "$new"
    done
    [[ -d $home && -x $new/usr/lib/systemd/systemd ]] ||
        refuse no-systemd "cannot make the lab's systemd" "the package has no usr/lib/systemd/systemd" \
            "look into $new"
    settle "$new" "$SYSTEMD" "$key"
}

# private_systemd PROGRAM ARG...: runs a program of that tree with its own loader and libraries.
private_systemd() {
    local program=$1 libraries=$SYSTEMD/usr/lib/x86_64-linux-gnu
    shift
    "$SYSTEMD/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries:$libraries/systemd" \
        --argv0 "${program##*/}" "$SYSTEMD/$program" "$@"
}

# build_systemd TREE: systemd and just so many units that it comes up, runs the lab's command and what that starts.
build_systemd() {
    local tree=$1 program unit library rule
    mkdir -p "$tree/usr/sbin"
    for program in "${SYSTEMD_PROGRAMS[@]}"; do
        mkdir -p "$tree/$(dirname "$program")"
        cp -L "$SYSTEMD/$program" "$tree/$program"
    done
    # Also what systemd loads only when it wants it: the filters of system calls, and the programs of cgroups.
    mkdir -p "$tree/usr/lib/x86_64-linux-gnu/systemd"
    for library in "${SYSTEMD_PROGRAMS[@]}" usr/lib/x86_64-linux-gnu/lib{seccomp.so.2,bpf.so.1,kmod.so.2}; do
        [[ -e $SYSTEMD/$library ]] || continue
        put_systemd_libraries "$tree" "$SYSTEMD/$library"
        [[ $library != *.so.* ]] || put_library "$tree" "$SYSTEMD/$library"
    done
    ln -s /usr/bin/busybox "$tree/usr/sbin/modprobe"
    mkdir -p "$tree/usr/lib/systemd/system" "$tree/etc/systemd/system" "$tree/var/log"
    for unit in "${SYSTEMD_UNITS[@]}"; do
        cp "$SYSTEMD/usr/lib/systemd/system/$unit" "$tree/usr/lib/systemd/system/"
    done
    mkdir -p "$tree/usr/lib/udev/rules.d"
    for rule in "${UDEV_RULES[@]}"; do
        cp "$SYSTEMD/usr/lib/udev/rules.d/$rule" "$tree/usr/lib/udev/rules.d/"
    done
    install -m 644 "$LAB_PARTS"/systemd-units/*.{target,service} "$tree/etc/systemd/system/"
}

# put_systemd_libraries TREE FILE: copies what FILE is linked with.
put_systemd_libraries() {
    local libraries=$SYSTEMD/usr/lib/x86_64-linux-gnu library
    "$SYSTEMD/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries:$libraries/systemd" --list "$2" |
        awk '$2 == "=>" { print $3 }' | while read -r library; do
        case $library in
        */x86_64-linux-gnu/systemd/*) cp -L "$library" "$1/usr/lib/x86_64-linux-gnu/systemd/" ;;
        *) put_library "$1" "$library" ;;
        esac
    done
}

# packages.sh: fetches Debian packages and unpacks them into the cache. Sourced, never run.
#
# apt works here with its own lists, archives and status, as whoever calls it: nothing is installed,
# and root is not needed. One suite serves everything, so that libraries fit together.
# shellcheck shell=bash

LAB_SUITE=trixie

# QEMU alone is newer. Until some version after 10.0.13 an emulated AMD processor that runs nested guests
# can lose an interrupt; if that was its timer's, the lab host or its guest sleeps for ever.
LAB_QEMU_SUITE=trixie-backports

# Fetched with all they depend on.
LAB_PROGRAMS=(
    qemu-system-x86 # the machine that has the SR-IOV devices
    busybox-static  # user space of the lab host and of its guests; also makes the cpio archives
    nvme-cli        # gives queues and namespaces to NVMe VFs
    pciutils
    iproute2 # busybox's ip cannot set a VF's MAC address
    strace
    kmod # the kernel package brings no modules.dep
    xz-utils
    zstd
    libgcc-s1 # every dynamically linked Rust program wants it
)

# find_mirror: prints the URI of a Debian mirror: the caller's, or the one this machine's apt uses.
find_mirror() {
    if [[ -n ${NARROWS_DEBIAN_MIRROR:-} ]]; then
        printf '%s\n' "$NARROWS_DEBIAN_MIRROR"
        return
    fi
    # Security and update archives live elsewhere and hold no whole suite: their names have a dash.
    # shellcheck disable=SC2016 # apt expands
    apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 ~ /^(bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)$/ && $2 == "main" && !found++ { print $3 }'
}

# private_apt SUITE: writes an apt configuration for SUITE, if it is not there, and prints its path.
private_apt() {
    local suite=$1 mirror home=$CACHE/apt-$1 keyring=
    local program
    for program in apt-get apt-cache dpkg; do
        command -v "$program" >/dev/null ||
            refuse no-debian-tools "cannot fetch the lab's programs" "$program is not on this machine" \
                "run the lab on Debian or a descendant, or install apt and dpkg"
    done
    mirror=$(find_mirror)
    [[ -n $mirror ]] ||
        refuse no-debian-mirror "cannot fetch the lab's programs" "this machine's apt knows no Debian mirror" \
            "set NARROWS_DEBIAN_MIRROR to the URI of one"
    if [[ -f /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
        keyring="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    elif ! compgen -G '/etc/apt/trusted.gpg.d/debian-archive-*' >/dev/null; then
        refuse no-debian-keyring "cannot check the lab's programs" "Debian's archive keys are not on this machine" \
            "install the package debian-archive-keyring"
    fi
    mkdir -p "$home"/{lists,archives,cache,empty,state}/partial
    touch "$home/state/status"
    printf 'deb %s%s %s main\n' "$keyring" "$mirror" "$suite" >"$home/sources.list"
    : >"$home/preferences"
    if [[ $suite == "$LAB_SUITE" ]]; then
        printf 'deb %s%s %s main\n' "$keyring" "$mirror" "$LAB_QEMU_SUITE" >>"$home/sources.list"
        printf 'Package: qemu-* seabios ipxe-qemu\nPin: release n=%s\nPin-Priority: 990\n' "$LAB_QEMU_SUITE" >"$home/preferences"
    fi
    # Read after the machine's own files, so that proxies stay, and hooks and pins made for the
    # machine's packages go.
    cat >"$home/apt.conf" <<END
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::Contents-deb;
Dir::Etc::SourceList "$home/sources.list";
Dir::Etc::SourceParts "$home/empty";
Dir::Etc::Preferences "$home/preferences";
Dir::Etc::PreferencesParts "$home/empty";
Dir::State "$home/state";
Dir::State::Lists "$home/lists";
Dir::State::status "$home/state/status";
Dir::Cache "$home/cache";
Dir::Cache::Archives "$home/archives";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::Retries "3";
Dpkg::Use-Pty "false";
END
    printf '%s\n' "$home/apt.conf"
}

# apt_do CONFIG PROGRAM ARG...: runs apt quietly; shows its words only when it fails.
apt_do() {
    local config=$1 program=$2 words
    shift 2
    if ! words=$("$program" -c "$config" -q "$@" 2>&1); then
        printf '%s\n' "$words" | tail -n 15 >&2
        refuse apt-failed "apt could not do: $program $*" "its last lines are above" \
            "check the network and the mirror, then try again; what was fetched is kept"
    fi
}

# newest_package CONFIG PATTERN: prints the newest package name that matches the extended regex.
newest_package() {
    apt-cache -c "$1" pkgnames 2>/dev/null | grep -E -x -- "$2" | sort -V | tail -n 1 || true
}

# get_packages: makes $ROOT, the private tree with programs and the stock kernel.
get_packages() {
    local key config home kernel deb new=$CACHE/root.new
    key=$(printf '%s\n' 6 "$LAB_SUITE" "$LAB_QEMU_SUITE" "${LAB_PROGRAMS[@]}" | checksum)
    ! is_fresh "$ROOT" "$key" || return 0

    config=$(private_apt "$LAB_SUITE")
    home=$(dirname "$config")
    progress "reading Debian's package lists ($LAB_SUITE)..."
    apt_do "$config" apt-get update
    # The concrete package, and without its dependencies: they are for making it the machine's kernel.
    kernel=$(apt-cache -c "$config" depends linux-image-amd64 | awk '$1 == "Depends:" && !found++ { print $2 }')
    progress "fetching packages (qemu, $kernel, nvme-cli, ...)..."
    apt_do "$config" apt-get autoclean
    apt_do "$config" apt-get install --download-only "${LAB_PROGRAMS[@]}"
    rm -f "$home"/archives/linux-image-*
    (cd "$home/archives" && apt_do "$config" apt-get download "$kernel")
    progress "unpacking $(du -ch "$home"/archives/*.deb | tail -n 1 | cut -f1) of packages..."
    rm -rf "$new"
    mkdir -p "$new"
    # Only what apt chose: older versions may still lie there.
    for deb in "$home"/archives/linux-image-*.deb $(chosen_packages "$config" "${LAB_PROGRAMS[@]}"); do
        unpack_package "$deb" "$new"
    done
    mend_emulator "$new/usr/bin/qemu-system-x86_64"
    progress "indexing kernel modules..."
    ROOT=$new private usr/sbin/depmod -b "$new/usr" "${kernel#linux-image-}"
    settle "$new" "$ROOT" "$key"
}

# chosen_packages CONFIG PACKAGE...: prints the archives that apt would install.
chosen_packages() {
    local config=$1 home
    shift
    home=$(dirname "$config")
    # With no archives at hand apt names them all.
    apt-get -c "$config" -qq -o "Dir::Cache::Archives=$home/empty/" install --print-uris "$@" |
        awk -v folder="$home/archives/" '{ print folder $2 }'
}

# unpack_package DEB FOLDER: unpacks what the lab can use; the rest would only fill the disk.
unpack_package() {
    dpkg --fsys-tarfile "$1" |
        tar -x -C "$2" --keep-directory-symlink --no-same-owner \
            --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
            --exclude='./usr/lib/modules/*/kernel/sound' --exclude='./usr/lib/modules/*/kernel/drivers/gpu' \
            --exclude='./usr/lib/modules/*/kernel/drivers/media' --exclude='./usr/lib/modules/*/kernel/net/wireless' \
            --exclude='./usr/lib/modules/*/kernel/drivers/net/wireless' --exclude='./usr/lib/modules/*/kernel/drivers/staging'
}

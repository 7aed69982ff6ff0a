# kernel-build.sh: builds the lab kernel from Debian's kernel source. Sourced, never run.
#
# The compiler comes from Debian too, unpacked beside the source and entered with chroot in a user
# namespace: nothing is installed, and root is not needed.
# shellcheck shell=bash

# The source that the fragment was written for, and the suite which has it.
LAB_SOURCE_SUITE=sid
LAB_SOURCE=linux-source-7.2

LAB_COMPILER=(
    gcc make libc6-dev flex bison bc libelf-dev libssl-dev openssl python3-minimal perl-base
    bash dash coreutils findutils sed grep mawk diffutils tar gzip xz-utils kmod cpio
    base-files
)

# in_compiler TREE COMMAND: runs a shell command in the compiler's tree, with /dev and /proc.
in_compiler() {
    local -a user=(--user --map-root-user)
    ((EUID != 0)) || user=()
    # shellcheck disable=SC2016 # the inner shell expands
    unshare "${user[@]}" --mount bash -c '
        set -eu
        mount --rbind /dev "$1/dev"
        mount --rbind /proc "$1/proc"
        exec chroot "$1" /usr/bin/env -i PATH=/usr/bin:/usr/sbin LC_ALL=C HOME=/ /usr/bin/bash -euc "$2"
    ' in-compiler "$1" "$2"
}

# choose_source CONFIG: prints the source package to build: the known one, or the newest there is.
choose_source() {
    local package
    if [[ -n $(newest_package "$1" "$LAB_SOURCE") ]]; then
        package=$LAB_SOURCE
    else
        package=$(newest_package "$1" 'linux-source-[0-9]+\.[0-9]+')
        [[ -n $package ]] ||
            refuse no-kernel-source "cannot build the lab kernel" "the mirror's $LAB_SOURCE_SUITE has no linux-source" \
                "set NARROWS_LAB_KERNEL to a ready one, or use --kernel stock"
        progress "$LAB_SOURCE is gone; taking $package, for which the configuration is untried"
    fi
    printf '%s\n' "$package"
}

# get_kernel_tree TREE: makes TREE, with a compiler and the configured source in /linux.
get_kernel_tree() {
    local tree=$1 new=$1.new key config archives package deb
    key=$(checksum "$LAB_PARTS"/{kernel-build.sh,lab-kernel.config})
    ! is_fresh "$tree" "$key" || return 0
    rm -rf "$new"
    mkdir -p "$new"/{dev,proc,tmp,linux}

    config=$(private_apt "$LAB_SUITE")
    archives=$CACHE/compiler-archives
    mkdir -p "$archives/partial"
    progress "fetching the kernel's compiler..."
    apt_do "$config" apt-get update
    apt_do "$config" apt-get -o "Dir::Cache::Archives=$archives" install --download-only "${LAB_COMPILER[@]}"
    for deb in "$archives"/*.deb; do
        unpack_package "$deb" "$new"
    done
    # What the packages' own scripts would have linked.
    [[ -e $new/usr/bin/awk ]] || ln -s mawk "$new/usr/bin/awk"

    config=$(private_apt "$LAB_SOURCE_SUITE")
    progress "fetching the kernel's source..."
    apt_do "$config" apt-get update
    package=$(choose_source "$config")
    (cd "$archives" && apt_do "$config" apt-get download "$package")
    progress "unpacking $package..."
    dpkg --fsys-tarfile "$archives/$package"_*.deb | tar -xO "./usr/src/$package.tar.xz" |
        private usr/bin/xz -dc | tar -x -C "$new/linux" --strip-components=1 --no-same-owner
    cp "$LAB_PARTS/lab-kernel.config" "$new/linux/lab.config"
    progress "configuring..."
    # kconfig warns of every line that the fragment changes.
    in_compiler "$new" 'cd /linux
        make -s tinyconfig 2>/dev/null
        cat lab.config >>.config
        make -s olddefconfig 2>/dev/null
        grep -q ^CONFIG_IOMMUFD=y .config' ||
        refuse no-iommufd "cannot build the lab kernel" "$package cannot be configured with iommufd" \
            "set NARROWS_LAB_KERNEL to a ready one, or use --kernel stock"
    settle "$new" "$tree" "$key"
}

# build_lab_kernel OUT
build_lab_kernel() {
    local tree=$CACHE/kernel-build log=$CACHE/kernel-build.log
    in_compiler / true 2>/dev/null ||
        refuse no-user-namespace "cannot build the lab kernel" "this machine lets only root make namespaces" \
            "set NARROWS_LAB_KERNEL to a ready one, allow user namespaces, or run this once as root"
    get_kernel_tree "$tree"
    progress "building the lab kernel: 20 to 35 minutes of processor time (words go to $log)..."
    # Modules are not built: everything the lab uses is in the image.
    in_compiler "$tree" "cd /linux && make -s -j$(nproc) KBUILD_BUILD_HOST=lab KBUILD_BUILD_USER=lab bzImage" >"$log" 2>&1 ||
        refuse kernel-build "cannot build the lab kernel" "$(tail -n 3 "$log" | tr '\n' ' ')" "read $log"
    cp "$tree/linux/arch/x86/boot/bzImage" "$1"
    rm -rf "$tree.key" "$tree" # more than 2 GB, of no further use
}

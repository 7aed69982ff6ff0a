# kernel.sh: the two kernels that serve lab hosts and guests alike. Sourced, never run.
#
# stock: Debian's own, with modules; it has VFIO's type1 but no iommufd.
# lab:   small, all built in, with iommufd; taken ready-made when its checksum is the known one,
#        built from Debian's kernel source otherwise.
# Each becomes $CACHE/kernel-NAME/{vmlinuz,vmlinux}.
# shellcheck shell=bash

LAB_KERNEL_SHA256=83ec0de4c1bdb0270fbe7b9d3cc6e4247fe5e9fdf6d4b5ad753d4730a72dc5d5

# stock_version: prints the version of the kernel in the private tree.
stock_version() {
    basename "$ROOT"/boot/vmlinuz-* | sed 's/^vmlinuz-//'
}

# read_u8 and read_u32 FILE OFFSET: print a little-endian number of the Linux boot header.
read_u8() { od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' '; }
read_u32() { od -An -tu4 --endian=little -j "$2" -N 4 "$1" | tr -d ' '; }

# extract_vmlinux BZIMAGE OUT: unpacks the ELF kernel, which has the PVH entry point.
# Source: Linux Documentation/arch/x86/boot.rst, fields setup_sects (0x1f1), payload_offset (0x248)
# and payload_length (0x24c) (v6.12).
extract_vmlinux() {
    local image=$1 out=$2 setup_sectors start length magic
    setup_sectors=$(read_u8 "$image" $((0x1f1)))
    start=$(((setup_sectors + 1) * 512 + $(read_u32 "$image" $((0x248)))))
    length=$(read_u32 "$image" $((0x24c)))
    magic=$(od -An -tx1 -j "$start" -N 4 "$image" | tr -d ' ')
    # The payload ends with its unpacked size in four bytes. Gzip has them by its own format; to the
    # others they are not part of the stream, and would be an error.
    case $magic in
    1f8b*) payload "$image" "$start" "$length" | gzip -dc >"$out" ;;
    28b52ffd) payload "$image" "$start" $((length - 4)) | private usr/bin/zstd -dcq >"$out" ;;
    fd377a58) payload "$image" "$start" $((length - 4)) | private usr/bin/xz -dc >"$out" ;;
    *) refuse kernel-payload "cannot unpack the kernel $image" "its payload starts with $magic" \
        "use a kernel compressed with gzip, xz or zstd" ;;
    esac
}

# payload FILE START LENGTH: prints LENGTH bytes from START.
payload() {
    tail -c "+$(($2 + 1))" "$1" | head -c "$3" || true # tail dies of the pipe that head has closed
}

# get_stock_kernel: makes kernel-stock.
get_stock_kernel() {
    local made=$CACHE/kernel-stock key
    key=$(<"$ROOT.key")
    ! is_fresh "$made" "$key" || return 0
    rm -rf "$made.new"
    mkdir -p "$made.new"
    cp "$ROOT/boot/vmlinuz-$(stock_version)" "$made.new/vmlinuz"
    extract_vmlinux "$made.new/vmlinuz" "$made.new/vmlinux"
    settle "$made.new" "$made" "$key"
}

# find_lab_kernel: prints the path of a ready lab kernel, or nothing. One that was asked for by name is
# used or refused, never passed over.
find_lab_kernel() {
    local ready=${NARROWS_LAB_KERNEL:-} sum
    if [[ -z $ready ]]; then
        ready=$CHECKOUT/../shared/lab/bzImage-7.2
        [[ -r $ready && $(checksum "$ready") == "$LAB_KERNEL_SHA256" ]] || return 0
    fi
    [[ -r $ready ]] ||
        refuse no-lab-kernel "cannot use the lab kernel $ready" "it cannot be read" \
            "correct NARROWS_LAB_KERNEL, or unset it to build the kernel"
    sum=$(checksum "$ready")
    [[ $sum == "$LAB_KERNEL_SHA256" ]] ||
        refuse wrong-lab-kernel "cannot use the lab kernel $ready" \
            "its SHA-256 is $sum, and the known one's is $LAB_KERNEL_SHA256" \
            "correct NARROWS_LAB_KERNEL, or unset it to build the kernel"
    printf '%s\n' "$ready"
}

# get_lab_kernel NEED: makes kernel-lab. Builds it, which takes long, only if NEED is 1: a host with the
# stock kernel can do without.
get_lab_kernel() {
    local need=$1 made=$CACHE/kernel-lab key ready
    key=$(checksum "$LAB_PARTS/lab-kernel.config")
    ! is_fresh "$made" "$key" || return 0
    ready=$(find_lab_kernel)
    if [[ -z $ready && $need == 0 ]]; then
        progress "going without the lab kernel for guests (--kernel lab builds it)"
        rm -rf "$made.key" "$made"
        return 0
    fi
    rm -rf "$made.new"
    mkdir -p "$made.new"
    if [[ -n $ready ]]; then
        cp "$ready" "$made.new/vmlinuz"
    else
        build_lab_kernel "$made.new/vmlinuz"
    fi
    extract_vmlinux "$made.new/vmlinuz" "$made.new/vmlinux"
    chmod -R u+w "$made.new"
    settle "$made.new" "$made" "$key"
}

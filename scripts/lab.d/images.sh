# images.sh: the parts of the lab host's initramfs. Sourced, never run.
#
# The kernel unpacks concatenated cpio archives one after another, so each part is an archive of its
# own, remade only when what it is made from has changed:
#   base-KERNEL  busybox, init, modules      tools    nvme, lspci, ip, devlink, strace, libraries
#   guest        guest kernels, initramfs    qemu     a VMM to compare with (on request)
#   systemd      systemd, as process 1 (on request)
#   program      what this run adds
# Nothing is compressed: an emulated processor unpacks slowly, and memory is plentiful.
# shellcheck shell=bash

IMAGES=$CACHE/images

# What the stock kernel loads in the lab host, in this order, with what each needs before it.
HOST_MODULES=(igb nvme vfio-pci vfio_iommu_type1 kvm-amd)
# What it loads besides for the disk of --state-disk.
STATE_MODULES=(virtio_pci virtio_blk ext4)
# What guests can load; each with its own list, because in a guest within a guest every module costs.
GUEST_MODULES=(igbvf nvme nd_e820 nfit nd_pmem erofs squashfs pvpanic-mmio)

# pack TREE OUT: archives TREE as root's, with the same bytes for the same contents.
pack() {
    find "$1" -exec touch -h -d @0 {} +
    (
        cd "$1" || exit
        find . -mindepth 1 | LC_ALL=C sort |
            "$ROOT/usr/bin/busybox" cpio -o -H newc -R 0:0 --renumber-inodes --ignore-devno 2>/dev/null
    ) >"$2"
    truncate -s %512 "$2" # the next archive must start on a multiple of four
}

# make_image NAME KEY BUILDER ARG...: has BUILDER fill a tree, and packs it, unless it is fresh.
make_image() {
    local name=$1 key image=$IMAGES/$1.cpio tree
    key=$(printf '%s\n' "$2" "$(checksum "$LAB_PARTS/images.sh")" | checksum)
    shift 2
    ! is_fresh "$image" "$key" || return 0
    progress "making the lab's $name image..."
    mkdir -p "$IMAGES"
    tree=$(mktemp -d "$IMAGES/tree.XXXXXX")
    chmod 755 "$tree"
    "$@" "$tree"
    pack "$tree" "$image.new"
    rm -rf "$tree"
    settle "$image.new" "$image" "$key"
}

# needed_modules MODULE: prints the files to load for MODULE of the stock kernel, in order.
needed_modules() {
    private usr/sbin/modprobe -d "$ROOT/usr" -S "$(stock_version)" --show-depends "$1" |
        awk '$1 == "insmod" { print $2 }'
}

# put_modules FOLDER MODULE...: unpacks modules into FOLDER, and writes FOLDER/MODULE.list for each.
put_modules() {
    local folder=$1 module file name
    shift
    mkdir -p "$folder"
    for module in "$@"; do
        needed_modules "$module" | while read -r file; do
            name=$(basename "$file" .xz)
            [[ -f $folder/$name ]] || private usr/bin/xz -dc "$file" >"$folder/$name"
            printf '%s\n' "$name"
        done >"$folder/$module.list"
    done
}

# put_program TREE PROGRAM...: copies programs of the private tree, and the libraries they load.
put_program() {
    local tree=$1 program library
    shift
    for program in "$@"; do
        mkdir -p "$tree/usr/bin"
        cp -L "$ROOT/$program" "$tree/usr/bin/"
        "$ROOT/usr/lib64/ld-linux-x86-64.so.2" --library-path "$ROOT/usr/lib/x86_64-linux-gnu" \
            --list "$ROOT/$program" | awk '$2 == "=>" { print $3 }' | while read -r library; do
            put_library "$tree" "$library"
        done
    done
}

put_library() {
    mkdir -p "$1/usr/lib/x86_64-linux-gnu"
    [[ -f $1/usr/lib/x86_64-linux-gnu/${2##*/} ]] || cp -L "$2" "$1/usr/lib/x86_64-linux-gnu/"
}

# build_base KERNEL TREE
build_base() {
    local kernel=$1 tree=$2 applet
    mkdir -p "$tree"/{dev,etc,lab/home,mnt,proc,run,sys,tmp,usr/bin,usr/sbin,usr/lib,usr/lib64,var}
    ln -s usr/bin "$tree/bin"
    ln -s usr/sbin "$tree/sbin"
    ln -s usr/lib "$tree/lib"
    ln -s usr/lib64 "$tree/lib64"
    cp "$ROOT/usr/bin/busybox" "$tree/usr/bin/busybox"
    "$ROOT/usr/bin/busybox" --list | while read -r applet; do
        [[ $applet == busybox ]] || ln -s busybox "$tree/usr/bin/$applet"
    done
    printf 'root:x:0:0:root:/lab/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$tree/etc/passwd"
    printf 'root:x:0:\nkvm:x:106:\nnogroup:x:65534:\n' >"$tree/etc/group"
    install -m 755 "$LAB_PARTS/l1-init" "$tree/init"
    install -m 755 "$LAB_PARTS/l1-run" "$tree/usr/bin/l1-run"
    install -m 755 "$LAB_PARTS/lab-vfs" "$tree/usr/bin/lab-vfs"
    install -m 644 "$LAB_PARTS/l1-profile" "$tree/etc/profile"
    mkdir -p "$tree/lab/modules"
    if [[ $kernel == stock ]]; then
        put_modules "$tree/lab/modules" "${HOST_MODULES[@]}" "${STATE_MODULES[@]}"
        (
            cd "$tree/lab/modules"
            cat "${HOST_MODULES[@]/%/.list}" | awk '!seen[$0]++' >load
            cat "${STATE_MODULES[@]/%/.list}" | awk '!seen[$0]++' | grep -v -x -F -f load >load-state
            rm ./*.list
        )
    else
        : >"$tree/lab/modules/load"
        : >"$tree/lab/modules/load-state"
    fi
}

# build_tools TREE
build_tools() {
    local tree=$1 library
    put_program "$tree" usr/sbin/nvme usr/bin/lspci usr/bin/setpci usr/bin/ip usr/sbin/devlink usr/bin/strace
    # What a dynamically linked Rust program, or a C one, may want besides.
    for library in libc.so.6 libgcc_s.so.1 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1; do
        put_library "$tree" "$ROOT/usr/lib/x86_64-linux-gnu/$library"
    done
    mkdir -p "$tree/usr/lib64"
    cp -L "$ROOT/usr/lib64/ld-linux-x86-64.so.2" "$tree/usr/lib64/"
    # The loader knows this folder only by its cache or its built-in list; Debian's has it built in.
}

# build_guest_initrd KERNEL TREE
build_guest_initrd() {
    local kernel=$1 tree=$2
    mkdir -p "$tree"/{bin,dev,m,mnt,proc,sys,tmp}
    cp "$ROOT/usr/bin/busybox" "$tree/bin/busybox"
    ln -s busybox "$tree/bin/sh" # its shell finds the other applets by itself
    install -m 755 "$LAB_PARTS/guest-init" "$tree/init"
    [[ $kernel != stock ]] || put_modules "$tree/m" "${GUEST_MODULES[@]}"
}

# build_guest TREE
build_guest() {
    local kernel
    mkdir -p "$1/lab/guest"
    for kernel in stock lab; do
        [[ -d $CACHE/kernel-$kernel ]] || continue
        cp "$CACHE/kernel-$kernel/vmlinuz" "$1/lab/guest/vmlinuz-$kernel"
        cp "$IMAGES/guest-initrd-$kernel.cpio" "$1/lab/guest/initrd-$kernel"
    done
    # The stock one would be 50 MB more, and a VMM that wants ELF can be shown the other.
    [[ ! -d $CACHE/kernel-lab ]] || cp "$CACHE/kernel-lab/vmlinux" "$1/lab/guest/vmlinux-lab"
}

# build_qemu TREE
build_qemu() {
    local tree=$1 file
    put_program "$tree" usr/bin/qemu-system-x86_64
    mkdir -p "$tree/usr/share/qemu"
    for file in bios-256k.bin bios-microvm.bin qboot.rom kvmvapic.bin linuxboot_dma.bin pvh.bin; do
        find "$ROOT"/usr/share/{qemu,seabios} -name "$file" -exec cp -L {} "$tree/usr/share/qemu/" \;
    done
}

# get_images KERNEL QEMU SYSTEMD: makes every image that a host with KERNEL uses; QEMU and SYSTEMD are 1 to include them.
get_images() {
    local kernel=$1 guest_init
    guest_init=$(checksum "$LAB_PARTS/guest-init")
    make_image "base-$kernel" "$(checksum "$ROOT.key" "$LAB_PARTS"/{l1-init,l1-profile,l1-run,lab-vfs})" build_base "$kernel"
    make_image tools "$(<"$ROOT.key")" build_tools
    make_image guest-initrd-stock "$(<"$ROOT.key") $guest_init" build_guest_initrd stock
    make_image guest-initrd-lab "$(<"$ROOT.key") $guest_init" build_guest_initrd lab
    local -a kernels=("$CACHE"/kernel-{stock,lab}.key)
    [[ -f ${kernels[1]} ]] || unset 'kernels[1]'
    make_image guest "$(checksum "$IMAGES"/guest-initrd-{stock,lab}.cpio.key "${kernels[@]}")" build_guest
    [[ $2 == 0 ]] || make_image qemu "$(<"$ROOT.key")" build_qemu
    [[ $3 == 0 ]] || make_image systemd "$(<"$SYSTEMD.key") $(checksum "$LAB_PARTS"/systemd.sh "$LAB_PARTS"/systemd-units/*)" build_systemd
}

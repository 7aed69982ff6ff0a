# host.sh: the emulated machine that the lab host is. Sourced, never run.
#
# QEMU emulates all of it, also where /dev/kvm is at hand: that can be a software KVM which runs no
# ordinary kernel, and it need not have nested virtualization.
# shellcheck shell=bash

# What scripts/lab may set before run_host.
HOST_KERNEL=stock
HOST_IOMMU=on
HOST_INTREMAP=on
HOST_VFS=2
HOST_MAKE_VFS=1
# One: with two, a program of the lab host itself crashes now and then while guests run.
HOST_CPUS=1
# Of a core.
HOST_THREADS=1
# Nested paging is what KVM needs. The emulator lacks the last six of this model, and says so at length
# unless they are struck out.
HOST_CPU=EPYC,+svm,+npt,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec
HOST_MEMORY=2800M
HOST_HUGEPAGES=0
HOST_TIMEOUT=0
HOST_APPEND=
HOST_MONITOR=0
HOST_ICOUNT=0
HOST_NAMESPACE_SIZE=64M
HOST_PRIVATE=0
HOST_STATE_DISK=
HOST_QEMU=()

# make_disk FILE [SIZE]: an empty disk, unless there is one.
make_disk() {
    [[ -f $1 ]] || truncate -s "${2:-64M}" "$1"
}

# make_state_disk FILE: a disk with an empty file system, unless there is one. With a journal, as hosts have it.
make_state_disk() {
    local mke2fs
    [[ ! -f $1 ]] || return 0
    # It is in no ordinary user's path.
    mke2fs=$(PATH=$PATH:/usr/sbin:/sbin type -P mke2fs) ||
        refuse no-mke2fs "cannot make the disk $1" "mke2fs is not on this machine" "install the package e2fsprogs"
    truncate -s 32M "$1.new"
    "$mke2fs" -q -t ext4 -F -L lab-state -E root_owner=0:0 "$1.new"
    mv -- "$1.new" "$1"
}

# machine_args DISKS: sets ARGS to the machine without kernel and consoles.
machine_args() {
    local disks=$1 vfs=$HOST_VFS nsid shared thread=multi
    [[ $HOST_ICOUNT == 0 ]] || thread=single
    # One more than the VFs' queues and vectors: the primary's own.
    local queues=$((vfs * 4)) vectors=$((vfs * 2))
    ARGS=(
        -nodefaults -no-user-config -display none -no-reboot
        -L "$ROOT/usr/share/qemu" -L "$ROOT/usr/share/seabios" -L "$ROOT/usr/lib/ipxe/qemu"
        -accel "tcg,thread=$thread" -machine q35
        -cpu "$HOST_CPU" -smp "$HOST_CPUS,sockets=1,cores=$((HOST_CPUS / HOST_THREADS)),threads=$HOST_THREADS" -m "$HOST_MEMORY"
    )
    # One nanosecond an instruction. Where nothing runs the clock jumps to the next timer, and waits for nobody.
    [[ $HOST_ICOUNT == 0 ]] || ARGS+=(-icount "shift=0,sleep=off" -rtc "clock=vm,base=2026-01-01")
    [[ $HOST_IOMMU == off ]] ||
        ARGS+=(-device "intel-iommu,intremap=$HOST_INTREMAP,aw-bits=48,caching-mode=off")

    # Each device behind a port of its own, hence alone in its IOMMU group.
    ARGS+=(
        -device "pcie-root-port,id=port1,chassis=1,slot=1,bus=pcie.0,addr=0x2"
        -netdev "hubport,id=net0,hubid=0"
        -device "igb,id=nic,bus=port1,netdev=net0,mac=52:54:00:11:22:33,romfile="
    )
    # Namespace 1 is the primary's alone: a shared one would be attached to every VF as it appears.
    make_disk "$disks/namespace1.img" "$HOST_NAMESPACE_SIZE"
    ARGS+=(
        -device "pcie-root-port,id=port2,chassis=2,slot=2,bus=pcie.0,addr=0x3"
        -device "nvme-subsys,id=subsystem,nqn=lab"
        -device "nvme,id=nvme,bus=port2,serial=lab-sriov,subsys=subsystem,max_ioqpairs=$((queues + 2)),msix_qsize=$((queues + 3)),sriov_max_vfs=$vfs,sriov_vq_flexible=$queues,sriov_vi_flexible=$vectors,sriov_max_vq_per_vf=4,sriov_max_vi_per_vf=2"
        -drive "file=$disks/namespace1.img,if=none,id=disk1,format=raw"
        -device "nvme-ns,drive=disk1,bus=nvme,nsid=1,shared=off"
    )
    for ((nsid = 2; nsid <= vfs + 1; nsid++)); do
        make_disk "$disks/namespace$nsid.img" "$HOST_NAMESPACE_SIZE"
        shared=on
        ((nsid <= vfs + 1 - HOST_PRIVATE)) || shared=off
        ARGS+=(
            -drive "file=$disks/namespace$nsid.img,if=none,id=disk$nsid,format=raw"
            -device "nvme-ns,drive=disk$nsid,bus=nvme,nsid=$nsid,shared=$shared,detached=on"
        )
    done
    make_disk "$disks/plain.img"
    ARGS+=(
        -device "pcie-root-port,id=port3,chassis=3,slot=3,bus=pcie.0,addr=0x4"
        -drive "file=$disks/plain.img,if=none,id=plain,format=raw"
        -device "nvme,id=nvme-plain,bus=port3,serial=lab-plain,drive=plain"
        -device "pcie-root-port,id=port4,chassis=4,slot=4,bus=pcie.0,addr=0x5"
        # Without the mask edu reaches 28 bits of address only.
        -device "edu,id=edu,bus=port4,dma_mask=0xffffffffffffffff"
    )
    [[ -z $HOST_STATE_DISK ]] || ARGS+=(
        -drive "file=$HOST_STATE_DISK,if=none,id=state,format=raw"
        -device "virtio-blk-pci,bus=pcie.0,addr=0x6,drive=state,serial=lab-state"
    )
}

# tsc_khz: prints the rate of this machine's time stamp counter, which the emulated one shares unless it counts instructions.
tsc_khz() {
    [[ $HOST_ICOUNT == 0 ]] || { echo 1000000; return; }
    sed -nE 's/^cpu MHz[^0-9]*([0-9]+)\.([0-9]{3}).*/\1\2/p' /proc/cpuinfo | head -n 1
}

# kernel_line: prints the host kernel's command line.
#
# The emulator loses a timer interrupt now and then; a periodic tick brings the next.
#
# The host kernel measures its clock twice, and KVM keeps the first result. On a loaded machine the first is off, and
# then the second makes KVM refuse its own default rate for every guest, whose timers stop. So it is told the rate.
kernel_line() {
    # Without no_timer_check a loaded machine's host panics now and then, while it tests its timer.
    local line="console=ttyS0 quiet panic=-1 no_timer_check nohz=off highres=off"
    line+=" tsc_early_khz=$(tsc_khz)"
    [[ $HOST_IOMMU == off ]] || line+=" intel_iommu=on"
    [[ $HOST_HUGEPAGES == 0 ]] || line+=" hugepages=$HOST_HUGEPAGES"
    # With none `lab-vfs` says where the devices are, and does nothing to them.
    line+=" lab.vfs=$((HOST_MAKE_VFS * HOST_VFS))"
    [[ -z $HOST_STATE_DISK ]] || line+=" lab.state"
    printf '%s' "$line${HOST_APPEND:+ $HOST_APPEND}"
}

# run_host INITRD DISKS RESULTS CONSOLE: runs the machine till it powers off or the time is up.
# CONSOLE is "terminal", or "output" for a console that is read by nobody but a log.
run_host() {
    local initrd=$1 disks=$2 results=$3 console=$4
    local -a ARGS timed=()
    machine_args "$disks"
    ARGS+=(
        -kernel "$CACHE/kernel-$HOST_KERNEL/vmlinuz" -initrd "$initrd" -append "$(kernel_line)"
        -chardev "file,id=results,path=$results"
    )
    if [[ $console == terminal ]]; then
        ARGS+=(-chardev "stdio,id=console,mux=on,signal=off" -mon "chardev=console,mode=readline")
    else
        ARGS+=(-chardev "stdio,id=console")
    fi
    ARGS+=(-serial chardev:console -serial chardev:results)
    # The emulator talks to itself: what the serial port sends is typed into the monitor. The monitor's answers go to a file
    # and not to the port, whose line discipline would echo them into the monitor again, to be answered again.
    if [[ $HOST_MONITOR != 0 ]]; then
        mkfifo "$results-monitor.in"
        : >"$results-monitor.out"
        ARGS+=(
            -chardev "pipe,id=monitor,path=$results-monitor" -mon "chardev=monitor,mode=readline"
            -chardev "file,id=monitor-port,path=$results-monitor.in" -serial chardev:monitor-port
        )
    fi
    ARGS+=("${HOST_QEMU[@]}")
    # The machine must not outlive this script, however the script ends.
    local -a tied=(setpriv --pdeathsig TERM)
    [[ $HOST_TIMEOUT == 0 ]] || timed=(timeout --foreground -k 5 "$HOST_TIMEOUT" "${tied[@]}")
    "${tied[@]}" "${timed[@]}" "$ROOT/usr/lib64/ld-linux-x86-64.so.2" \
        --library-path "$ROOT/usr/lib/x86_64-linux-gnu" "$ROOT/usr/bin/qemu-system-x86_64" "${ARGS[@]}"
}

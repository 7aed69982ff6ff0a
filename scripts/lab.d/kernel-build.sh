# kernel-build.sh: builds the lab kernel from Debian's source. Sourced, never run.
# shellcheck shell=bash

# build_lab_kernel OUT
build_lab_kernel() {
    refuse no-lab-kernel "cannot make the lab kernel for $1" "no ready one is at hand" "set NARROWS_LAB_KERNEL"
}

use super::*;

fn one(line: &str) -> Event {
    parse(line).unwrap().unwrap()
}

#[test]
fn events_of_kvm_are_read() {
    let event = one(
        "    narrows-vcpu-182     [000] .....    12.824997: kvm_userspace_exit: reason KVM_EXIT_IO (2)",
    );
    assert_eq!(event.at_ns, 12_824_997_000);
    assert_eq!(event.tid, 182);
    assert_eq!(event.what, What::UserExit("IO".to_owned()));
    let exit = one(
        " CPU 0/KVM-97 [000] d.... 9.000001: kvm_exit: vcpu 0 reason npf rip 0xfff1 info1 0x1 info2 0x2",
    );
    assert_eq!(exit.what, What::Exit("npf".to_owned()));
    let pio =
        one("  v-2  [000] .....  1.000000: kvm_pio: pio_write at 0x3f8 size 1 count 1 val 0x41");
    assert_eq!(
        pio.what,
        What::PortWrite {
            port: 0x3F8,
            count: 1
        }
    );
    let read = "  v-2  [000] .....  1.000000: kvm_pio: pio_read at 0x3fd size 1 count 1 val 0x60";
    assert_eq!(parse(read).unwrap(), None);
}

#[test]
fn a_mark_is_told_from_any_other_cpuid() {
    let line = |function| {
        format!(
            "  v-2  [000] .....  1.000000: kvm_cpuid: func {function} idx 11 rax 0 rbx 0 rcx 0 rdx 0, cpuid entry not found"
        )
    };
    assert_eq!(one(&line("4e525753")).what, What::Mark(0x11));
    assert_eq!(parse(&line("0")).unwrap(), None);
}

#[test]
fn calls_are_read_with_their_arguments() {
    let event = one(
        "  narrows-121   [000] .....   7.4: sys_enter: NR 16 (1c, ae80, 0, 0, 0, 0)"
            .replace("7.4:", "7.400000:")
            .as_str(),
    );
    assert_eq!(
        event.what,
        What::Call {
            number: 16,
            first: 0x1C,
            second: 0xAE80
        }
    );
    assert_eq!(
        one("  narrows-121   [000] .....   7.400001: sys_exit: NR 16 = -4").what,
        What::Return
    );
}

#[test]
fn a_task_may_have_any_name() {
    let event = one(
        "  a-1 [0] b: c-77   [001] d..2.  3.000002: sched_switch: prev_comm=x prev_pid=1 prev_prio=120 prev_state=S ==> next_comm=swapper/0 next_pid=0 next_prio=120",
    );
    assert_eq!(event.tid, 77);
    assert_eq!(event.what, What::Switch { next: 0 });
}

#[test]
fn a_program_is_named_as_a_whole() {
    let event = one(
        "  sh-5   [000] .....   3.000002: sched_process_exec: filename=/usr/bin/narrows pid=5 old_pid=5",
    );
    assert_eq!(
        event.what,
        What::Exec {
            program: "/usr/bin/narrows".to_owned()
        }
    );
}

#[test]
fn a_line_that_cannot_be_read_is_an_error() {
    for line in [
        "",
        "nonsense",
        " x-1 [000] ..... 1.5: kvm_entry: vcpu 0",
        " x-1 [000] ..... 1.000000: kvm_exit: vcpu 0",
    ] {
        assert!(parse(line).is_err(), "{line:?}");
    }
}

#[test]
fn a_memory_slot_is_read() {
    let event = one(
        "  v-2  [000] .....  1.000000: slot: (kvm_set_memory_region+0x0/0x4f0) id=3 bytes=1048576",
    );
    assert_eq!(
        event.what,
        What::Slot {
            number: 3,
            bytes: 0x10_0000
        }
    );
}

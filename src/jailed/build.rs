//! Links the two binaries without libc and without its start files.

fn main() {
    for bin in ["narrows-vcpu", "narrows-device"] {
        println!("cargo::rustc-link-arg-bin={bin}=-nostartfiles");
        println!("cargo::rustc-link-arg-bin={bin}=-nostdlib");
        println!(
            "cargo::rustc-link-arg-bin={bin}=-Wl,-z,noexecstack,-z,relro,-z,now,--build-id=none"
        );
    }
    println!("cargo::rerun-if-changed=build.rs");
}

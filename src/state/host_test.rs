use std::thread;

use super::*;

/// What a child has between `fork` and `exec`: a copy of the descriptor, which keeps the lock.
#[test]
fn lock_whose_copy_lives_for_a_moment_is_waited_for() {
    let folder = std::env::temp_dir().join(format!("narrows-host-lock-{}", std::process::id()));
    fs::remove_dir_all(&folder).ok();
    let state = State::new(&folder);
    let lock = state.lock_host("apply").unwrap();
    let copy = lock.file.try_clone().unwrap();
    drop(lock);
    let moment = thread::spawn(move || {
        sleep(PATIENCE / 4);
        drop(copy);
    });
    let (alone, start) = (state.lock_host("release"), Instant::now());
    moment.join().unwrap();
    drop(alone.unwrap());

    // One that stays is told, and not waited for for ever.
    let shared = state.share_host().unwrap();
    assert_eq!(state.lock_host("apply").unwrap_err().id, ErrorId::HostBusy);
    assert!(start.elapsed() < PATIENCE * 20);
    drop(shared);
    fs::remove_dir_all(&folder).ok();
}

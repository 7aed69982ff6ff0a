//! Answers each datagram of the guest by itself.

use std::{io, net::UdpSocket, thread};

use crate::guest::ECHO;

/// Begins to answer; it does so until the program ends.
pub(super) fn start() -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", ECHO.1))?;
    thread::Builder::new()
        .name("echo".to_owned())
        .spawn(move || {
            let mut buffer = [0; 2048];
            // A datagram that could not be answered is lost, as on any network: the guest counts those.
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _lost = socket.send_to(buffer.get(..len).unwrap_or_default(), from);
            }
        })?;
    Ok(())
}

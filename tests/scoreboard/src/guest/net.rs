//! The NIC: its address by rtnetlink, its packets by UDP.
//!
//! *Source:* `include/uapi/linux/{netlink,rtnetlink,if_addr,if}.h (v6.12); rtnetlink(7)`.

use std::{
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    time::Duration,
};

use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
        socket,
    },
};

use super::{ECHO, Failure, await_some, names};

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const ERROR: u16 = 2;
/// Wanted: a request, and its acknowledgement.
const REQUEST: u16 = 1 | 4;
/// An address that is new, and no other like it.
const CREATE: u16 = 0x200 | 0x400;
const UP: u32 = 1;
const LOCAL: u16 = 2;
const HEADER_BYTES: usize = 16;
const IPV4: u8 = 2;
/// How long an answer may take, and how many of a window's may be lost: the emulated NIC drops one now and then.
const ANSWER: Duration = Duration::from_secs(2);
const LOSSES: u32 = 16;

/// Gives the first interface behind which a device stands an address, and waits for its carrier.
pub(super) fn bring_up(address: Ipv4Addr, prefix: u8) -> Result<(), Failure> {
    let classes = Path::new("/sys/class/net");
    let name = await_some("a network interface", || {
        names(classes)
            .into_iter()
            .find(|name| classes.join(name).join("device").exists())
    })?;
    let folder = classes.join(&name);
    let index = fs::read_to_string(folder.join("ifindex"))
        .map_err(Failure::system(format!("index of {name}")))?;
    let index: u32 = index
        .trim()
        .parse()
        .map_err(|_what| Failure::Words(format!("{index} is no index")))?;
    let what = format!("address of {name}");
    set_up(index, address, prefix).map_err(Failure::system(what))?;
    await_some("the carrier", || {
        let carrier = fs::read_to_string(folder.join("carrier")).ok()?;
        (carrier.trim() == "1").then_some(())
    })
}

fn set_up(index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    // Protocol 0 of netlink is rtnetlink.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    ask(&socket, &new_address(index, address, prefix))?;
    ask(&socket, &link_up(index))
}

/// Sends a request, and reads the error number of its acknowledgement.
fn ask(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    sendto(
        socket,
        message,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0; 1024];
    let (len, _) = recv(socket, answer.as_mut_slice(), RecvFlags::empty())?;
    let answer = answer.get(..len).unwrap_or_default();
    match acknowledged(answer) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The error number in an acknowledgement, negative or zero.
fn acknowledged(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = answer.get(HEADER_BYTES..HEADER_BYTES + 4)?;
    (kind == ERROR).then_some(i32::from_ne_bytes(error.try_into().ok()?))
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // No sequence number and no port: one request at a time, and the kernel fills in the sender.
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn link_up(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    message(NEW_LINK, REQUEST, &body)
}

fn new_address(index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![IPV4, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(8_u16.to_ne_bytes());
    body.extend(LOCAL.to_ne_bytes());
    body.extend(address.octets());
    message(NEW_ADDRESS, REQUEST | CREATE, &body)
}

/// Datagrams of this length to the host, each answered by one before the next is sent. `count` is of both directions.
pub(super) fn exchange<const LEN: usize>(count: u64, begin: impl FnOnce()) -> Result<(), Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(ECHO).map(|()| socket))
        .and_then(|socket| socket.set_read_timeout(Some(ANSWER)).map(|()| socket))
        .map_err(Failure::system("UDP socket"))?;
    let mut losses = 0;
    exchange_one::<LEN>(&socket, u64::MAX, &mut losses)?;
    begin();
    (0..count.div_ceil(2)).try_for_each(|nth| exchange_one::<LEN>(&socket, nth, &mut losses))
}

/// One there and back; it is numbered, so that a late answer to one that was given up is not taken for its own.
fn exchange_one<const LEN: usize>(
    socket: &UdpSocket,
    nth: u64,
    losses: &mut u32,
) -> Result<(), Failure> {
    let mut sent = [0; LEN];
    for (to, from) in sent.iter_mut().zip(nth.to_le_bytes()) {
        *to = from;
    }
    let mut answer = [0; LEN];
    loop {
        socket.send(&sent).map_err(Failure::system("send"))?;
        loop {
            match socket.recv(&mut answer) {
                Ok(_) if answer == sent => return Ok(()),
                Ok(_) => {}
                Err(error) if *losses < LOSSES && is_loss(&error) => {
                    *losses += 1;
                    break;
                }
                Err(error) => return Err(Failure::system("answer")(error)),
            }
        }
    }
}

/// No answer came, or nobody listens yet.
fn is_loss(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_lengths_that_they_say() {
        let address = new_address(2, Ipv4Addr::new(10, 9, 0, 2), 24);
        for (message, len) in [(address, 32_u32), (link_up(2), 32)] {
            assert_eq!(message.get(..4), Some(len.to_ne_bytes().as_slice()));
            assert_eq!(message.len(), 32);
        }
    }

    #[test]
    fn error_of_an_acknowledgement_is_read() {
        let mut answer = message(ERROR, 0, &(-17_i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer), Some(-17));
        answer.truncate(18);
        assert_eq!(acknowledged(&answer), None);
        assert_eq!(acknowledged(&message(3, 0, &[0; 4])), None);
    }
}

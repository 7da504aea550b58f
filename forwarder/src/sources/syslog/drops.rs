//! The kernel's own count of datagrams that found no room in a socket's buffer.
//!
//! It is read from `/proc/thread-self/net/udp` (`udp6`), the column `drops` of the socket's inode: the same number that the kernel would put
//! beside each datagram (`SO_RXQ_OVFL`), for which there is no call without `unsafe`.

use std::{fs, net::SocketAddr, os::fd::AsFd};

/// One socket's counter. It counts from 0 when the socket is made, modulo 2^32.
#[derive(Debug)]
pub(super) struct Drops {
    table: &'static str,
    inode: u64,
    seen: u32,
}

impl Drops {
    /// `None`: the socket has no inode to be found by.
    pub(super) fn of(socket: impl AsFd, bound: SocketAddr) -> Option<Drops> {
        Some(Drops {
            table: match bound {
                SocketAddr::V4(_) => "/proc/thread-self/net/udp",
                SocketAddr::V6(_) => "/proc/thread-self/net/udp6",
            },
            inode: rustix::fs::fstat(socket).ok()?.st_ino,
            seen: 0,
        })
    }

    /// How many were dropped since it was asked last. A table that cannot be read says nothing; its counts come with a later look.
    pub(super) fn since_last(&mut self) -> u64 {
        let Some(now) = fs::read_to_string(self.table)
            .ok()
            .and_then(|table| drops_of(&table, self.inode))
        else {
            return 0;
        };
        let since = now.wrapping_sub(self.seen);
        self.seen = now;
        since.into()
    }
}

/// The last column of the line with this inode, which is the tenth.
fn drops_of(table: &str, inode: u64) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let is_it = columns.nth(9)?.parse() == Ok(inode);
        is_it.then(|| columns.last()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_of_the_right_socket_is_found() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  137: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1234 2 0000000000000000 0
  138: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 77777 2 0000000000000000 421
";
        assert_eq!(drops_of(table, 77777), Some(421));
        assert_eq!(drops_of(table, 1234), Some(0));
        assert_eq!(drops_of(table, 1), None);
        assert_eq!(drops_of("", 1), None);
    }
}

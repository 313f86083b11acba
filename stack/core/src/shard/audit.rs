//! Whether everything that a worker knows agrees with everything else.

use alloc::format;
use alloc::string::String;

use crate::mptcp::Holdings;

use super::{Shard, Slot};

impl Shard {
    /// Goes through all that there is: whether each entry of each table has its owner and each owner its entries, whether
    /// a timer is armed for all that is under way, and whether gauges and the account of memory are right. Slow, and true
    /// only while nothing waits to be [sent](Self::poll_transmit). For tests.
    ///
    /// # Errors
    /// What does not agree.
    pub fn audit(&self) -> Result<(), String> {
        let mut seen = Seen::default();
        for (index, place) in &self.conns {
            let holdings = place.holdings();
            self.audit_conn(index as u32, &holdings)?;
            seen.add(&holdings);
        }
        for (key, entry) in self.syns.iter() {
            seen.tuples += 1;
            expect("owner of a half-open tuple", &self.table.find(&entry.tuple), &Some(Slot::Syn(key)))?;
            expect("timer of a half-open connection", &self.syn_wheel.is_armed(key), &true)?;
        }
        for (index, tuple) in self.time_waits.iter() {
            seen.tuples += 1;
            expect("owner of a tuple in TIME-WAIT", &self.table.find(tuple), &Some(Slot::TimeWait(index)))?;
        }
        expect("tuples", &(self.table.len() - self.table.forwards()), &seen.tuples)?;
        expect("tokens", &self.tokens.len(), &seen.tokens)?;
        expect("TcpCurrEstab", &self.counters.tcp_curr_estab, &seen.established)?;
        expect("MPTcpExtMPCurrEstab", &self.counters.mp_curr_estab, &seen.counted)?;
        let resting = self.conns.iter().filter(|(_, place)| place.rests()).count() as u64;
        expect("connections at rest", &self.counters.conns_at_rest, &resting)?;
        expect("orphans", &self.orphans, &self.conns.iter().filter(|(_, place)| place.is_orphan()).count())?;
        expect("memory", &self.memory().used, &self.audit_memory())
    }

    fn audit_conn(&self, index: u32, holdings: &Holdings) -> Result<(), String> {
        for (id, tuple) in &holdings.tuples {
            expect("owner of a tuple", &self.table.find(tuple), &Some(Slot::Conn(index, *id)))?;
        }
        if let Some(token) = holdings.token {
            expect("owner of a token", &self.tokens.find(token), &Some(index))?;
        }
        if holdings.needs_timer && !self.conn_wheel.is_armed(index) {
            return Err(format!("connection {index} waits for something without a timer"));
        }
        Ok(())
    }
}

/// What all connections hold.
#[derive(Debug, Default)]
struct Seen {
    tuples: usize,
    tokens: usize,
    established: u64,
    counted: u64,
}

impl Seen {
    fn add(&mut self, holdings: &Holdings) {
        self.tuples += holdings.tuples.len();
        self.tokens += usize::from(holdings.token.is_some());
        self.established += holdings.established;
        self.counted += u64::from(holdings.counted);
    }
}

fn expect<T: PartialEq + core::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}")) }
}

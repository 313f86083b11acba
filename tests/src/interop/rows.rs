//! The rows of the matrix.

use super::{End, Expect, Row, Set, Step, at_least, is};
use crate::Family::{V4, V6};
use crate::Role::{self, Client, Server};

/// A row in which nothing happens, yet.
const fn row(name: &'static str, role: Role, family: crate::Family) -> Row {
    let (given, then, kernel, ours): (&[Set], &[Step], &[Expect], &[Expect]) = (&[], &[], &[], &[]);
    Row { name, role, family, given, then, end: End::Close, subflows: (1, 1), kernel, ours }
}

const SECOND: &str = "MPTcpExtMPJoinAckRx";
const JOINED: &str = "MPTcpExtMPJoinSynAckRx";

/// The token of a SYN, and the first bytes of the HMAC in the SYN/ACK and in the third ACK, become others on the way.
const WRONG_TOKEN: &str = "tcp flags & (syn|ack) == syn tcp option mptcp subtype 1 tcp option @30,32,32 set 0x0badbad0";
const WRONG_ANSWER: &str =
    "tcp flags & (syn|ack) == syn|ack tcp option mptcp subtype 1 tcp option @30,32,32 set 0x0badbad0";
const WRONG_PROOF: &str = "tcp flags & (syn|ack) == ack tcp option mptcp subtype 1 tcp option @30,32,32 set 0x0badbad0";

/// All of them.
pub const ROWS: &[Row] = &[
    // --- who joins -------------------------------------------------------------------------------------
    Row {
        kernel: &[is("MPTcpExtMPCapableACKRX", 1), is("MPTcpExtMPJoinSynRx", 0), is("MPTcpExtMPRstRx", 0)],
        ours: &[is("MPTcpExtMPCapableSYNACKRX", 1)],
        ..row("one subflow", Client, V6)
    },
    Row {
        kernel: &[is("MPTcpExtMPCapableSYNACKRX", 1), is("MPTcpExtMPJoinSynTx", 0), is("MPTcpExtMPRstRx", 0)],
        ours: &[is("MPTcpExtMPCapableACKRX", 1)],
        ..row("one subflow, accepted", Server, V4)
    },
    Row {
        given: &[Set::Path("subflow"), Set::Checksum],
        subflows: (2, 2),
        kernel: &[is(SECOND, 1), is("MPTcpExtDataCsumErr", 0)],
        ours: &[is(JOINED, 1), is("MPTcpExtDataCsumErr", 0)],
        ..row("we join, we ask for checksums", Client, V6)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Checksum],
        subflows: (2, 2),
        kernel: &[is(JOINED, 1), is("MPTcpExtDataCsumErr", 0)],
        ours: &[is(SECOND, 1), is("MPTcpExtDataCsumErr", 0)],
        ..row("the kernel joins, we ask for checksums", Server, V4)
    },
    Row {
        given: &[Set::Path("subflow"), Set::Sysctl("net.mptcp.checksum_enabled", "1")],
        subflows: (2, 2),
        kernel: &[is(SECOND, 1), is("MPTcpExtDataCsumErr", 0)],
        ours: &[is(JOINED, 1), is("MPTcpExtDataCsumErr", 0)],
        ..row("we join, the kernel asks for checksums", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Sysctl("net.mptcp.checksum_enabled", "1")],
        subflows: (2, 2),
        kernel: &[is(JOINED, 1), is("MPTcpExtDataCsumErr", 0)],
        ours: &[is(SECOND, 1), is("MPTcpExtDataCsumErr", 0)],
        ..row("the kernel joins and asks for checksums", Server, V6)
    },
    Row {
        given: &[Set::Path("subflow,backup")],
        subflows: (2, 2),
        kernel: &[is(SECOND, 1), is("MPTcpExtMPJoinSynBackupRx", 1)],
        ours: &[is(JOINED, 1)],
        ..row("we join a backup", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow backup")],
        subflows: (2, 2),
        kernel: &[is(JOINED, 1)],
        ours: &[is(SECOND, 1), is("MPTcpExtMPJoinSynBackupRx", 1)],
        ..row("the kernel joins a backup", Server, V6)
    },
    Row {
        given: &[Set::Path("fullmesh"), Set::Endpoint("signal")],
        subflows: (3, 3),
        kernel: &[is(SECOND, 2), is("MPTcpExtEchoAdd", 1)],
        ours: &[is(JOINED, 2), is("MPTcpExtAddAddr", 1)],
        ..row("we mesh", Client, V4)
    },
    Row {
        given: &[Set::Path("signal"), Set::Endpoint("subflow fullmesh")],
        subflows: (3, 3),
        kernel: &[is(JOINED, 2), is("MPTcpExtAddAddr", 1)],
        ours: &[is(SECOND, 2), is("MPTcpExtEchoAdd", 1)],
        ..row("the kernel meshes", Server, V6)
    },
    Row {
        given: &[Set::Manager("ndiffports")],
        subflows: (2, 2),
        kernel: &[is(SECOND, 1), is("MPTcpExtMPJoinSynRx", 1)],
        ours: &[is(JOINED, 1)],
        ..row("we join from the same address", Client, V4)
    },
    Row {
        given: &[Set::Path("laminar"), Set::Endpoint("signal")],
        subflows: (2, 2),
        kernel: &[is(SECOND, 1)],
        ours: &[is(JOINED, 1)],
        ..row("a laminar path of ours", Client, V6)
    },
    // --- addresses that are announced -----------------------------------------------------------------
    Row {
        given: &[Set::Endpoint("signal")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtAddAddrTx", 1), is("MPTcpExtEchoAdd", 1), is(SECOND, 1)],
        ours: &[is("MPTcpExtAddAddr", 1), is("MPTcpExtEchoAddTx", 1)],
        ..row("the kernel announces", Client, V6)
    },
    Row {
        given: &[Set::Path("signal"), Set::Checksum],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtAddAddr", 1), is("MPTcpExtEchoAddTx", 1), is(JOINED, 1)],
        ours: &[is("MPTcpExtAddAddrTx", 1), is("MPTcpExtEchoAdd", 1), is(SECOND, 1)],
        ..row("we announce", Server, V4)
    },
    Row {
        given: &[Set::Endpoint("signal port 10080")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtMPJoinPortSynRx", 1), is("MPTcpExtMPJoinPortAckRx", 1), is("MPTcpExtEchoAdd", 1)],
        ours: &[is("MPTcpExtPortAdd", 1), is("MPTcpExtMPJoinPortSynAckRx", 1)],
        ..row("the kernel announces a port", Client, V4)
    },
    Row {
        // The kernel finds no room for it beside timestamps.
        given: &[Set::Endpoint("signal port 10080"), Set::Sysctl("net.ipv4.tcp_timestamps", "0")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtMPJoinPortSynRx", 1), is("MPTcpExtMPJoinPortAckRx", 1), is("MPTcpExtEchoAdd", 1)],
        ours: &[is("MPTcpExtPortAdd", 1), is("MPTcpExtMPJoinPortSynAckRx", 1)],
        ..row("the kernel announces a port over IPv6", Client, V6)
    },
    Row {
        given: &[Set::Path("port=10080,signal")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtPortAdd", 1), is("MPTcpExtMPJoinPortSynAckRx", 1)],
        ours: &[is("MPTcpExtMPJoinPortSynRx", 1), is("MPTcpExtMPJoinPortAckRx", 1), is("MPTcpExtEchoAdd", 1)],
        ..row("we announce a port", Server, V4)
    },
    Row {
        given: &[Set::Path("port=10080,signal")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtPortAdd", 1), is("MPTcpExtMPJoinPortSynAckRx", 1)],
        ours: &[is("MPTcpExtMPJoinPortSynRx", 1), is("MPTcpExtMPJoinPortAckRx", 1), is("MPTcpExtEchoAdd", 1)],
        ..row("we announce a port over IPv6", Server, V6)
    },
    Row {
        given: &[Set::Path("signal"), Set::Nft("iifname ab0 tcp option mptcp subtype 3 numgen inc mod 3 != 2 drop")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtAddAddr", 1), is(JOINED, 1)],
        ours: &[is("MPTcpExtAddAddrTx", 3), is("MPTcpExtEchoAdd", 1)],
        ..row("our announcement gets lost twice", Server, V4)
    },
    Row {
        given: &[Set::Path("signal"), Set::Nft("oifname ab0 tcp option mptcp subtype 3 numgen inc mod 2 == 0 drop")],
        then: &[Step::Pause(1000)],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtAddAddr", 2), is(JOINED, 1)],
        ours: &[is("MPTcpExtAddAddrTx", 2), is("MPTcpExtEchoAdd", 1)],
        ..row("the echo of our announcement gets lost", Server, V6)
    },
    // --- limits ---------------------------------------------------------------------------------------
    Row {
        given: &[Set::Path("subflow"), Set::KernelLimits(0, 0)],
        then: &[Step::Pause(300)],
        kernel: &[at_least("MPTcpExtMPJoinRejected", 1), is(SECOND, 0)],
        ours: &[at_least("MPTcpExtMPRstRx", 1)],
        ..row("more than the kernel takes", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Limits(0, 0)],
        then: &[Step::Pause(500)],
        kernel: &[is("MPTcpExtMPJoinSynTx", 1), is(JOINED, 0)],
        ours: &[is("MPTcpExtMPJoinRejected", 1), is(SECOND, 0)],
        ..row("more than we take", Server, V6)
    },
    Row {
        given: &[Set::Path("signal"), Set::KernelLimits(8, 0)],
        then: &[Step::Pause(300)],
        kernel: &[is("MPTcpExtAddAddr", 1), is("MPTcpExtMPJoinSynTx", 0)],
        ours: &[is("MPTcpExtEchoAdd", 1)],
        ..row("an announcement more than the kernel takes", Server, V4)
    },
    Row {
        given: &[Set::Endpoint("signal"), Set::Limits(8, 0)],
        then: &[Step::Pause(300)],
        kernel: &[is("MPTcpExtEchoAdd", 1)],
        ours: &[is("MPTcpExtAddAddr", 1), is("MPTcpExtAddAddrDrop", 1), is("MPTcpExtMPJoinSynTx", 0)],
        ..row("an announcement more than we take", Client, V6)
    },
    // --- the C flag -----------------------------------------------------------------------------------
    Row {
        given: &[Set::Path("subflow"), Set::Sysctl("net.mptcp.allow_join_initial_addr_port", "0")],
        kernel: &[is("MPTcpExtMPJoinSynRx", 0)],
        ours: &[is("MPTcpExtMPJoinSynTx", 0)],
        ..row("the kernel sets the C flag", Client, V6)
    },
    Row {
        given: &[
            Set::Path("subflow"),
            Set::Endpoint("signal port 10080"),
            Set::Sysctl("net.mptcp.allow_join_initial_addr_port", "0"),
        ],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtMPJoinPortAckRx", 1), is("MPTcpExtMPJoinSynRx", 1)],
        ours: &[is("MPTcpExtMPJoinSynTx", 1)],
        ..row("the kernel sets the C flag and announces", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::DenyJoin],
        kernel: &[is("MPTcpExtMPJoinSynTx", 0)],
        ours: &[is("MPTcpExtMPJoinSynRx", 0)],
        ..row("we set the C flag", Server, V6)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Path("port=10080,signal"), Set::DenyJoin],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtMPJoinPortSynAckRx", 1)],
        ours: &[is("MPTcpExtMPJoinPortAckRx", 1), is("MPTcpExtMPJoinRejected", 0)],
        ..row("we set the C flag and announce", Server, V4)
    },
    // --- SYN cookies and Fast Open --------------------------------------------------------------------
    Row {
        given: &[Set::Path("subflow"), Set::Sysctl("net.ipv4.tcp_syncookies", "2")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtMPCapableACKRX", 1), is(SECOND, 1), at_least("TcpExtSyncookiesRecv", 1)],
        ours: &[is(JOINED, 1)],
        ..row("the kernel sends SYN cookies", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::SynCookies],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtMPCapableSYNACKRX", 1), is(JOINED, 1)],
        ours: &[is("TcpExtSyncookiesRecv", 1), is("MPTcpExtMPCapableACKRX", 1), is(SECOND, 1)],
        ..row("we send SYN cookies", Server, V6)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::SynCookies, Set::Sysctl("net.mptcp.checksum_enabled", "1")],
        subflows: (2, 2),
        kernel: &[is(JOINED, 1), is("MPTcpExtDataCsumErr", 0)],
        ours: &[is("TcpExtSyncookiesRecv", 1), is(SECOND, 1), is("MPTcpExtDataCsumErr", 0)],
        ..row("we send SYN cookies, the kernel asks for checksums", Server, V4)
    },
    Row {
        given: &[Set::FastOpen, Set::Path("subflow")],
        subflows: (2, 2),
        kernel: &[is("TcpExtTCPFastOpenPassive", 1), is("MPTcpExtMPCapableACKRX", 2)],
        ours: &[is("TcpExtTCPFastOpenActive", 1), is("MPTcpExtMPCapableFallbackSYNACK", 0)],
        ..row("Fast Open to the kernel", Client, V4)
    },
    Row {
        given: &[Set::FastOpen, Set::Endpoint("subflow")],
        subflows: (2, 2),
        kernel: &[is("TcpExtTCPFastOpenActive", 1), is("MPTcpExtMPCapableFallbackSYNACK", 0)],
        ours: &[is("TcpExtTCPFastOpenPassive", 1), is("MPTcpExtMPCapableACKRX", 2)],
        ..row("Fast Open by the kernel", Server, V4)
    },
    // --- changes at run time --------------------------------------------------------------------------
    Row {
        then: &[Step::Endpoint("signal")],
        subflows: (1, 2),
        kernel: &[is("MPTcpExtAddAddrTx", 1), is(SECOND, 1)],
        ours: &[is(JOINED, 1)],
        ..row("the kernel's address comes", Client, V4)
    },
    Row {
        then: &[Step::Endpoint("subflow")],
        subflows: (1, 2),
        kernel: &[is(JOINED, 1)],
        ours: &[is(SECOND, 1)],
        ..row("the kernel joins later", Server, V6)
    },
    Row {
        then: &[Step::Change("subflow")],
        subflows: (1, 2),
        kernel: &[is(SECOND, 1)],
        ours: &[is(JOINED, 1)],
        ..row("we join later", Client, V6)
    },
    Row {
        then: &[Step::Change("signal")],
        subflows: (1, 2),
        kernel: &[is("MPTcpExtAddAddr", 1), is(JOINED, 1)],
        ours: &[is(SECOND, 1)],
        ..row("our address comes", Server, V4)
    },
    Row {
        given: &[Set::Endpoint("signal")],
        then: &[Step::EndpointDelete],
        subflows: (2, 1),
        kernel: &[is("MPTcpExtRmAddrTx", 1)],
        ours: &[is("MPTcpExtRmAddr", 1)],
        ..row("the kernel's address goes", Client, V6)
    },
    Row {
        given: &[Set::Endpoint("subflow")],
        then: &[Step::EndpointDelete],
        subflows: (2, 1),
        kernel: &[is("MPTcpExtRmAddrTx", 1)],
        ours: &[is("MPTcpExtRmAddr", 1)],
        ..row("the kernel's joining address goes", Server, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow")],
        then: &[Step::EndpointDelete, Step::Endpoint("subflow")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtRmAddrTx", 1), is(JOINED, 2)],
        ours: &[is("MPTcpExtRmAddr", 1), is(SECOND, 2)],
        ..row("the kernel's joining address goes and comes", Server, V6)
    },
    Row {
        given: &[Set::Endpoint("signal")],
        then: &[Step::EndpointDeleteFirst],
        subflows: (2, 1),
        kernel: &[is("MPTcpExtRmAddrTx", 1)],
        ours: &[is("MPTcpExtRmAddr", 1)],
        ..row("the kernel's first address goes", Client, V4)
    },
    Row {
        given: &[Set::Path("subflow")],
        then: &[Step::Remove],
        subflows: (2, 1),
        kernel: &[is("MPTcpExtRmAddr", 1)],
        ours: &[is("MPTcpExtRmAddrTx", 1)],
        ..row("our joining address goes", Client, V6)
    },
    Row {
        given: &[Set::Path("signal")],
        then: &[Step::Remove],
        subflows: (2, 1),
        kernel: &[is("MPTcpExtRmAddr", 1)],
        ours: &[is("MPTcpExtRmAddrTx", 1)],
        ..row("our announced address goes", Server, V6)
    },
    Row {
        given: &[Set::Path("subflow")],
        then: &[Step::RemoveFirst],
        subflows: (2, 1),
        kernel: &[is("MPTcpExtRmAddr", 1)],
        ours: &[is("MPTcpExtRmAddrTx", 1)],
        ..row("our first address goes", Client, V4)
    },
    // Identifier 0 is gone with it: what comes back has its endpoint's.
    Row {
        given: &[Set::Path("signal")],
        then: &[Step::RemoveFirst, Step::AddFirst("signal")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtRmAddr", 1), is("MPTcpExtAddAddr", 2), is(JOINED, 2)],
        ours: &[is("MPTcpExtRmAddrTx", 1), is("MPTcpExtEchoAdd", 2), is(SECOND, 2)],
        ..row("our first address goes and comes", Server, V4)
    },
    Row {
        given: &[Set::Path("subflow")],
        then: &[Step::RemoveFirst, Step::AddFirst("subflow")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtRmAddr", 1), is(SECOND, 2)],
        ours: &[is("MPTcpExtRmAddrTx", 1), is(JOINED, 2)],
        ..row("our first address goes and comes, we connected", Client, V6)
    },
    Row {
        given: &[Set::Path("subflow")],
        then: &[Step::Change("subflow,backup"), Step::Change("subflow")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtMPPrioRx", 2)],
        ours: &[is("MPTcpExtMPPrioTx", 2)],
        ..row("our path becomes a backup and no longer", Client, V6)
    },
    Row {
        given: &[Set::Endpoint("subflow")],
        then: &[Step::EndpointChange("backup"), Step::EndpointChange("nobackup")],
        subflows: (2, 2),
        kernel: &[is("MPTcpExtMPPrioTx", 2)],
        ours: &[is("MPTcpExtMPPrioRx", 2)],
        ..row("the kernel's path becomes a backup and no longer", Server, V4)
    },
    // --- ends -----------------------------------------------------------------------------------------
    Row {
        given: &[Set::Path("subflow")],
        end: End::OurAbort,
        subflows: (2, 2),
        kernel: &[at_least("MPTcpExtMPFastcloseRx", 1)],
        ours: &[at_least("MPTcpExtMPFastcloseTx", 1)],
        ..row("we abort two subflows", Client, V4)
    },
    Row {
        end: End::OurAbort,
        kernel: &[at_least("MPTcpExtMPFastcloseRx", 1)],
        ours: &[at_least("MPTcpExtMPFastcloseTx", 1)],
        ..row("we abort one subflow", Server, V6)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Checksum],
        end: End::KernelAbort,
        subflows: (2, 2),
        kernel: &[at_least("MPTcpExtMPFastcloseTx", 1)],
        ours: &[at_least("MPTcpExtMPFastcloseRx", 1)],
        ..row("the kernel aborts two subflows", Server, V4)
    },
    Row {
        end: End::KernelAbort,
        kernel: &[at_least("MPTcpExtMPFastcloseTx", 1)],
        ours: &[at_least("MPTcpExtMPFastcloseRx", 1)],
        ..row("the kernel aborts one subflow", Client, V6)
    },
    // --- joins that are not what they seem ------------------------------------------------------------
    Row {
        given: &[Set::Path("subflow"), Set::Nft(WRONG_TOKEN)],
        kernel: &[at_least("MPTcpExtMPJoinNoTokenFound", 1), is(SECOND, 0), is("TcpEstabResets", 0)],
        ours: &[at_least("MPTcpExtMPRstRx", 1), is(JOINED, 0)],
        ..row("our joins have a wrong token", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Nft(WRONG_TOKEN)],
        then: &[Step::Pause(300)],
        kernel: &[is("MPTcpExtMPJoinSynTx", 1), is(JOINED, 0)],
        ours: &[is("MPTcpExtMPJoinNoTokenFound", 1), is(SECOND, 0), at_least("MPTcpExtMPRstTx", 1)],
        ..row("the kernel's join has a wrong token", Server, V6)
    },
    Row {
        given: &[Set::Path("subflow"), Set::Nft(WRONG_ANSWER)],
        kernel: &[at_least("MPTcpExtMPJoinSynRx", 1), is(SECOND, 0)],
        ours: &[at_least("MPTcpExtMPJoinSynAckHMacFailure", 1), is(JOINED, 0), at_least("MPTcpExtMPRstTx", 1)],
        ..row("the kernel answers our joins with a wrong HMAC", Client, V6)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Nft(WRONG_ANSWER)],
        then: &[Step::Pause(300)],
        kernel: &[is("MPTcpExtMPJoinSynAckHMacFailure", 1)],
        ours: &[is("MPTcpExtMPJoinSynRx", 1), is(SECOND, 0)],
        ..row("we answer the kernel's join with a wrong HMAC", Server, V4)
    },
    Row {
        given: &[Set::Path("subflow"), Set::Nft(WRONG_PROOF)],
        kernel: &[at_least("MPTcpExtMPJoinAckHMacFailure", 1), is(SECOND, 0)],
        ours: &[at_least(JOINED, 1), at_least("MPTcpExtMPRstRx", 1)],
        ..row("our joins are proven with a wrong HMAC", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Nft(WRONG_PROOF)],
        then: &[Step::Pause(300)],
        kernel: &[is(JOINED, 1), is("TcpEstabResets", 1)],
        ours: &[is("MPTcpExtMPJoinAckHMacFailure", 1), is(SECOND, 0), at_least("MPTcpExtMPRstTx", 1)],
        ..row("the kernel's join is proven with a wrong HMAC", Server, V6)
    },
    // --- middleboxes ----------------------------------------------------------------------------------
    Row {
        given: &[Set::Path("subflow"), Set::Nft("reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPCapableSYNRX", 0)],
        ours: &[is("MPTcpExtMPCapableFallbackSYNACK", 1), is("MPTcpExtMPJoinSynTx", 0)],
        ..row("all options are stripped, we connect", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Nft("reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPCapableFallbackSYNACK", 1), is("MPTcpExtMPJoinSynTx", 0)],
        ours: &[is("MPTcpExtMPCapableSYNRX", 0)],
        ..row("all options are stripped, the kernel connects", Server, V6)
    },
    Row {
        given: &[Set::Nft("tcp flags & (syn|ack) == syn|ack reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPCapableFallbackACK", 1)],
        ours: &[is("MPTcpExtMPCapableFallbackSYNACK", 1)],
        ..row("the SYN/ACK's option is stripped, we connect", Client, V6)
    },
    Row {
        given: &[Set::Nft("tcp flags & (syn|ack) == syn|ack reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPCapableFallbackSYNACK", 1)],
        ours: &[is("MPTcpExtMPCapableFallbackACK", 1)],
        ..row("the SYN/ACK's option is stripped, the kernel connects", Server, V4)
    },
    Row {
        given: &[Set::Nft("tcp flags & syn == 0 reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPCapableFallbackACK", 1)],
        ours: &[is("MPTcpExtMPCapableSYNACKRX", 1)],
        ..row("options pass in the handshake only, we connect", Client, V4)
    },
    Row {
        given: &[Set::Nft("tcp flags & syn == 0 reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPCapableSYNACKRX", 1)],
        ours: &[is("MPTcpExtMPCapableFallbackACK", 1)],
        ..row("options pass in the handshake only, the kernel connects", Server, V6)
    },
    Row {
        given: &[Set::Nft("tcp flags & (syn|ack) == syn tcp option mptcp exists drop")],
        kernel: &[is("MPTcpExtMPCapableSYNRX", 0)],
        ours: &[is("MPTcpExtMPCapableSYNTXDrop", 1)],
        ..row("SYNs with the option are dropped, we connect", Client, V6)
    },
    Row {
        given: &[Set::Nft("tcp flags & (syn|ack) == syn tcp option mptcp exists drop")],
        kernel: &[is("MPTcpExtMPCapableSYNTXDrop", 1)],
        ours: &[is("MPTcpExtMPCapableSYNRX", 0)],
        ..row("SYNs with the option are dropped, the kernel connects", Server, V4)
    },
    Row {
        given: &[Set::Path("subflow"), Set::Nft("tcp option mptcp subtype 1 drop")],
        kernel: &[is("MPTcpExtMPJoinSynRx", 0)],
        ours: &[at_least("MPTcpExtMPJoinSynTx", 1), is(JOINED, 0)],
        ..row("our joins are dropped", Client, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow"), Set::Nft("tcp option mptcp subtype 1 reject with tcp reset")],
        then: &[Step::Pause(500)],
        kernel: &[is("MPTcpExtMPJoinSynTx", 1), is(JOINED, 0)],
        ours: &[is("MPTcpExtMPJoinSynRx", 0)],
        ..row("the kernel's joins are reset", Server, V6)
    },
    Row {
        given: &[Set::Path("subflow"), Set::Nft("tcp option mptcp subtype 1 reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPJoinSynRx", 0)],
        ours: &[at_least("MPTcpExtMPJoinSynTx", 1), is(JOINED, 0)],
        ..row("our joins' option is stripped", Client, V6)
    },
    Row {
        then: &[Step::NftAtRest("oifname ab0 reset tcp option mptcp")],
        ours: &[is("MPTcpExtDssFallback", 1)],
        ..row("the kernel's options are stripped later, we connected", Client, V6)
    },
    Row {
        then: &[Step::NftAtRest("oifname ab0 reset tcp option mptcp")],
        ours: &[is("MPTcpExtDssFallback", 1)],
        ..row("the kernel's options are stripped later", Server, V4)
    },
    Row {
        then: &[Step::NftBeforeKernel("oifname ab0 reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPTCPRetrans", 0)],
        ours: &[is("MPTcpExtDssFallback", 1)],
        ..row("the kernel's options are stripped before it sends, we connected", Client, V4)
    },
    Row {
        then: &[Step::NftBeforeKernel("oifname ab0 reset tcp option mptcp")],
        kernel: &[is("MPTcpExtMPTCPRetrans", 0)],
        ours: &[is("MPTcpExtDssFallback", 1)],
        ..row("the kernel's options are stripped before it sends", Server, V6)
    },
    // The kernel falls back as long as it has repeated nothing for want of a DATA_ACK; later it resets, see `End::TooLate`.
    Row {
        then: &[Step::NftAtRest("iifname ab0 reset tcp option mptcp")],
        kernel: &[is("MPTcpExtDssFallback", 1), is("MPTcpExtMPRstTx", 0)],
        ..row("our options are stripped later, we connected", Client, V4)
    },
    Row {
        then: &[Step::NftAtRest("iifname ab0 reset tcp option mptcp")],
        kernel: &[is("MPTcpExtDssFallback", 1), is("MPTcpExtMPRstTx", 0)],
        ..row("our options are stripped later", Server, V6)
    },
    Row {
        then: &[Step::NftAtRest("reset tcp option mptcp")],
        kernel: &[is("MPTcpExtDssFallback", 1), is("MPTcpExtMPRstTx", 0)],
        ours: &[is("MPTcpExtDssFallback", 1), is("TcpEstabResets", 0)],
        ..row("all options are stripped later, we connected", Client, V6)
    },
    Row {
        then: &[Step::NftAtRest("reset tcp option mptcp")],
        kernel: &[is("MPTcpExtDssFallback", 1), is("MPTcpExtMPRstTx", 0)],
        ours: &[is("MPTcpExtDssFallback", 1), is("TcpEstabResets", 0)],
        ..row("all options are stripped later", Server, V4)
    },
    Row {
        end: End::TooLate("iifname ab0 reset tcp option mptcp"),
        kernel: &[at_least("MPTcpExtMPTCPRetrans", 1), is("MPTcpExtDssFallback", 0), is("MPTcpExtMPRstTx", 1)],
        ours: &[is("MPTcpExtMPRstRx", 1)],
        ..row("our options are stripped while the kernel sends, we connected", Client, V6)
    },
    Row {
        end: End::TooLate("iifname ab0 reset tcp option mptcp"),
        kernel: &[at_least("MPTcpExtMPTCPRetrans", 1), is("MPTcpExtDssFallback", 0), is("MPTcpExtMPRstTx", 1)],
        ours: &[is("MPTcpExtMPRstRx", 1)],
        ..row("our options are stripped while the kernel sends", Server, V4)
    },
    Row {
        given: &[Set::Path("subflow")],
        then: &[Step::Nft("iifname ab1 reset tcp option mptcp"), Step::Nft("oifname ab1 reset tcp option mptcp")],
        subflows: (2, 1),
        ..row("options are stripped later on one of two paths", Client, V4)
    },
    Row {
        given: &[Set::Path("subflow")],
        then: &[Step::Nft("iifname { ab1, va1 } drop")],
        subflows: (2, 2),
        ..row("one of two paths falls silent", Client, V6)
    },
    Row {
        given: &[Set::Endpoint("subflow")],
        then: &[Step::Nft("iifname { ab0, va0 } drop")],
        subflows: (2, 2),
        ..row("the first of two paths falls silent", Server, V4)
    },
    Row {
        given: &[Set::Endpoint("subflow")],
        then: &[Step::Nft("iifname ab1 tcp flags & (syn|rst) == 0 reject with tcp reset")],
        subflows: (2, 1),
        ..row("one of two paths is reset", Server, V6)
    },
];

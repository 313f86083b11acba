//! Counters under the kernel's names (`nstat`), plus a few of our own.

macro_rules! counters {
    ($( $(#[$doc:meta])* $field:ident => $name:literal ),* $(,)?) => {
        /// Counts of one worker since its start. The names of [`iter`](Self::iter) are the kernel's where it has one.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $( $(#[$doc])* pub $field: u64, )*
        }

        impl Counters {
            /// Name and value of every counter, in a fixed order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$( ($name, self.$field) ),*].into_iter()
            }

            /// Adds another worker's counts to these.
            pub fn merge(&mut self, other: &Self) {
                $( self.$field += other.$field; )*
            }
        }
    };
}

counters! {
    /// Datagrams that came in.
    ip_in_receives => "IpInReceives",
    /// Datagrams dropped for a bad IP header.
    ip_in_hdr_errors => "IpInHdrErrors",
    /// Datagrams for an address that is not ours, or from one that is no single host's.
    ip_in_addr_errors => "IpInAddrErrors",
    /// Datagrams of a protocol we do not speak.
    ip_in_unknown_protos => "IpInUnknownProtos",
    /// Fragments, which are refused.
    ip_in_fragments => "AnabranchInFragments",
    /// Packets that came in and were not ECN-capable, super-segments counted as their segments.
    ip_in_no_ect => "IpExtInNoECTPkts",
    /// Packets that came in with ECT(1).
    ip_in_ect1 => "IpExtInECT1Pkts",
    /// Packets that came in with ECT(0).
    ip_in_ect0 => "IpExtInECT0Pkts",
    /// Packets that came in marked: congestion experienced.
    ip_in_ce => "IpExtInCEPkts",
    /// ICMP messages that came in, of both versions.
    icmp_in_msgs => "IcmpInMsgs",
    /// Those that were malformed, or about no connection of ours.
    icmp_in_errors => "IcmpInErrors",
    /// Those with a bad checksum.
    icmp_in_csum_errors => "IcmpInCsumErrors",
    /// Errors about our segments: destination unreachable.
    icmp_in_dest_unreachs => "IcmpInDestUnreachs",
    /// Errors about our segments: a packet was too big, by either version.
    icmp_in_pkt_too_bigs => "Icmp6InPktTooBigs",
    /// ICMP errors about no segment that is under way: forged, or very late.
    out_of_window_icmps => "TcpExtOutOfWindowIcmps",
    /// TCP segments that came in.
    tcp_in_segs => "TcpInSegs",
    /// Datagrams handed to the worker that they belong to.
    handed_over_tx => "AnabranchHandedOverTx",
    /// Datagrams that other workers handed to this one.
    handed_over_rx => "AnabranchHandedOverRx",
    /// TCP segments that went out, super-segments counted as their segments.
    tcp_out_segs => "TcpOutSegs",
    /// TCP segments dropped for a bad header.
    tcp_in_errs => "TcpInErrs",
    /// Segments dropped because they have an MD5 signature (RFC 2385), for which there is no key.
    tcp_md5_unexpected => "TcpExtTCPMD5Unexpected",
    /// Segments dropped because they are signed by TCP-AO (RFC 5925), for which there is no key.
    tcp_ao_key_not_found => "TcpExtTCPAOKeyNotFound",
    /// TCP segments dropped for a bad checksum.
    tcp_in_csum_errors => "TcpInCsumErrors",
    /// Options that were malformed and ignored.
    tcp_malformed_options => "AnabranchMalformedOptions",
    /// Resets sent.
    tcp_out_rsts => "TcpOutRsts",
    /// Connections opened by us.
    tcp_active_opens => "TcpActiveOpens",
    /// Connections opened by the peer.
    tcp_passive_opens => "TcpPassiveOpens",
    /// Handshakes that failed.
    tcp_attempt_fails => "TcpAttemptFails",
    /// Established connections that were reset.
    tcp_estab_resets => "TcpEstabResets",
    /// Subflows in ESTABLISHED or CLOSE-WAIT now.
    tcp_curr_estab => "TcpCurrEstab",
    /// Bytes of memory that connections hold now.
    memory => "AnabranchMemory",
    /// Times that the budget of memory came near its end.
    tcp_memory_pressures => "TcpExtTCPMemoryPressures",
    /// Connections refused or reset because the budget of memory was used up.
    tcp_abort_on_memory => "TcpExtTCPAbortOnMemory",
    /// Data in order dropped, unacknowledged, because the budget of memory was used up.
    tcp_rcvq_drop => "TcpExtTCPRcvQDrop",
    /// Data out of order dropped, unacknowledged: the budget of memory is used up, or there are too many holes.
    tcp_ofo_drop => "TcpExtTCPOFODrop",
    /// Receive buffers gone through for storage that can be given back.
    prune_called => "TcpExtPruneCalled",
    /// Pieces of received data copied out of storage that they filled badly.
    tcp_rcv_collapsed => "TcpExtTCPRcvCollapsed",
    /// Connections that have nothing under way and were shrunk, now.
    conns_at_rest => "AnabranchConnsAtRest",
    /// Segments retransmitted.
    tcp_retrans_segs => "TcpRetransSegs",
    /// Retransmission timeouts.
    tcp_timeouts => "TcpExtTCPTimeouts",
    /// Flow labels changed after a timeout.
    tcp_timeout_rehash => "TcpExtTcpTimeoutRehash",
    /// Probes for a larger path MTU sent.
    tcp_mtu_probes => "AnabranchMTUProbes",
    /// Those that got through.
    tcp_mtup_success => "TcpExtTCPMTUPSuccess",
    /// Those that did not.
    tcp_mtup_fail => "TcpExtTCPMTUPFail",
    /// Paths on which nothing got through any more, and smaller segments were tried.
    tcp_mtu_black_holes => "AnabranchMTUBlackHoles",
    /// Fast recoveries entered with SACK.
    tcp_sack_recovery => "TcpExtTCPSackRecovery",
    /// Fast recoveries entered without SACK.
    tcp_reno_recovery => "TcpExtTCPRenoRecovery",
    /// Timeouts in fast recovery with SACK.
    tcp_sack_recovery_fail => "TcpExtTCPSackRecoveryFail",
    /// Timeouts in fast recovery without SACK.
    tcp_reno_recovery_fail => "TcpExtTCPRenoRecoveryFail",
    /// Timeouts in the recovery from a timeout.
    tcp_loss_failures => "TcpExtTCPLossFailures",
    /// Timeouts with SACKed segments outstanding, but too few for fast recovery.
    tcp_sack_failures => "TcpExtTCPSackFailures",
    /// Timeouts after duplicate ACKs, but too few for fast recovery.
    tcp_reno_failures => "TcpExtTCPRenoFailures",
    /// Segments sent again in fast recovery.
    tcp_fast_retrans => "TcpExtTCPFastRetrans",
    /// Segments sent again after a timeout.
    tcp_slow_start_retrans => "TcpExtTCPSlowStartRetrans",
    /// Segments that were lost again after they had been sent again.
    tcp_lost_retransmit => "TcpExtTCPLostRetransmit",
    /// Timeouts that proved needless, because originals arrived that were not sent again.
    tcp_spurious_rtos => "TcpExtTCPSpuriousRTOs",
    /// Reductions taken back after a timeout.
    tcp_loss_undo => "TcpExtTCPLossUndo",
    /// Reductions taken back at the end of fast recovery.
    tcp_full_undo => "TcpExtTCPFullUndo",
    /// Reductions taken back in fast recovery, by the timestamp of an original.
    tcp_partial_undo => "TcpExtTCPPartialUndo",
    /// Reductions taken back because all that was sent again had arrived before.
    tcp_dsack_undo => "TcpExtTCPDSACKUndo",
    /// Reordering seen by SACKs and acknowledgements of segments that were sent once.
    tcp_sack_reorder => "TcpExtTCPSACKReorder",
    /// Reordering seen by the timestamp of an original.
    tcp_ts_reorder => "TcpExtTCPTSReorder",
    /// Reordering seen by more duplicate ACKs than there are segments.
    tcp_reno_reorder => "TcpExtTCPRenoReorder",
    /// Segments delivered under acknowledgements that echo congestion.
    tcp_delivered_ce => "TcpExtTCPDeliveredCE",
    /// Tail loss probes sent.
    tcp_loss_probes => "TcpExtTCPLossProbes",
    /// Losses that only a tail loss probe repaired and showed.
    tcp_loss_probe_recovery => "TcpExtTCPLossProbeRecovery",
    /// DSACK blocks received.
    tcp_dsack_recv => "TcpExtTCPDSACKRecv",
    /// Segments in DSACK blocks that count.
    tcp_dsack_recv_segs => "TcpExtTCPDSACKRecvSegs",
    /// DSACK blocks for more than was ever sent twice.
    tcp_dsack_ignored_dubious => "TcpExtTCPDSACKIgnoredDubious",
    /// DSACK blocks sent for old segments.
    tcp_dsack_old_sent => "TcpExtTCPDSACKOldSent",
    /// SACK blocks that made no sense.
    tcp_sack_discard => "TcpExtTCPSACKDiscard",
    /// Peers that took SACKs back.
    tcp_sack_reneging => "TcpExtTCPSACKReneging",
    /// Segments queued out of order.
    tcp_ofo_queue => "TcpExtTCPOFOQueue",
    /// Segments dropped by PAWS.
    paws_estab => "TcpExtPAWSEstab",
    /// Segments outside the window.
    tcp_out_of_window => "AnabranchOutOfWindow",
    /// Challenge ACKs sent.
    tcp_challenge_ack => "TcpExtTCPChallengeACK",
    /// Segments that did not fit and were not answered, since another one was just before: by PAWS…
    tcp_ack_skipped_paws => "TcpExtTCPACKSkippedPAWS",
    /// …by the sequence number…
    tcp_ack_skipped_seq => "TcpExtTCPACKSkippedSeq",
    /// …in TIME-WAIT…
    tcp_ack_skipped_time_wait => "TcpExtTCPACKSkippedTimeWait",
    /// …and where a challenge ACK would have been due.
    tcp_ack_skipped_challenge => "TcpExtTCPACKSkippedChallenge",
    /// ACKs dropped by PAWS that had been overtaken.
    paws_old_ack => "TcpExtPAWSOldAck",
    /// Challenge ACKs for a SYN in a synchronised state.
    tcp_syn_challenge => "TcpExtTCPSYNChallenge",
    /// ACKs for data never sent.
    tcp_ack_unsent => "AnabranchAckUnsent",
    /// Delayed ACKs sent by timer.
    delayed_acks => "TcpExtDelayedACKs",
    /// Data that came again although it had been acknowledged, or was about to be.
    delayed_ack_lost => "TcpExtDelayedACKLost",
    /// SACKs that went together with others.
    tcp_ack_compressed => "TcpExtTCPAckCompressed",
    /// Windows closed.
    tcp_to_zero_window_adv => "TcpExtTCPToZeroWindowAdv",
    /// Windows opened again.
    tcp_from_zero_window_adv => "TcpExtTCPFromZeroWindowAdv",
    /// Windows that would have been closed, had the peer not been told of more before.
    tcp_want_zero_window_adv => "TcpExtTCPWantZeroWindowAdv",
    /// Segments dropped because the window was closed.
    tcp_zero_window_drop => "TcpExtTCPZeroWindowDrop",
    /// Zero-window probes sent.
    tcp_winprobe => "TcpExtTCPWinProbe",
    /// Keepalive probes sent.
    tcp_keepalive => "TcpExtTCPKeepAlive",
    /// Connections reset because data came after they were closed.
    tcp_abort_on_data => "TcpExtTCPAbortOnData",
    /// Connections reset because they were closed with data unread.
    tcp_abort_on_close => "TcpExtTCPAbortOnClose",
    /// Connections reset because they were not to wait in FIN-WAIT-2.
    tcp_abort_on_linger => "TcpExtTCPAbortOnLinger",
    /// Third ACKs that a listener dropped because it waits for data.
    tcp_defer_accept_drop => "TcpExtTCPDeferAcceptDrop",
    /// Connections aborted by retransmission or user timeout.
    tcp_abort_on_timeout => "TcpExtTCPAbortOnTimeout",
    /// Connections dropped because the backlog was full.
    listen_overflows => "TcpExtListenOverflows",
    /// SYNs dropped because the SYN queue was full, memory used up, or the path removed by which they came.
    listen_drops => "TcpExtListenDrops",
    /// SYNs answered with a cookie.
    syncookies_sent => "TcpExtSyncookiesSent",
    /// Connections opened by a cookie that came back.
    syncookies_recv => "TcpExtSyncookiesRecv",
    /// ACKs without a connection, and without a good cookie, while cookies were out.
    syncookies_failed => "TcpExtSyncookiesFailed",
    /// SYNs that found the SYN queue full and were answered with a cookie…
    tcp_req_q_full_do_cookies => "TcpExtTCPReqQFullDoCookies",
    /// …or dropped.
    tcp_req_q_full_drop => "TcpExtTCPReqQFullDrop",
    /// Segments that did not fit a half-open connection and were not answered, since another one was just before.
    tcp_ack_skipped_syn_recv => "TcpExtTCPACKSkippedSynRecv",
    /// Connections opened by us whose SYN's data was taken.
    tcp_fastopen_active => "TcpExtTCPFastOpenActive",
    /// The same whose SYN's data was not taken, or not all of it.
    tcp_fastopen_active_fail => "TcpExtTCPFastOpenActiveFail",
    /// Connections opened by the peer's SYN alone.
    tcp_fastopen_passive => "TcpExtTCPFastOpenPassive",
    /// SYNs with a bad cookie, or for which there was no room.
    tcp_fastopen_passive_fail => "TcpExtTCPFastOpenPassiveFail",
    /// SYNs with a cookie of the backup key.
    tcp_fastopen_passive_alt_key => "TcpExtTCPFastOpenPassiveAltKey",
    /// SYNs not opened at once because too many of the listener's connections had not finished their handshake.
    tcp_fastopen_listen_overflow => "TcpExtTCPFastOpenListenOverflow",
    /// Requests for a cookie.
    tcp_fastopen_cookie_reqd => "TcpExtTCPFastOpenCookieReqd",
    /// Paths found to swallow connections with data in the SYN.
    tcp_fastopen_blackhole => "TcpExtTCPFastOpenBlackhole",
    /// SYN/ACKs that echo a timestamp of another connection.
    paws_active_rejected => "TcpExtPAWSActiveRejected",
    /// Connections opened on a tuple in TIME-WAIT.
    tw_recycled => "TcpExtTWRecycled",
    /// Entries of TIME-WAIT that had to go early.
    tw_overflow => "TcpExtTCPTimeWaitOverflow",
    /// Connections that entered TIME-WAIT.
    tw => "TcpExtTW",

    /// MP_CAPABLE SYNs received.
    mp_capable_syn_rx => "MPTcpExtMPCapableSYNRX",
    /// MP_CAPABLE SYNs sent.
    mp_capable_syn_tx => "MPTcpExtMPCapableSYNTX",
    /// SYN/ACKs with MP_CAPABLE received.
    mp_capable_synack_rx => "MPTcpExtMPCapableSYNACKRX",
    /// Third ACKs with MP_CAPABLE received.
    mp_capable_ack_rx => "MPTcpExtMPCapableACKRX",
    /// Third ACKs without MP_CAPABLE.
    mp_capable_fallback_ack => "MPTcpExtMPCapableFallbackACK",
    /// SYN/ACKs without MP_CAPABLE.
    mp_capable_fallback_synack => "MPTcpExtMPCapableFallbackSYNACK",
    /// SYNs with MP_CAPABLE given up for plain ones.
    mp_capable_syn_tx_drop => "MPTcpExtMPCapableSYNTXDrop",
    /// Connections opened as plain TCP because MP_CAPABLE does not get through to their destination.
    mp_capable_syn_tx_disabled => "MPTcpExtMPCapableSYNTXDisabled",
    /// Destinations to which SYNs get through without MP_CAPABLE only.
    mp_blackhole => "MPTcpExtBlackhole",
    /// First data without a mapping.
    mp_capable_data_fallback => "MPTcpExtMPCapableDataFallback",
    /// Keys redrawn because a token was taken.
    mp_fallback_token_init => "MPTcpExtMPFallbackTokenInit",
    /// Bytes retransmitted at data level, as events.
    mptcp_retrans => "MPTcpExtMPTCPRetrans",
    /// Joins for an unknown token.
    mp_join_no_token_found => "MPTcpExtMPJoinNoTokenFound",
    /// MP_JOIN SYNs received.
    mp_join_syn_rx => "MPTcpExtMPJoinSynRx",
    /// MP_JOIN SYNs with the backup flag received.
    mp_join_syn_backup_rx => "MPTcpExtMPJoinSynBackupRx",
    /// MP_JOIN SYN/ACKs received whose HMAC was right.
    mp_join_synack_rx => "MPTcpExtMPJoinSynAckRx",
    /// MP_JOIN SYN/ACKs with the backup flag received.
    mp_join_synack_backup_rx => "MPTcpExtMPJoinSynAckBackupRx",
    /// MP_JOIN SYN/ACKs with a wrong HMAC.
    mp_join_synack_hmac_failure => "MPTcpExtMPJoinSynAckHMacFailure",
    /// SYN/ACKs without the MP_JOIN that was asked for.
    mp_join_synack_no_mpjoin => "MPTcpExtMPJoinSynAckNoMPJoin",
    /// Third ACKs of MP_JOIN received whose join was accepted.
    mp_join_ack_rx => "MPTcpExtMPJoinAckRx",
    /// Third ACKs of MP_JOIN with a wrong HMAC.
    mp_join_ack_hmac_failure => "MPTcpExtMPJoinAckHMacFailure",
    /// Third ACKs without the MP_JOIN.
    mp_join_ack_no_mpjoin => "MPTcpExtMPJoinAckNoMPJoin",
    /// Joins refused by the limits or the state of the connection.
    mp_join_rejected => "MPTcpExtMPJoinRejected",
    /// MP_JOIN SYNs sent.
    mp_join_syn_tx => "MPTcpExtMPJoinSynTx",
    /// Joins received on a port that was announced.
    mp_join_port_syn_rx => "MPTcpExtMPJoinPortSynRx",
    /// Answers to joins of a port that the peer announced.
    mp_join_port_synack_rx => "MPTcpExtMPJoinPortSynAckRx",
    /// Third ACKs of joins on a port that was announced.
    mp_join_port_ack_rx => "MPTcpExtMPJoinPortAckRx",
    /// Joins on a port that is neither the connection's nor announced.
    mismatch_port_syn_rx => "MPTcpExtMismatchPortSynRx",
    /// Third ACKs of joins on a port that is announced no longer.
    mismatch_port_ack_rx => "MPTcpExtMismatchPortAckRx",
    /// MP_JOIN SYNs that could not be sent.
    mp_join_syn_tx_connect_err => "MPTcpExtMPJoinSynTxConnectErr",
    /// Mappings that did not match earlier ones.
    dss_not_matching => "MPTcpExtDSSNotMatching",
    /// Falls back for a corrupt DSS.
    dss_corruption_fallback => "MPTcpExtDSSCorruptionFallback",
    /// Subflows reset for a corrupt DSS.
    dss_corruption_reset => "MPTcpExtDSSCorruptionReset",
    /// Falls back because DSS went missing.
    dss_fallback => "MPTcpExtDssFallback",
    /// Falls back because of a simultaneous connect.
    simult_connect_fallback => "MPTcpExtSimultConnectFallback",
    /// A fallback was due but a second subflow existed.
    fallback_failed => "MPTcpExtFallbackFailed",
    /// Mappings whose checksum was wrong.
    data_csum_err => "MPTcpExtDataCsumErr",
    /// Infinite mappings sent.
    infinite_map_tx => "MPTcpExtInfiniteMapTx",
    /// Infinite mappings received.
    infinite_map_rx => "MPTcpExtInfiniteMapRx",
    /// Data without a mapping.
    dss_no_match_tcp => "MPTcpExtDSSNoMatchTCP",
    /// Data queued out of DSN order.
    ofo_queue => "MPTcpExtOFOQueue",
    /// Data beyond the connection's window, dropped.
    no_dss_in_window => "MPTcpExtNoDSSInWindow",
    /// Data out of order dropped because small pieces of it take too much memory.
    rcv_pruned => "MPTcpExtRcvPruned",
    /// Data that had come already.
    duplicate_data => "MPTcpExtDuplicateData",
    /// ADD_ADDRs received.
    add_addr => "MPTcpExtAddAddr",
    /// ADD_ADDRs sent.
    add_addr_tx => "MPTcpExtAddAddrTx",
    /// ADD_ADDRs that no subflow had room for.
    add_addr_tx_drop => "MPTcpExtAddAddrTxDrop",
    /// ADD_ADDR echoes received.
    echo_add => "MPTcpExtEchoAdd",
    /// ADD_ADDR echoes sent.
    echo_add_tx => "MPTcpExtEchoAddTx",
    /// ADD_ADDR echoes that their subflow had no room for.
    echo_add_tx_drop => "MPTcpExtEchoAddTxDrop",
    /// ADD_ADDRs received with a port.
    port_add => "MPTcpExtPortAdd",
    /// ADD_ADDRs dropped: wrong HMAC, not ours to use, over the limit of memory.
    add_addr_drop => "MPTcpExtAddAddrDrop",
    /// REMOVE_ADDRs received.
    rm_addr => "MPTcpExtRmAddr",
    /// REMOVE_ADDRs that named nothing.
    rm_addr_drop => "MPTcpExtRmAddrDrop",
    /// REMOVE_ADDRs sent.
    rm_addr_tx => "MPTcpExtRmAddrTx",
    /// REMOVE_ADDRs that no subflow had room for: they wait.
    rm_addr_tx_drop => "MPTcpExtRmAddrTxDrop",
    /// Subflows closed because their address was removed, by us or by the peer.
    rm_subflow => "MPTcpExtRmSubflow",
    /// MP_PRIOs sent.
    mp_prio_tx => "MPTcpExtMPPrioTx",
    /// MP_PRIOs received.
    mp_prio_rx => "MPTcpExtMPPrioRx",
    /// MP_FAILs sent.
    mp_fail_tx => "MPTcpExtMPFailTx",
    /// MP_FAILs received.
    mp_fail_rx => "MPTcpExtMPFailRx",
    /// MP_FASTCLOSEs sent.
    mp_fastclose_tx => "MPTcpExtMPFastcloseTx",
    /// MP_FASTCLOSEs received.
    mp_fastclose_rx => "MPTcpExtMPFastcloseRx",
    /// MP_TCPRSTs sent.
    mp_rst_tx => "MPTcpExtMPRstTx",
    /// MP_TCPRSTs received.
    mp_rst_rx => "MPTcpExtMPRstRx",
    /// Subflows that went stale.
    subflow_stale => "MPTcpExtSubflowStale",
    /// Stale subflows that recovered.
    subflow_recover => "MPTcpExtSubflowRecover",
    /// Subflows that were silent for so long that what they had went elsewhere, too.
    subflow_suspect => "AnabranchSubflowSuspect",
    /// Those of them that answered before their retransmission timeout.
    subflow_false_alarm => "AnabranchSubflowFalseAlarm",
    /// DATA_ACKs of what was never sent, which are ignored.
    data_ack_ignored => "AnabranchDataAckIgnored",
    /// Mappings and DATA_FINs of what lies before the stream, before the subflow or behind the known end, which are ignored.
    dss_ignored => "AnabranchDssIgnored",
    /// Mappings that reached beyond their segment and found no room.
    mappings_full => "AnabranchMappingsFull",
    /// Data that came early, before the first byte showed whether the connection is MPTCP, and has to come again.
    early_drop => "AnabranchEarlyDrop",
    /// MPTCP connections established now.
    mp_curr_estab => "MPTcpExtMPCurrEstab",
    /// Window probes at data level.
    mp_win_probe => "MPTcpExtWinProbe",
}

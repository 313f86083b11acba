//! What tshark finds in a capture.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::command::run;
use crate::resets;

/// Every complaint of its MPTCP dissector.
const MPTCP_EXPERT: [&str; 5] = [
    "mptcp.connection.echoed_key_mismatch",
    "mptcp.connection.missing_algorithm",
    "mptcp.connection.unsupported_algorithm",
    "mptcp.dss.infinite_mapping",
    "mptcp.dss.missing_mapping",
];

/// Pseudo-random bytes look like one protocol or the other sooner or later.
const PAYLOAD_IS_DATA: [&str; 2] = ["-d", "tcp.port==1-65535,data"];

/// `_ws.expert.severity` of an error.
const ERROR: u64 = 0x80_0000;

const FIELDS: [&str; 9] = [
    "frame.number",
    "_ws.malformed",
    "ip.checksum.status",
    "tcp.checksum.status",
    "tcp.flags.reset",
    "tcp.options.mptcp.datafin.flag",
    "_ws.expert.severity",
    "_ws.expert.message",
    "_ws.col.Info",
];

/// Whether the checksums in a capture are those on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksums {
    /// They are; check them.
    Complete,
    /// They are left to a device with offload, or the packets are cut short.
    Offloaded,
}

/// The packets worth a look.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Packets in the capture.
    pub packets: u64,
    /// Malformed ones.
    pub malformed: Vec<String>,
    /// Those with a bad checksum of IP or TCP.
    pub bad_checksums: Vec<String>,
    /// Those with errors of other kinds, or with any complaint of the MPTCP dissector.
    pub errors: Vec<String>,
    /// Resets, but for those that answer an acknowledgement which came when the stream was over.
    pub resets: Vec<String>,
    /// Those.
    pub belated_resets: Vec<String>,
    /// Those that carry a DATA_FIN.
    pub data_fins: Vec<String>,
}

impl Findings {
    /// Reads a capture in one pass.
    ///
    /// # Errors
    /// When tshark is missing or fails.
    pub fn of(capture: &Path, checksums: Checksums) -> Result<Self> {
        let check = if checksums == Checksums::Complete { "TRUE" } else { "FALSE" };
        let options = [format!("tcp.check_checksum:{check}"), format!("ip.check_checksum:{check}")];
        let capture = capture.to_str().context("a path in UTF-8")?;
        let mut args =
            vec!["-r", capture, "-n", "-o", &options[0], "-o", &options[1], "-T", "fields", "-E", "separator=/t"];
        args.extend(PAYLOAD_IS_DATA);
        let filter = format!(
            "_ws.malformed || tcp.flags.reset == 1 || tcp.options.mptcp.datafin.flag == 1 || _ws.expert.severity >= {ERROR} || {}",
            MPTCP_EXPERT.join(" || ")
        );
        args.extend(["-Y", &filter]);
        for field in FIELDS.iter().chain(&MPTCP_EXPERT) {
            args.extend(["-e", field]);
        }
        let mut findings = Self { packets: count(capture)?, ..Self::default() };
        for line in run("tshark", &args)?.lines() {
            findings.classify(line);
        }
        if !findings.resets.is_empty() {
            let belated = resets::belated(Path::new(capture))?;
            let is_belated = |text: &mut String| belated.iter().any(|frame| text.starts_with(&format!("#{frame} ")));
            findings.belated_resets = findings.resets.extract_if(.., is_belated).collect();
        }
        Ok(findings)
    }

    /// No malformed packet, no bad checksum, no error of an expert.
    ///
    /// # Errors
    /// With the first packets that are not so.
    pub fn clean(&self) -> Result<()> {
        ensure!(self.packets > 0, "the capture is empty");
        let kinds = [("malformed", &self.malformed), ("bad checksum", &self.bad_checksums), ("error", &self.errors)];
        for (kind, packets) in kinds {
            ensure!(packets.is_empty(), "{} packets: {kind}, such as\n{}", packets.len(), first(packets));
        }
        Ok(())
    }

    /// No reset, but where a stream was over for both sides.
    ///
    /// # Errors
    /// With the first resets.
    pub fn without_reset(&self) -> Result<()> {
        ensure!(self.resets.is_empty(), "{} resets, such as\n{}", self.resets.len(), first(&self.resets));
        Ok(())
    }

    fn classify(&mut self, line: &str) {
        let column: Vec<&str> = line.split('\t').collect();
        let get = |name: &str| FIELDS.iter().position(|field| *field == name).and_then(|at| column.get(at).copied());
        let field = |name: &str| get(name).unwrap_or_default();
        let text = format!("#{} {} [{}]", field("frame.number"), field("_ws.col.Info"), field("_ws.expert.message"));
        let any = |name: &str, value: &str| field(name).split(',').any(|one| one == value);
        let severity = field("_ws.expert.severity").split(',').filter_map(|one| one.parse().ok()).max();
        let complaint = column.iter().skip(FIELDS.len()).any(|column| !column.is_empty());
        // 0 is "Bad", 1 "Good", 2 "Unverified".
        let bad_checksum = any("ip.checksum.status", "0") || any("tcp.checksum.status", "0");
        if !field("_ws.malformed").is_empty() {
            self.malformed.push(text.clone());
        }
        if bad_checksum {
            self.bad_checksums.push(text.clone());
        } else if complaint || severity.unwrap_or(0_u64) >= ERROR {
            self.errors.push(text.clone());
        }
        if any("tcp.options.mptcp.datafin.flag", "1") {
            self.data_fins.push(text.clone());
        }
        if any("tcp.flags.reset", "1") {
            self.resets.push(text);
        }
    }
}

/// Rows of fields of the packets that a display filter lets through.
///
/// # Errors
/// When tshark is missing or fails.
pub fn rows(capture: &Path, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let capture = capture.to_str().context("a path in UTF-8")?;
    let mut args = vec!["-r", capture, "-n", "-Y", filter, "-T", "fields", "-E", "separator=/t"];
    for field in fields {
        args.extend(["-e", field]);
    }
    let text = run("tshark", &args)?;
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn count(capture: &str) -> Result<u64> {
    let text = run("capinfos", &["-c", "-M", "-T", "-r", capture])?;
    let count = text.split_whitespace().last().and_then(|word| word.parse().ok());
    count.with_context(|| format!("capinfos said: {text}"))
}

fn first(packets: &[String]) -> String {
    packets.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n")
}

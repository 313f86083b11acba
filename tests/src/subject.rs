//! The side under test, and the kernel in its place.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use anabranch::{Builder, ConnectOptions, SocketOptions, Stack};
use anyhow::{Context, Result, ensure};

use crate::addr::Family;
use crate::kernel::{self, Protocol};
use crate::transfer::Stream;
use crate::{Join, Netns};

/// Longest time a connect may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the path manager may do with a path of the subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathOptions {
    /// Announce its address.
    pub signal: bool,
    /// Open a subflow from it.
    pub subflow: bool,
    /// As a backup only.
    pub backup: bool,
}

impl PathOptions {
    /// The words of `ip mptcp endpoint` and of `--path`.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let flags = [(self.signal, "signal"), (self.subflow, "subflow"), (self.backup, "backup")];
        flags.into_iter().filter_map(|(set, word)| set.then_some(word)).collect()
    }
}

/// How a subject is started: in which namespace its devices `ab0`, `ab1`, … are to appear, with the
/// kernel's addresses on them, for which family, and one set of options for each path.
pub type Start<'a> = &'a dyn Fn(&Netns, Family, &[PathOptions]) -> Result<Box<dyn Subject>>;

/// A stack with one device on each path.
pub trait Subject: Send + Sync {
    /// Listens on an address.
    ///
    /// # Errors
    /// As the stack says.
    fn listen(&self, protocol: Protocol, local: SocketAddr) -> Result<Box<dyn Accept>>;
    /// Connects.
    ///
    /// # Errors
    /// As the stack says.
    fn connect(&self, protocol: Protocol, remote: SocketAddr) -> Result<Box<dyn Stream>>;
    /// Where its devices are, if in a namespace of their own.
    fn netns(&self) -> Option<&Netns> {
        None
    }
    /// Ends the stack; connections that are closing may finish.
    ///
    /// # Errors
    /// When some do not within `deadline`.
    fn end(self: Box<Self>, deadline: Duration) -> Result<()>;
}

/// A listener.
pub trait Accept: Send + Sync {
    /// Waits for a connection.
    ///
    /// # Errors
    /// As the stack says.
    fn accept(&self) -> Result<Box<dyn Stream>>;
}

impl Accept for TcpListener {
    fn accept(&self) -> Result<Box<dyn Stream>> {
        let (stream, _) = TcpListener::accept(self)?;
        Ok(Box::new(stream))
    }
}

/// anabranch, as a library in this process.
#[derive(Debug)]
pub struct Anabranch {
    stack: Stack,
    /// Where its devices are, if not where the kernel's ends are.
    netns: Option<Netns>,
}

impl Anabranch {
    /// Over TUN devices, see [`Start`].
    ///
    /// # Errors
    /// When the stack cannot be built.
    pub fn start(wires: &Netns, family: Family, paths: &[PathOptions]) -> Result<Box<dyn Subject>> {
        Self::start_with(wires, family, paths, |builder| builder)
    }

    /// The same with more options.
    ///
    /// # Errors
    /// When the stack cannot be built.
    pub fn start_with(
        wires: &Netns,
        family: Family,
        paths: &[PathOptions],
        options: impl FnOnce(Builder) -> Builder + Send,
    ) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Self::over_tun(wires, family, paths, options)?))
    }

    /// The same as what it is.
    ///
    /// # Errors
    /// When the stack cannot be built.
    pub fn over_tun(
        wires: &Netns,
        family: Family,
        paths: &[PathOptions],
        options: impl FnOnce(Builder) -> Builder + Send,
    ) -> Result<Self> {
        let words: Vec<String> = paths.iter().map(|flags| flags.words().join(",")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Self::over_tun_with_words(wires, family, &words, options)
    }

    /// The same with the words of `--path` for each path.
    ///
    /// # Errors
    /// When the stack cannot be built.
    pub fn over_tun_with_words(
        wires: &Netns,
        family: Family,
        paths: &[&str],
        options: impl FnOnce(Builder) -> Builder + Send,
    ) -> Result<Self> {
        let specs = (0_u8..).zip(paths).map(|(path, words)| {
            let (own, host, prefix) = (family.subject(path), family.host(path), family.network_prefix());
            let comma = if words.is_empty() { "" } else { "," };
            format!("tun:ab{path},addr={own}/{prefix},host={host}{comma}{words}")
        });
        let stack = build(wires, specs, options)?;
        Ok(Self { stack, netns: None })
    }

    /// The stack, for a test that wants to look into it.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Over the packet driver on veth pairs, in a namespace of its own, see [`Start`].
    ///
    /// # Errors
    /// When the stack cannot be built.
    pub fn start_on_veth(wires: &Netns, family: Family, paths: &[PathOptions]) -> Result<Box<dyn Subject>> {
        Self::start_on_veth_with(wires, family, paths, |builder| builder)
    }

    /// The same with more options.
    ///
    /// # Errors
    /// When the stack cannot be built.
    pub fn start_on_veth_with(
        wires: &Netns,
        family: Family,
        paths: &[PathOptions],
        options: impl FnOnce(Builder) -> Builder + Send,
    ) -> Result<Box<dyn Subject>> {
        let netns = Netns::new("subject")?;
        for path in (0_u8..).take(paths.len()) {
            wires.ip(&format!("link add ab{path} type veth peer name eth{path} netns {}", netns.path()))?;
            add_address(wires, &format!("ab{path}"), family.host(path), family.network_prefix())?;
            netns.ip(&format!("link set eth{path} up"))?;
            // The prefix says that the far peer is on this wire: the router stands in for it there.
            wires.ip(&format!("neigh add proxy {} dev ab{path}", family.far(path)))?;
            for version in ["ipv4", "ipv6"] {
                wires.sysctl(&format!("net.{version}.neigh.ab{path}.proxy_delay"), "0")?;
            }
            wires.sysctl(&format!("net.ipv6.conf.ab{path}.proxy_ndp"), "1")?;
        }
        let specs = (0_u8..).zip(paths).map(|(path, flags)| {
            let (own, host, prefix) = (family.subject(path), family.host(path), family.network_prefix());
            with_words(format!("packet:eth{path},addr={own}/{prefix},gw={host}"), *flags)
        });
        let stack = build(&netns, specs, options)?;
        Ok(Box::new(Self { stack, netns: Some(netns) }))
    }
}

fn with_words(mut spec: String, flags: PathOptions) -> String {
    for word in flags.words() {
        spec.push(',');
        spec.push_str(word);
    }
    spec
}

/// A stack with these paths. Its workers and devices live in `netns`.
fn build(
    netns: &Netns,
    specs: impl Iterator<Item = String>,
    options: impl FnOnce(Builder) -> Builder + Send,
) -> Result<Stack> {
    let mut builder = Stack::builder();
    for spec in specs {
        builder = builder.path(spec.parse().with_context(|| format!("the path {spec}"))?);
    }
    netns.run(|| options(builder).build()).context("building the stack")
}

impl Subject for Anabranch {
    fn listen(&self, protocol: Protocol, local: SocketAddr) -> Result<Box<dyn Accept>> {
        let options = SocketOptions { mptcp: protocol == Protocol::Mptcp, ..self.stack.socket_options() };
        Ok(Box::new(self.stack.listen_with(local, 128, options)?))
    }

    fn connect(&self, protocol: Protocol, remote: SocketAddr) -> Result<Box<dyn Stream>> {
        let options = SocketOptions { mptcp: protocol == Protocol::Mptcp, ..self.stack.socket_options() };
        let connect = ConnectOptions { options: Some(options), timeout: Some(PATIENCE), ..ConnectOptions::default() };
        Ok(Box::new(self.stack.connect_with(remote, connect)?))
    }

    fn netns(&self) -> Option<&Netns> {
        self.netns.as_ref()
    }

    fn end(self: Box<Self>, deadline: Duration) -> Result<()> {
        let left = || format!("{:#?}", self.stack.connections());
        ensure!(self.stack.shutdown(deadline), "not drained after {deadline:?}: {}", left());
        Ok(())
    }
}

impl Accept for anabranch::TcpListener {
    fn accept(&self) -> Result<Box<dyn Stream>> {
        let (stream, _) = anabranch::TcpListener::accept(self)?;
        Ok(Box::new(stream))
    }
}

/// The kernel as the subject, in a namespace of its own, over veth: the control of the experiment.
#[derive(Debug)]
pub struct Kernel {
    netns: Netns,
}

impl Kernel {
    /// See [`Start`].
    ///
    /// # Errors
    /// When the namespace cannot be set up.
    pub fn start(wires: &Netns, family: Family, paths: &[PathOptions]) -> Result<Box<dyn Subject>> {
        let netns = Netns::new("subject")?;
        Join::limits(&netns)?;
        for (path, options) in (0_u8..).zip(paths) {
            let (host, own) = (family.host(path), family.subject(path));
            wires.ip(&format!("link add ab{path} type veth peer name eth{path} netns {}", netns.path()))?;
            add_address(wires, &format!("ab{path}"), host, family.network_prefix())?;
            add_address(&netns, &format!("eth{path}"), own, family.hop_prefix())?;
            let words = options.words();
            if !words.is_empty() {
                netns.ip(&format!("mptcp endpoint add {own} dev eth{path} {}", words.join(" ")))?;
            }
        }
        crossed_routes(&netns, family, "eth", paths.len(), Family::host)?;
        Ok(Box::new(Self { netns }))
    }
}

impl Subject for Kernel {
    fn listen(&self, protocol: Protocol, local: SocketAddr) -> Result<Box<dyn Accept>> {
        Ok(Box::new(kernel::listen(&self.netns, protocol, local)?))
    }

    fn connect(&self, protocol: Protocol, remote: SocketAddr) -> Result<Box<dyn Stream>> {
        Ok(Box::new(kernel::connect(&self.netns, protocol, None, remote)?))
    }

    fn end(self: Box<Self>, _deadline: Duration) -> Result<()> {
        Ok(())
    }
}

/// Gives a device an address and sets it up.
pub(crate) fn add_address(netns: &Netns, device: &str, addr: IpAddr, prefix: u8) -> Result<()> {
    let nodad = if addr.is_ipv6() { "nodad" } else { "" };
    netns.ip(&format!("addr add {addr}/{prefix} dev {device} {nodad}"))?;
    netns.ip(&format!("link set {device} up"))?;
    Ok(())
}

/// Routes to every path's network by its own device, and with a worse metric by every other one: what a
/// subflow that is bound to a device needs, and what is left when a device goes down.
pub(crate) fn crossed_routes(
    netns: &Netns,
    family: Family,
    device: &str,
    paths: usize,
    via: fn(Family, u8) -> IpAddr,
) -> Result<()> {
    let paths = u8::try_from(paths)?;
    for (to, by) in (0..paths).flat_map(|to| (0..paths).map(move |by| (to, by))) {
        let metric = if to == by { 1000 } else { 2000 };
        netns.ip(&format!(
            "{} route add {} via {} dev {device}{by} metric {metric}",
            family.option(),
            family.network(to),
            via(family, by),
        ))?;
    }
    Ok(())
}

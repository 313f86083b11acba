//! The same specification as a table in a configuration file.

use std::num::NonZeroU16;

use anabranch_core::EndpointFlags;
use serde::Deserialize;
use serde::de::Error as _;

use super::{PathSpec, PathSpecError, driver_by_name, parse};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    driver: String,
    name: String,
    addr: OneOrMore,
    #[serde(default)]
    host: OneOrMore,
    #[serde(default)]
    gw: OneOrMore,
    mtu: Option<u16>,
    id: Option<u8>,
    port: Option<NonZeroU16>,
    #[serde(default)]
    signal: bool,
    #[serde(default)]
    subflow: bool,
    #[serde(default)]
    backup: bool,
    #[serde(default)]
    fullmesh: bool,
    #[serde(default)]
    laminar: bool,
    #[serde(default)]
    cost: u32,
    #[serde(default = "on")]
    offload: bool,
}

fn on() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    fn parse<T: std::str::FromStr>(&self, key: &str, wanted: &str) -> Result<Vec<T>, String> {
        let values = match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::More(values) => values,
        };
        values.iter().map(|value| parse(key, value, wanted, key)).collect()
    }
}

impl<'de> Deserialize<'de> for PathSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Table::deserialize(deserializer)?;
        let spec = format!("{}:{}", table.driver, table.name);
        from_table(table).map_err(|problem| D::Error::custom(PathSpecError { spec, problem }))
    }
}

fn from_table(table: Table) -> Result<PathSpec, String> {
    let spec = PathSpec {
        driver: driver_by_name(&table.driver)?,
        addrs: table.addr.parse("addr", "an address with its prefix length")?,
        hosts: table.host.parse("host", "an address")?,
        gateways: table.gw.parse("gw", "an address")?,
        name: table.name,
        mtu: table.mtu,
        id: table.id,
        flags: EndpointFlags {
            signal: table.signal,
            subflow: table.subflow,
            backup: table.backup,
            fullmesh: table.fullmesh,
            laminar: table.laminar,
        },
        port: table.port,
        cost: table.cost,
        offload: table.offload,
    };
    spec.check()?;
    Ok(spec)
}

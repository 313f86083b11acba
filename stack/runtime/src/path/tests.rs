use super::*;

fn complaint(text: &str) -> String {
    text.parse::<PathSpec>().expect_err("it is wrong").to_string()
}

#[test]
fn the_shortest_specification() {
    let spec: PathSpec = "tun:ab0,addr=10.9.0.2/24".parse().unwrap();
    assert_eq!(spec, PathSpec::tun("ab0", "10.9.0.2/24".parse().unwrap()));
}

#[test]
fn every_key_in_both_families_survives_a_round_trip() {
    let text = "tun:ab0,addr=10.9.0.2/24,addr=fd00:9::2/64,host=10.9.0.1,host=fd00:9::1,gw=10.9.0.1,gw=fd00:9::1,\
                mtu=9000,id=7,port=10080,signal,subflow,backup,laminar,cost=3,offload=off";
    let spec: PathSpec = text.parse().unwrap();
    assert_eq!(spec.to_string(), text);
    assert_eq!(spec.mtu, Some(9000));
    assert_eq!((spec.id, spec.port.map(NonZeroU16::get)), (Some(7), Some(10080)));
    assert_eq!((spec.cost, spec.offload), (3, false));
    assert!(spec.flags.signal && spec.flags.subflow && spec.flags.backup && spec.flags.laminar);
}

#[test]
fn complaints_name_the_part_and_show_a_right_one() {
    for (text, part) in [
        ("", "'' is not DRIVER:IFNAME"),
        ("ab0,addr=10.9.0.2/24", "'ab0' is not DRIVER:IFNAME"),
        ("packet:eth0,addr=10.9.0.2/24,host=10.9.0.1", "host=10.9.0.1 is for tun: packet leaves"),
        ("tap:ab0,addr=10.9.0.2/24", "unknown driver 'tap'; known are tun, packet, tun-tap, pnet"),
        ("tun:,addr=10.9.0.2/24", "no interface name"),
        ("tun:averyveryverylongname,addr=10.9.0.2/24", "has 21 bytes; the limit is 15"),
        ("tun:a/b,addr=10.9.0.2/24", "'a/b' cannot be the name of an interface"),
        ("tun:ab0", "no address of ours: add addr=10.9.0.2/24"),
        ("tun:ab0,adr=10.9.0.2/24", "unknown key 'adr'; known are addr, host"),
        ("tun:ab0,addr=10.9.0.2/33", "'addr=10.9.0.2/33': '10.9.0.2/33' is not an address with its prefix length"),
        ("tun:ab0,addr", "'addr': addr needs a value"),
        ("tun:ab0,addr=", "'addr=': addr needs a value"),
        ("tun:ab0,addr=0.0.0.0/0", "addr=0.0.0.0/0 cannot be the address of a host"),
        ("tun:ab0,addr=10.9.0.2/24,addr=10.9.1.2/24", "2 IPv4 addresses in addr="),
        ("tun:ab0,addr=10.9.0.2/24,host=fd00::1", "host=fd00::1 has no addr= of its family"),
        ("tun:ab0,addr=10.9.0.2/24,host=10.9.0.2", "host=10.9.0.2 is the same as addr="),
        ("tun:ab0,addr=10.9.0.2/24,gw=nowhere", "'gw=nowhere': 'nowhere' is not an address"),
        ("tun:ab0,addr=10.9.0.2/24,mtu=100", "mtu=100 is less than 576 bytes"),
        ("tun:ab0,addr=fd00::2/64,mtu=1000", "mtu=1000 is less than 1280 bytes"),
        ("tun:ab0,addr=10.9.0.2/24,mtu=1e3", "'1e3' is not a number of bytes such as mtu=1500"),
        ("tun:ab0,addr=10.9.0.2/24,mtu=1400,mtu=1500", "'mtu=1500' is there twice"),
        ("tun:ab0,addr=10.9.0.2/24,id=0", "id=0 is the initial subflow's"),
        ("tun:ab0,addr=10.9.0.2/24,id=256", "'256' is not a number from 1 to 255"),
        ("tun:ab0,addr=10.9.0.2/24,offload=no", "'offload=no': give offload=on or offload=off"),
        ("tun:ab0,addr=10.9.0.2/24,backup=yes", "backup is a flag and takes no value"),
        ("tun:ab0,addr=10.9.0.2/24,port=0,signal", "'0' is not a number from 1 to 65535"),
        ("tun:ab0,addr=10.9.0.2/24,port=80,subflow", "a port is announced: it needs 'signal'"),
        ("tun:ab0,addr=10.9.0.2/24,signal,fullmesh", "'signal' and 'fullmesh' do not go together"),
        ("tun:ab0,,addr=10.9.0.2/24", "empty part between two commas"),
    ] {
        let complaint = complaint(text);
        assert!(complaint.contains(part), "{text}: {complaint}");
        assert!(complaint.contains(EXAMPLE), "{text}: {complaint}");
    }
}

#[test]
fn the_example_is_right() {
    EXAMPLE.parse::<PathSpec>().unwrap();
}

#[cfg(feature = "serde")]
mod file {
    use super::*;

    #[derive(serde::Deserialize)]
    struct File {
        path: Vec<PathSpec>,
    }

    #[test]
    fn a_table_says_the_same_as_the_command_line() {
        let file: File = toml::from_str(
            r#"
            [[path]]
            driver = "tun"
            name = "ab0"
            addr = ["10.9.0.2/24", "fd00:9::2/64"]
            host = "10.9.0.1"
            mtu = 9000
            signal = true
            offload = false
            "#,
        )
        .unwrap();
        let line = "tun:ab0,addr=10.9.0.2/24,addr=fd00:9::2/64,host=10.9.0.1,mtu=9000,signal,offload=off";
        assert_eq!(file.path, [line.parse().unwrap()]);
    }

    #[test]
    fn a_wrong_table_names_the_key() {
        for (table, part) in [
            ("driver='tun'\nname='ab0'\naddr='10.9.0.2/40'", "'10.9.0.2/40' is not an address"),
            ("driver='tun'\nname='ab0'\nadr='10.9.0.2/24'", "unknown field `adr`"),
            ("driver='tap'\nname='ab0'\naddr='10.9.0.2/24'", "unknown driver 'tap'"),
            ("driver='tun'\nname='ab0'\naddr='10.9.0.2/24'\nmtu=70000", "70000"),
        ] {
            let complaint = toml::from_str::<PathSpec>(table).expect_err("it is wrong").to_string();
            assert!(complaint.contains(part), "{table}: {complaint}");
        }
    }
}

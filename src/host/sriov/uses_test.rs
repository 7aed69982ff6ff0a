use super::*;

#[test]
fn routes_are_told_with_their_gateway() {
    let route = parse_route("eth0\t00000000\tFE00090A\t0003\t0\t0\t0\t00000000\t0\t0\t0").unwrap();
    assert!(route.is_default);
    assert_eq!(route.who, "the default route by 10.9.0.254");
    let route = parse_route("eth0\t0000090A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0").unwrap();
    assert!(!route.is_default);
    assert_eq!(route.who, "the route to 10.9.0.0/24");
    // The head, a refused destination, and what is no route.
    for line in [
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT",
        "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0",
        "eth0 x",
    ] {
        assert_eq!(parse_route(line), None, "{line}");
    }
}

#[test]
fn routes_of_ipv6_that_every_interface_has_are_no_use() {
    let zeros = "0".repeat(32);
    let line = |to: &str, flags: &str| {
        format!("{to} 00 {zeros} 00 fe800000000000000000000000000001 00000400 1 0 {flags} eth0")
    };
    let route = parse_route6(&line(&format!("{zeros} 00").replace(" 00", ""), "00000003")).unwrap();
    assert!(route.is_default);
    assert_eq!(route.who, "the default route by fe80::1");
    assert_eq!(parse_route6(&line(&zeros, "00200200")), None);
    for own in ["fe80", "ff00"] {
        let to = format!("{own}{}", "0".repeat(28));
        assert_eq!(parse_route6(&line(&to, "00000001")), None);
    }
}

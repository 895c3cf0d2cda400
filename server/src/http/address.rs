//! The address of a client: the peer of the connection, or the address that a trusted proxy reports.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use actix_web::http::header::HeaderMap;
use serde::Deserialize;

/// An IP address or a range in CIDR notation: `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("{text:?} is not an address or a range such as 10.0.0.0/8");
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => most,
        };
        if bits > most {
            return Err(wrong());
        }
        Ok(Network { base, bits })
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        text.parse()
    }
}

impl Network {
    /// Whether the range contains the address. An IPv4-mapped IPv6 address is treated as the IPv4 address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let kept = u32::MAX
                    .checked_shl(32 - u32::from(self.bits))
                    .unwrap_or_default();
                (base.to_bits() ^ address.to_bits()) & kept == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let kept = u128::MAX
                    .checked_shl(128 - u32::from(self.bits))
                    .unwrap_or_default();
                (base.to_bits() ^ address.to_bits()) & kept == 0
            }
            _ => false,
        }
    }
}

/// The key under which limits count an address: an IPv4 address as it is, an IPv6 address by its /64 prefix, the usual assignment
/// to one customer.
#[must_use]
pub fn bucket(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let prefix = Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64));
            format!("{prefix}/64")
        }
    }
}

// ANCHOR: client
/// The address of the client behind a connection from `peer`.
///
/// The headers are read only when the peer is a trusted proxy. Each proxy appends the address that it saw, so the client's
/// address is the last one that is not a trusted proxy; anything before it was sent by the client and proves nothing. When
/// `X-Forwarded-For` and `Forwarded` ([RFC 7239]) are both present and differ, the proxy did not write one of them, and both are
/// ignored.
///
/// [RFC 7239]: https://www.rfc-editor.org/rfc/rfc7239
#[must_use]
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let plain = addresses(headers, "x-forwarded-for", |element| Some(element));
    let standard = addresses(headers, "forwarded", forwarded_for);
    let last =
        |hops: Option<Vec<Option<IpAddr>>>| hops.map(|hops| last_untrusted(peer, &hops, trusted));
    match (last(plain), last(standard)) {
        (Some(one), Some(other)) if one != other => peer,
        (Some(address), _) | (None, Some(address)) => address,
        (None, None) => peer,
    }
}
// ANCHOR_END: client

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Walk from the nearest hop to the farthest. The result is the first that is not a trusted proxy. A hop whose address is
/// missing ends the walk: the result is then the proxy that reported this hop.
fn last_untrusted(peer: IpAddr, hops: &[Option<IpAddr>], trusted: &[Network]) -> IpAddr {
    let mut nearest = peer;
    for hop in hops.iter().rev() {
        let Some(address) = hop else { return nearest };
        nearest = *address;
        if !is_trusted(nearest, trusted) {
            break;
        }
    }
    nearest
}

/// All hops listed in headers of this name, in order; `None` when the header is absent.
fn addresses(
    headers: &HeaderMap,
    name: &str,
    of_element: impl Fn(&str) -> Option<&str>,
) -> Option<Vec<Option<IpAddr>>> {
    let mut values = headers.get_all(name).peekable();
    values.peek()?;
    let mut hops = Vec::new();
    for value in values {
        let elements = value.to_str().unwrap_or("unreadable").split(',');
        hops.extend(elements.map(|element| of_element(element.trim()).and_then(address)));
    }
    Some(hops)
}

/// The value of `for` in an element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    Some(value.trim().trim_matches('"'))
}

/// Parse an address with optional brackets and an optional port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let address: Option<IpAddr> = bare.unwrap_or(text).parse().ok();
    address
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .map(|address| address.to_canonical())
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts
            .iter()
            .map(|text| text.parse().expect("a range"))
            .collect()
    }

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "fe80::1", true),
        ];
        for (network, address, expected) in cases {
            let network: Network = network.parse().expect("a range");
            assert_eq!(
                network.contains(ip(address)),
                expected,
                "{network} {address}"
            );
        }
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "proxy",
            "10.0.0.0/-1",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_no_trusted_proxy() {
        const PROXIES: &[&str] = &["10.0.0.0/8", "127.0.0.1"];
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: &[Case<'_>] = &[
            // The peer is no trusted proxy, so its headers are ignored.
            (
                "192.0.2.1",
                &[("x-forwarded-for", "203.0.113.9")],
                "192.0.2.1",
            ),
            ("127.0.0.1", &[], "127.0.0.1"),
            (
                "127.0.0.1",
                &[("x-forwarded-for", "203.0.113.9")],
                "203.0.113.9",
            ),
            // Addresses that the client wrote itself come first.
            (
                "127.0.0.1",
                &[("x-forwarded-for", "1.1.1.1, 203.0.113.9")],
                "203.0.113.9",
            ),
            (
                "127.0.0.1",
                &[("x-forwarded-for", "203.0.113.9, 10.0.0.7")],
                "203.0.113.9",
            ),
            (
                "127.0.0.1",
                &[
                    ("x-forwarded-for", "1.1.1.1"),
                    ("x-forwarded-for", "203.0.113.9"),
                ],
                "203.0.113.9",
            ),
            (
                "127.0.0.1",
                &[("x-forwarded-for", "10.0.0.9, 10.0.0.7")],
                "10.0.0.9",
            ),
            (
                "127.0.0.1",
                &[("x-forwarded-for", "203.0.113.9:4711")],
                "203.0.113.9",
            ),
            ("127.0.0.1", &[("x-forwarded-for", "unknown")], "127.0.0.1"),
            (
                "127.0.0.1",
                &[("x-forwarded-for", "203.0.113.9, unknown, 10.0.0.7")],
                "10.0.0.7",
            ),
            ("127.0.0.1", &[("x-forwarded-for", "")], "127.0.0.1"),
            (
                "::ffff:10.0.0.1",
                &[("x-forwarded-for", "2001:db8::7")],
                "2001:db8::7",
            ),
            (
                "127.0.0.1",
                &[(
                    "forwarded",
                    "for=1.1.1.1, For=\"[2001:db8::7]:4711\";proto=https",
                )],
                "2001:db8::7",
            ),
            (
                "127.0.0.1",
                &[("forwarded", "by=10.0.0.1;for=203.0.113.9")],
                "203.0.113.9",
            ),
            ("127.0.0.1", &[("forwarded", "for=_hidden")], "127.0.0.1"),
            ("127.0.0.1", &[("forwarded", "proto=https")], "127.0.0.1"),
            // A proxy that writes one header forwards the other unchanged.
            (
                "127.0.0.1",
                &[
                    ("forwarded", "for=1.1.1.1"),
                    ("x-forwarded-for", "203.0.113.9"),
                ],
                "127.0.0.1",
            ),
            (
                "127.0.0.1",
                &[
                    ("forwarded", "for=203.0.113.9"),
                    ("x-forwarded-for", "203.0.113.9"),
                ],
                "203.0.113.9",
            ),
        ];
        for (peer, sent, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *sent {
                let name = HeaderName::from_static(name);
                headers.append(name, HeaderValue::from_str(value).expect("a value"));
            }
            let found = client(ip(peer), &headers, &networks(PROXIES));
            assert_eq!(found, ip(expected), "{peer} {sent:?}");
        }
    }

    #[test]
    fn limits_count_a_network_of_ipv6_as_one() {
        assert_eq!(bucket(ip("203.0.113.9")), "203.0.113.9");
        assert_eq!(bucket(ip("::ffff:203.0.113.9")), "203.0.113.9");
        assert_eq!(
            bucket(ip("2001:db8:1:2:3::4")),
            bucket(ip("2001:db8:1:2::9"))
        );
        assert_ne!(bucket(ip("2001:db8:1:2::4")), bucket(ip("2001:db8:1:3::4")));
    }
}

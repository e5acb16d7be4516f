//! Lists the default routes, which name the gateways.

use std::net::Ipv6Addr;

use super::BUFFER_LENGTH;
use super::message::{Message, ROUTE_HEADER, Request, attributes, next_hops, u32_at};
use super::siblings::Number;
use super::tables::Tables;

/// A way to everywhere. A route by several gateways is several of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The number of the interface.
    pub index: u32,
    /// `None` if the route names no gateway, as on a point-to-point link.
    pub gateway: Option<Ipv6Addr>,
    /// The number of the routing table.
    pub table: u32,
    pub metric: u32,
}

/// Lists the default routes. A route for one source prefix counts as well: OpenWrt has no other
/// ones.
///
/// # Errors
/// The error number by which the kernel refused the listing.
pub fn default_routes() -> nix::Result<Vec<DefaultRoute>> {
    let mut header = [0; ROUTE_HEADER];
    header[0] = libc::AF_INET6 as u8;
    let question = Request::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &header);
    let mut routes = Vec::new();
    let tables = Tables::open(Number::default())?;
    tables.dump(question, &mut vec![0; BUFFER_LENGTH], &mut |message| {
        for_each_hop(message, &mut |route| routes.push(route));
    })?;
    Ok(routes)
}

/// The route that the kernel takes first, as far as tables and metrics tell: one of the main table
/// before others, and then the one of least metric.
pub fn first<'r>(routes: impl Iterator<Item = &'r DefaultRoute>) -> Option<&'r DefaultRoute> {
    let is_elsewhere = |table: u32| table != libc::RT_TABLE_MAIN.into();
    routes.min_by_key(|route| (is_elsewhere(route.table), route.metric))
}

/// Hands on each way of a default route. Of another message it hands on nothing.
fn for_each_hop(message: &Message<'_>, told: &mut dyn FnMut(DefaultRoute)) {
    let &[family, 0, _, _, table, _, _, kind, ..] = message.body else {
        return;
    };
    let flags = u32_at(message.body, 8).unwrap_or_default();
    if message.message_type != libc::RTM_NEWROUTE
        || i32::from(family) != libc::AF_INET6
        || kind != libc::RTN_UNICAST
        || flags & libc::RTM_F_CLONED != 0
    {
        return;
    }
    let rest = message.body.get(ROUTE_HEADER..).unwrap_or_default();
    let (mut table, mut metric, mut index) = (table.into(), 0, None);
    let mut hops: &[u8] = &[];
    for (kind, value) in attributes(rest) {
        match kind {
            libc::RTA_OIF => index = u32_at(value, 0),
            libc::RTA_PRIORITY => metric = u32_at(value, 0).unwrap_or(metric),
            libc::RTA_TABLE => table = u32_at(value, 0).unwrap_or(table),
            libc::RTA_MULTIPATH => hops = value,
            _ => {}
        }
    }
    for (index, attributes) in index
        .map(|index| (index, rest))
        .into_iter()
        .chain(next_hops(hops))
    {
        told(DefaultRoute {
            index,
            gateway: gateway(attributes),
            table,
            metric,
        });
    }
}

fn gateway(rest: &[u8]) -> Option<Ipv6Addr> {
    let (_, value) = attributes(rest).find(|(kind, _)| *kind == libc::RTA_GATEWAY)?;
    value
        .first_chunk::<16>()
        .map(|octets| Ipv6Addr::from(*octets))
}

#[cfg(test)]
mod tests {
    use super::super::message::messages;
    use super::*;

    const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn told(header: [u8; ROUTE_HEADER], attributes: &[(u16, &[u8])]) -> Vec<DefaultRoute> {
        let mut message = Request::new(libc::RTM_NEWROUTE, libc::NLM_F_MULTI, &header);
        for (kind, value) in attributes {
            message.attribute(*kind, value);
        }
        let mut routes = Vec::new();
        let message = messages(message.octets()).next().unwrap();
        for_each_hop(&message, &mut |route| routes.push(route));
        routes
    }

    /// The header of a route to everywhere in the main table.
    const HEADER: [u8; ROUTE_HEADER] = [10, 0, 0, 0, 254, 9, 0, 1, 0, 0, 0, 0];

    #[test]
    fn a_default_route_tells_its_gateway_and_another_route_tells_nothing() {
        let (index, metric) = (3_u32.to_ne_bytes(), 512_u32.to_ne_bytes());
        let by_gateway: [(u16, &[u8]); 3] = [
            (libc::RTA_GATEWAY, &GATEWAY.octets()),
            (libc::RTA_OIF, &index),
            (libc::RTA_PRIORITY, &metric),
        ];
        let expected = DefaultRoute {
            index: 3,
            gateway: Some(GATEWAY),
            table: 254,
            metric: 512,
        };
        assert_eq!(told(HEADER, &by_gateway), [expected]);
        let without = DefaultRoute {
            gateway: None,
            ..expected
        };
        assert_eq!(told(HEADER, &by_gateway[1..]), [without]);
        for (place, value, what) in [
            (0, 2, "IPv4"),
            (1, 64, "to a prefix"),
            (7, 7, "unreachable"),
            (9, 2, "of the cache"),
        ] {
            let mut header = HEADER;
            header[place] = value;
            assert_eq!(told(header, &by_gateway), [], "{what}");
        }
        let mut of_one_source = HEADER;
        of_one_source[2] = 64;
        assert_eq!(told(of_one_source, &by_gateway), [expected]);
        assert_eq!(told(HEADER, &by_gateway[..1]), [], "no interface");
    }

    #[test]
    fn the_main_table_comes_first_and_then_the_least_metric() {
        let route = |table, metric| DefaultRoute {
            index: 3,
            gateway: None,
            table,
            metric,
        };
        let routes = [route(7, 1), route(254, 512), route(254, 256), route(7, 0)];
        assert_eq!(first(routes.iter()), Some(&routes[2]));
        assert_eq!(first(routes[..1].iter()), Some(&routes[0]));
        assert_eq!(first([].iter()), None);
    }

    // As the kernel's net/ipv6/route.c writes a route with several next hops.
    #[test]
    fn a_route_by_several_gateways_is_several() {
        let hop = |index: u32| {
            let mut hop = [28_u16.to_ne_bytes(), [0, 0]].concat();
            hop.extend(index.to_ne_bytes());
            hop.extend([20_u16.to_ne_bytes(), libc::RTA_GATEWAY.to_ne_bytes()].concat());
            hop.extend(GATEWAY.octets());
            hop
        };
        let hops = [hop(4), hop(5)].concat();
        let routes = told(HEADER, &[(libc::RTA_MULTIPATH, &hops)]);
        let indexes: Vec<_> = routes.iter().map(|route| route.index).collect();
        assert_eq!(indexes, [4, 5]);
        assert!(routes.iter().all(|route| route.gateway == Some(GATEWAY)));
    }
}

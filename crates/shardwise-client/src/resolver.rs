//! From the host of a URL to addresses.

use std::net::{IpAddr, SocketAddr};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Takes a host that is an address for what it is. Names are looked up as usual, on a thread of their own for each request, over
/// connections that are there already, too: that is most of the work of a request to an address.
#[derive(Debug, Default)]
pub(crate) struct AddressResolver(DefaultResolver);

impl Resolver for AddressResolver {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let Some(address) = address_of(uri) else { return self.0.resolve(uri, config, timeout) };
        let mut addresses = self.empty();
        addresses.push(address);
        Ok(addresses)
    }
}

/// The address that a URL names by numbers, with its port.
fn address_of(uri: &Uri) -> Option<SocketAddr> {
    let authority = uri.authority()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(address, authority.port_u16()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_as_they_are_and_names_are_looked_up() {
        let named = |url: &str| address_of(&url.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(named("http://127.0.0.1:7070/v1").as_deref(), Some("127.0.0.1:7070"));
        assert_eq!(named("https://[::1]:7070/").as_deref(), Some("[::1]:7070"));
        for other in ["http://localhost:7070/", "http://127.0.0.1/", "/v1"] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}

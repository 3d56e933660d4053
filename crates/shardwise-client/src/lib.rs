//! How routers are asked over HTTP: with their bearer token, and over TLS that trusts one authority, whose certificate is named.
//!
//! Without a named authority no TLS is spoken: whom a machine trusts by itself says nothing about a fleet's own certificates.

mod resolver;
mod tls;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, RequestBuilder, config::Config};

use resolver::AddressResolver;
use tls::TlsConnector;

/// The variable of the environment that names the file of the token.
pub const TOKEN_FILE: &str = "SHARDWISE_TOKEN_FILE";
/// The variable of the environment that names the certificate of the authority.
pub const CA_FILE: &str = "SHARDWISE_CA_FILE";

/// What routers ask of their clients, by the files in which it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AccessFiles {
    /// File whose first line is the bearer token; none is sent when left out.
    pub token_file: Option<PathBuf>,
    /// Certificate in PEM of the authority that signed those of the routers, needed for addresses that begin with `https://`.
    pub ca_file: Option<PathBuf>,
}

/// A file that does not hold what it should.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct AccessError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// The token and the trust that files name.
#[derive(Clone, Default)]
pub struct Access {
    bearer: Option<Arc<str>>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl fmt::Debug for Access {
    /// Never the token itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("token", &self.bearer.is_some()).field("tls", &self.tls.is_some()).finish()
    }
}

impl AccessFiles {
    /// The same, with what is left out taken from [`TOKEN_FILE`] and [`CA_FILE`] of an environment.
    #[must_use]
    pub fn or_of(self, variable: impl Fn(&'static str) -> Option<OsString>) -> Self {
        let named = |name| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self {
            token_file: self.token_file.or_else(|| named(TOKEN_FILE)),
            ca_file: self.ca_file.or_else(|| named(CA_FILE)),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that cannot be read, or holds something else.
    pub fn open(&self) -> Result<Access, AccessError> {
        let bearer = self.token_file.as_deref().map(read_token).transpose()?;
        let tls = self.ca_file.as_deref().map(tls::trusting).transpose()?;
        Ok(Access { bearer: bearer.map(|token| format!("Bearer {token}").into()), tls })
    }
}

impl Access {
    /// What sends, by the settings of a configuration.
    pub fn agent(&self, config: Config) -> Agent {
        let connector = TcpConnector::default().chain(TlsConnector(self.tls.clone()));
        Agent::with_parts(config, connector, AddressResolver::default())
    }

    /// The same request with the token, where there is one. For routers only: shards ask for none, and whoever reports an
    /// address would be given it.
    pub fn sign<Body>(&self, request: RequestBuilder<Body>) -> RequestBuilder<Body> {
        match &self.bearer {
            Some(bearer) => request.header("authorization", &**bearer),
            None => request,
        }
    }
}

/// The token: the first line of a file.
///
/// # Errors
/// The file cannot be read, or its first line is no token.
pub fn read_token(path: &Path) -> Result<String, AccessError> {
    let wrong = |problem: String| AccessError { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(unreadable(&error)))?;
    let token = text.lines().next().unwrap_or_default().trim();
    match token {
        "" => Err(wrong("its first line, the token, is empty".to_owned())),
        _ if !token.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => {
            Err(wrong("its first line, the token, has other characters than printable ASCII".to_owned()))
        }
        _ => Ok(token.to_owned()),
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_first_line_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " open sesame \nsecond line\n").unwrap();
        let access = AccessFiles { token_file: Some(path.clone()), ca_file: None }.open().unwrap();
        assert_eq!(access.bearer.as_deref(), Some("Bearer open sesame"));
        assert!(!format!("{access:?}").contains("sesame"));
        let request = access.sign(access.agent(Config::default()).get("http://localhost/"));
        assert_eq!(request.headers_ref().unwrap()["authorization"], "Bearer open sesame");
        for (text, told) in [("", "empty"), ("\nsecond", "empty"), ("caf\u{e9}", "ASCII"), ("a\u{7}b", "ASCII")] {
            std::fs::write(&path, text).unwrap();
            let error = read_token(&path).unwrap_err().to_string();
            assert!(error.contains("token") && error.contains(told), "{text:?}: {error}");
        }
        assert!(read_token(&folder.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn what_is_named_wins_over_the_environment() {
        let environment = |name| Some(OsString::from(if name == TOKEN_FILE { "t" } else { "" }));
        let named = AccessFiles { token_file: Some("own".into()), ca_file: None };
        assert_eq!(named.clone().or_of(environment), named);
        assert_eq!(AccessFiles::default().or_of(environment).token_file, Some("t".into()));
    }

    #[test]
    fn without_an_authority_no_tls_is_spoken_and_a_wrong_one_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let error = Access::default().agent(Config::default()).get(&url).call().unwrap_err().to_string();
        assert!(error.contains("authority"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let error = AccessFiles { token_file: None, ca_file: Some(path) }.open().unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("PEM"), "{error}");
    }
}

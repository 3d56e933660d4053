//! Who may ask: whoever has the bearer token, when there is one.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use shardwise_client::{AccessError, read_token};

use super::App;
use super::problem::Problem;

/// A bearer token; it is compared in the same time wherever it differs.
pub(crate) struct Token(String);

impl Token {
    /// The first line of a file.
    ///
    /// # Errors
    /// The file cannot be read, or its first line is no token.
    pub(crate) fn read(path: &Path) -> Result<Self, AccessError> {
        read_token(path).map(Self)
    }

    fn is(&self, said: &str) -> bool {
        let (own, said) = (self.0.as_bytes(), said.as_bytes());
        // Folded over the token's own length, so that time tells neither where nor whether lengths differ.
        let at = |n: usize| said.get(n).copied().unwrap_or(0);
        let different = own.iter().enumerate().fold(0, |different, (n, byte)| different | (byte ^ at(n)));
        std::hint::black_box(different) == 0 && own.len() == said.len()
    }
}

/// Lets through what carries the token.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(token) = &app.token else { return next.run(request).await };
    let said = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let problem = match said.map(|said| said.split_once(' ')) {
        Some(Some((scheme, said))) if scheme.eq_ignore_ascii_case("bearer") && token.is(said.trim()) => {
            return next.run(request).await;
        }
        Some(_) => "the authorization is wrong; send `authorization: Bearer TOKEN` with the server's token",
        None => "send `authorization: Bearer TOKEN` with the server's token",
    };
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", problem).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_it() {
        let token = Token("secret".to_owned());
        assert!(token.is("secret"));
        for wrong in ["", "secre", "secret ", "secret\0", "Secret", "secretsecret"] {
            assert!(!token.is(wrong), "{wrong:?}");
        }
    }
}

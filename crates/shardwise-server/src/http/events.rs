//! Server-sent events: the state of the router, once a second, the same for everybody who looks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;

use super::App;

/// `GET /v1/events`
pub(super) async fn stream(State(app): State<Arc<App>>) -> impl IntoResponse {
    let mut moments = app.moments.subscribe();
    // Whoever comes sees at once what there is.
    moments.mark_changed();
    let events = stream::unfold((moments, app), |(mut moments, app)| async move {
        moments.changed().await.ok()?;
        // Open streams would hold up the end of the server.
        if app.is_draining() {
            return None;
        }
        let json = moments.borrow_and_update().clone();
        Some((Ok::<_, Infallible>(Event::default().data(json)), (moments, app)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

/// Makes the state anew each second until the server ends, as long as somebody looks.
pub(crate) async fn publish(app: Arc<App>) {
    while !app.is_draining() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let second = app.live.figures.take_second();
        if app.moments.receiver_count() > 0 {
            let json = super::admin::moment(&app, second).to_string();
            app.moments.send_replace(json);
        }
    }
}

//! `/livez`, `/readyz` and the older `/healthz`: whether the server works, and each thing that this hangs on.

use http::{Response, StatusCode};

use crate::ApiServer;
use crate::body::Body;
use crate::error::ApiError;
use crate::query::Query;
use crate::reply;

const TEXT: &str = "text/plain; charset=utf-8";

/// Something that is looked at.
struct Check {
    name: &'static str,
    /// Whether it matters only to who wants to send requests.
    only_ready: bool,
}

const fn check(name: &'static str, only_ready: bool) -> Check {
    Check { name, only_ready }
}

/// What is looked at, in the order it is told.
const CHECKS: [Check; 4] =
    [check("ping", false), check("etcd", false), check("informer-sync", true), check("shutdown", true)];

impl Check {
    /// What is wrong, if anything is.
    async fn problem(&self, server: &ApiServer) -> Option<&'static str> {
        let well = match self.name {
            "etcd" => server.cache().is_following(),
            "informer-sync" => server.cache().catch_up().await.is_ok(),
            "shutdown" => !server.is_closing(),
            _ => true,
        };
        (!well).then_some(match self.name {
            "etcd" => "the store can no longer be read",
            "informer-sync" => "what is read lags behind what is stored",
            _ => "process is shutting down",
        })
    }
}

/// Answers `/<probe>` or, with a name, `/<probe>/<check>`.
pub(crate) async fn answer(
    server: &ApiServer,
    probe: &str,
    only: &str,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let own = CHECKS.iter().filter(|check| probe == "readyz" || !check.only_ready);
    if !only.is_empty() {
        let check = { own }.find(|check| check.name == only).ok_or(ApiError::NoSuchPath)?;
        let problem = check.problem(server).await;
        return Ok(match problem {
            None => reply::bytes(StatusCode::OK, TEXT, "ok"),
            Some(problem) => failed(format!("internal server error: {problem}\n")),
        });
    }
    let mut lines: Vec<String> = Vec::new();
    let mut well = true;
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    for check in own {
        let name = check.name;
        if excluded.contains(&name) {
            excluded.retain(|other| *other != name);
            lines.push(format!("[+]{name} excluded: ok\n"));
            continue;
        }
        let problem = check.problem(server).await;
        well &= problem.is_none();
        lines.push(
            problem.map_or_else(|| format!("[+]{name} ok\n"), |problem| format!("[-]{name} failed: {problem}\n")),
        );
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        lines.push(format!("warn: some health checks cannot be excluded: no matches for {}\n", names.join(",")));
    }
    let lines = lines.concat();
    Ok(match (well, query.flag("verbose")) {
        (true, false) => reply::bytes(StatusCode::OK, TEXT, "ok"),
        (true, true) => reply::bytes(StatusCode::OK, TEXT, format!("{lines}{probe} check passed\n")),
        (false, _) => failed(format!("{lines}{probe} check failed\n")),
    })
}

fn failed(text: String) -> Response<Body> {
    reply::bytes(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text)
}

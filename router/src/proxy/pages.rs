//! Error pages: built in, or the operator's own from `staticDir`, which may change at any time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;

/// How often the files are looked at.
const REFRESH: Duration = Duration::from_secs(1);
/// A page of more than this is not one.
const MAX_PAGE: u64 = 1024 * 1024;

/// The pages to answer errors with.
#[derive(Debug)]
pub struct Pages {
    directory: Option<PathBuf>,
    own: ArcSwap<HashMap<String, Bytes>>,
}

impl Pages {
    /// Reads the pages of `directory`; `None` takes the built-in ones.
    pub fn new(directory: Option<PathBuf>) -> Arc<Self> {
        let pages = Self { directory, own: ArcSwap::default() };
        pages.reload();
        Arc::new(pages)
    }

    /// The page for `status`: `error_<code>.html`, else `error_default.html`, else plain text
    /// (hipache-contract 2). `is_malformed`: the request breaks a rule of HTTP, which the built-in page says; the
    /// operator's pages are chosen by status alone.
    pub fn page(&self, status: StatusCode, is_malformed: bool) -> Bytes {
        if self.directory.is_none() {
            return built_in(status, is_malformed);
        }
        let own = self.own.load();
        let page = own.get(status.as_str()).or_else(|| own.get("default"));
        page.cloned().unwrap_or_else(|| Bytes::from(format!("{status}\n")))
    }

    /// Reads the files anew.
    pub fn reload(&self) {
        let Some(directory) = &self.directory else {
            return;
        };
        let pages = read_pages(directory);
        if **self.own.load() != pages {
            self.own.store(Arc::new(pages));
        }
    }

    /// Follows changes of the files for ever.
    pub async fn follow(self: Arc<Self>) {
        if self.directory.is_none() {
            return;
        }
        loop {
            tokio::time::sleep(REFRESH).await;
            let pages = Arc::clone(&self);
            // A slow disk must not stop the control thread.
            let _finished = tokio::task::spawn_blocking(move || pages.reload()).await;
        }
    }
}

fn read_pages(directory: &Path) -> HashMap<String, Bytes> {
    let mut pages = HashMap::new();
    let Ok(entries) = std::fs::read_dir(directory) else {
        return pages;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let code = name.to_str().and_then(|name| name.strip_prefix("error_"));
        let Some(code) = code.and_then(|name| name.strip_suffix(".html")) else {
            continue;
        };
        let is_small = std::fs::metadata(entry.path()).is_ok_and(|data| data.len() <= MAX_PAGE);
        if let Some(content) = Some(entry.path()).filter(|_| is_small).map(std::fs::read)
            && let Ok(content) = content
        {
            pages.insert(code.to_owned(), Bytes::from(content));
        }
    }
    pages
}

fn built_in(status: StatusCode, is_malformed: bool) -> Bytes {
    let text = match status {
        StatusCode::BAD_REQUEST if is_malformed => "The request is not valid HTTP.",
        StatusCode::BAD_REQUEST => {
            "The request cannot be routed: no application is configured for this address."
        }
        StatusCode::BAD_GATEWAY => "The application is not available at the moment.",
        StatusCode::SERVICE_UNAVAILABLE => {
            "The service is not available at the moment. Please try again later."
        }
        StatusCode::UNAUTHORIZED => "A user name and a password are needed.",
        StatusCode::FORBIDDEN => "This address is not open to you.",
        StatusCode::METHOD_NOT_ALLOWED => "This method is not supported.",
        StatusCode::REQUEST_TIMEOUT => "The request took too long to arrive.",
        StatusCode::PAYLOAD_TOO_LARGE => "The request is too large.",
        StatusCode::URI_TOO_LONG => "The address is too long.",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "The headers of the request are too large.",
        StatusCode::NOT_IMPLEMENTED => "The request uses a feature that is not supported.",
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => "This version of HTTP is not supported.",
        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT => {
            "This address is served by HTTPS."
        }
        StatusCode::GATEWAY_TIMEOUT => "The application did not answer in time.",
        _ => "The request could not be answered.",
    };
    Bytes::from(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{status}</title>\
         </head>\n<body><h1>{status}</h1>\n<p>{text}</p></body>\n</html>\n"
    ))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::Pages;

    /// hipache-contract 2, "The page is ...".
    #[test]
    fn pages_are_found_by_code_then_default_then_plain_text() {
        let directory = tempfile::tempdir().unwrap();
        let pages = Pages::new(Some(directory.path().to_owned()));
        assert_eq!(pages.page(StatusCode::BAD_GATEWAY, false), "502 Bad Gateway\n");
        std::fs::write(directory.path().join("error_default.html"), "any").unwrap();
        std::fs::write(directory.path().join("error_502.html"), "own").unwrap();
        pages.reload();
        assert_eq!(pages.page(StatusCode::BAD_GATEWAY, false), "own");
        assert_eq!(pages.page(StatusCode::BAD_REQUEST, true), "any");
        std::fs::remove_file(directory.path().join("error_502.html")).unwrap();
        pages.reload();
        assert_eq!(pages.page(StatusCode::BAD_GATEWAY, false), "any");
    }

    #[test]
    fn without_a_directory_pages_are_built_in() {
        let page = Pages::new(None).page(StatusCode::GATEWAY_TIMEOUT, false);
        assert!(std::str::from_utf8(&page).unwrap().contains("<h1>504 Gateway Timeout</h1>"));
    }

    /// The same status for two reasons: a user is not to look for a missing application when the request is at
    /// fault.
    #[test]
    fn built_in_400_page_names_malformed_requests() {
        for (is_malformed, text) in [(true, "not valid HTTP"), (false, "no application")] {
            let page = Pages::new(None).page(StatusCode::BAD_REQUEST, is_malformed);
            assert!(std::str::from_utf8(&page).unwrap().contains(text), "{text}");
        }
    }
}

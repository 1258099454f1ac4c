//! Header and trailer fields, whoever they are from. Pure.

use http::header::{HeaderMap, HeaderName};

pub mod trailers;

/// Removes fields without moving the others. Most often there are none such, which costs a look at the
/// names.
pub fn remove_in_order(headers: &mut HeaderMap, is_dropped: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(&is_dropped) {
        return;
    }
    let mut kept = HeaderMap::with_capacity(headers.len() + 6);
    let mut current = None;
    for (name, value) in std::mem::take(headers) {
        current = name.or(current);
        match &current {
            Some(name) if !is_dropped(name) => {
                kept.append(name.clone(), value);
            }
            _ => {}
        }
    }
    *headers = kept;
}

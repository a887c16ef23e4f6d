//! The pages: one file each, with all that they need in it.

use super::picture::Picture;

const FRAME: &str = include_str!("page/frame.html");
const STYLE: &str = include_str!("page/style.css");
const TABLES: &str = include_str!("page/tables.js");
const LANES: &str = include_str!("page/lanes.js");
const STILL: &str = include_str!("page/still.js");
const LIVE: &str = include_str!("page/live.js");

/// A page of a run as it was.
pub(super) fn still(picture: &Picture) -> serde_json::Result<String> {
    page(STILL, picture, "'none'")
}

/// A page of a run as it is at present, which asks how it goes on.
pub(in super::super) fn live(picture: &Picture) -> serde_json::Result<String> {
    page(LIVE, picture, "'self'")
}

fn page(script: &str, picture: &Picture, may_connect_to: &str) -> serde_json::Result<String> {
    // In a page, this would end the script that the data is in.
    let data = serde_json::to_string(picture)?.replace('<', "\\u003c");
    // Each placeholder stands in the frame once, so that what was put in is not looked at again.
    let mut page = String::with_capacity(FRAME.len() + STYLE.len() + LANES.len() + data.len());
    let mut rest = FRAME;
    for (placeholder, text) in [
        ("@CONNECT@", may_connect_to),
        ("@STYLE@", STYLE),
        ("@DATA@", &data),
        ("@TABLES@", TABLES),
        ("@LANES@", LANES),
        ("@SCRIPT@", script),
    ] {
        let (before, after) = rest.split_once(placeholder).expect("a placeholder in the frame");
        page.push_str(before);
        page.push_str(text);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}
